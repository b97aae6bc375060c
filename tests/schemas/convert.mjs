// The TypeScript models of Kubernetes resources as JSON schemas that allow no unknown field; README.md says of what.
// In a folder with the packages and typescript installed: node convert.mjs KIND=MODULE ... > schemas.json
import ts from "typescript";

const roots = process.argv.slice(2).map((word) => word.split("="));
const files = roots.map(([, module]) => `node_modules/${module}.d.ts`);
const program = ts.createProgram(files, { moduleResolution: ts.ModuleResolutionKind.Bundler, strict: true });
const checker = program.getTypeChecker();
const definitions = {};
const names = new Map();

function schemaOf(type) {
  if (type.flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown)) return {};
  if (type.flags & ts.TypeFlags.BooleanLike) return { type: "boolean" };
  if (type.isStringLiteral() || type.isNumberLiteral()) return { const: type.value };
  if (type.flags & ts.TypeFlags.StringLike) return { type: "string" };
  if (type.flags & ts.TypeFlags.NumberLike) return { type: "number" };
  if (type.flags & ts.TypeFlags.Null) return { type: "null" };
  if (type.isUnion()) {
    const parts = type.types.filter((part) => !(part.flags & (ts.TypeFlags.Undefined | ts.TypeFlags.Null)));
    if (parts.every((part) => part.isStringLiteral() || part.isNumberLiteral()))
      return { enum: parts.map((part) => part.value) };
    // "One of these fields": alternatives of one object, which differ in what is required only.
    if (parts.every((part) => part.flags & (ts.TypeFlags.Object | ts.TypeFlags.Intersection))) {
      const lists = parts.map(arrayIn).filter(Boolean);
      return lists.length ? schemaOf(lists[0]) : objectOf(parts[0], parts);
    }
    const found = new Map(parts.map(schemaOf).map((schema) => [JSON.stringify(schema), schema]));
    return found.size === 1 ? [...found.values()][0] : { anyOf: [...found.values()] };
  }
  if (checker.isArrayType(type)) return { type: "array", items: schemaOf(checker.getTypeArguments(type)[0]) };
  if (type.isIntersection()) return arrayIn(type) ? schemaOf(arrayIn(type)) : objectOf(type);
  const symbol = type.aliasSymbol ?? type.symbol;
  if (!symbol || symbol.name === "__type") return objectOf(type);
  if (!names.has(type)) {
    const taken = new Set(names.values());
    let name = symbol.name;
    for (let number = 2; taken.has(name); number++) name = `${symbol.name}${number}`;
    names.set(type, name);
    definitions[name] = objectOf(type);
  }
  return { $ref: `#/$defs/${names.get(type)}` };
}

function arrayIn(type) {
  return [type, ...(type.types ?? [])].find((part) => checker.isArrayType(part));
}

function objectOf(type, alternatives = [type]) {
  const index = checker.getIndexInfoOfType(type, ts.IndexKind.String);
  const properties = {};
  const required = [];
  for (const property of checker.getPropertiesOfType(type)) {
    const declared = checker.getTypeOfSymbol(property);
    properties[property.name] = schemaOf(declared);
    const optional = alternatives.some((one) => {
      const same = checker.getPropertyOfType(one, property.name);
      return !same || same.flags & ts.SymbolFlags.Optional;
    });
    if (!optional) required.push(property.name);
  }
  const rest = index ? schemaOf(index.type) : false;
  if (!index && !Object.keys(properties).length) return {}; // any JSON
  return {
    type: "object",
    ...(Object.keys(properties).length ? { properties } : {}),
    ...(required.length ? { required } : {}),
    additionalProperties: rest,
  };
}

const found = {};
for (const [kind, module] of roots) {
  const source = program.getSourceFile(`node_modules/${module}.d.ts`);
  const exported = checker.getExportsOfModule(checker.getSymbolAtLocation(source));
  const model = exported.find((symbol) => symbol.name === `I${kind.split("/").at(-1)}`);
  found[kind] = schemaOf(checker.getDeclaredTypeOfSymbol(model));
}
const sorted = Object.fromEntries(Object.entries(definitions).sort(([a], [b]) => (a < b ? -1 : 1)));
console.log(JSON.stringify({ kinds: found, $defs: sorted }, null, 0));
