"""The file's providers, resolved to targets, and how a reference finds one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ext_proc.config.base_url import WELL_KNOWN, BaseUrl
from ext_proc.config.document import Mark, Path, Report, shown
from ext_proc.config.draft import Draft
from ext_proc.config.environment import read_secret
from ext_proc.config.schema import ModelProvider, SupportsSection
from ext_proc.core.settings import Upstream
from ext_proc.core.types import Credential, Dialect, Price, Secret, Supports, Target

DEFAULT = "default"
"""What `on_failure` calls the default provider, so no provider can be called that."""

_AUTHORIZATION = "authorization"
_SECTIONS = ("model_providers", "llm_providers")


@dataclass(slots=True)
class Catalog:
    """What the providers of one file resolve to.

    `models` finds a target by `prefix/id` and by the bare id, where only one provider has it;
    `ambiguous` names the providers otherwise. `failure_variable` holds the default's key.
    """

    targets: dict[str, Target] = field(default_factory=dict)
    models: dict[str, Target] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    upstream_marks: dict[str, Mark] = field(default_factory=dict)
    default: Target | None = None
    failure_variable: str | None = None

    def add_upstream(self, upstream: Upstream, mark: Mark, report: Report) -> None:
        """Note the hosts of a cluster. A cluster has one host, port and scheme."""
        cluster = upstream.cluster
        known = self.upstreams.setdefault(cluster, upstream)
        if known.max_requests is None and upstream.max_requests is not None:
            known = self.upstreams[cluster] = replace(known, max_requests=upstream.max_requests)
        if upstream.max_requests not in (None, known.max_requests):
            line = self.upstream_marks[cluster].line
            text = f'cluster "{shown(cluster)}" has another max_requests here than in line {line}'
            report.add(mark, text, "the limit is the cluster's: write it once")
        if replace(upstream, max_requests=known.max_requests) != known:
            line = self.upstream_marks[cluster].line
            text = f'cluster "{shown(cluster)}" has other hosts here than in line {line}'
            report.add(mark, text, "give each host, port and scheme its own cluster")
        self.upstream_marks.setdefault(cluster, mark)

    def find(self, reference: str, path: Path, draft: Draft, report: Report) -> Target | None:
        """The target that a name, a `prefix/id` or a bare id refers to. None, and a problem, without one."""
        found = self.targets.get(reference) or self.models.get(reference)
        if (
            found is not None
            or draft.may_be_lost(reference)
            or any((section,) in draft.lost for section in _SECTIONS)
        ):
            return found
        mark = draft.document.mark(path)
        if reference in self.ambiguous:
            names = " or ".join(f'"{shown(name)}"' for name in self.ambiguous[reference][:4])
            report.add(mark, f'"{shown(reference)}" is the model of several providers', f"name one: {names}")
            return None
        hint = report.did_you_mean(reference, (*self.targets, *self.models))
        if reference in (draft.config.model_aliases or {}):
            hint = "an alias cannot stand here: write its target"
        known = ", ".join(shown(name) for name in list(self.targets)[:8])
        report.add(mark, f'there is no provider "{shown(reference)}"', hint or f"known: {known or 'none'}")
        return None


def entries_of(draft: Draft) -> list[tuple[Path, ModelProvider]]:
    """The providers that fit the schema, each with its path, in file order."""
    lists = (draft.config.model_providers, draft.config.llm_providers)
    found: list[tuple[Path, ModelProvider]] = []
    for section, providers in zip(_SECTIONS, lists, strict=True):
        entries = enumerate(providers or [])
        found += [((section, index), entry) for index, entry in entries if entry is not None]
    return found


def build_catalog(draft: Draft, environ: Mapping[str, str], report: Report) -> Catalog:
    """Resolve every provider, reporting what is wrong within and between them."""
    catalog = Catalog()
    document = draft.document
    entries = entries_of(draft)
    written = [section for section in _SECTIONS if draft.was_written((section,))]
    if not written and not any(draft.is_lost((section,)) for section in _SECTIONS):
        mark = document.mark(())
        report.add(mark, 'there is no "model_providers"', "list at least one model, with default: true")
    elif len(written) > 1:
        mark = document.mark(("llm_providers",), of_key=True)
        report.add(
            mark, '"model_providers" and "llm_providers" are the same list', "move these entries there"
        )
    defaults: list[Path] = []
    names: dict[str, Mark] = {}
    for path, entry in entries:
        name = entry.name or entry.model
        mark = document.mark((*path, "name") if entry.name else (*path, "model"))
        if name == DEFAULT:
            report.add(mark, f'"{DEFAULT}" is reserved for "on_failure"', "give the provider another name")
        if name in names:
            hint = f'give one of them another "name": the first is in line {names[name].line}'
            report.add(mark, f'two providers are called "{shown(name)}"', hint)
            continue
        is_lost = draft.is_lost((*path, "model")) and not entry.name
        names[name] = mark
        base_url = _base_url(draft, path, entry)
        cluster = _cluster(draft, path, entry, report)
        if base_url is not None and cluster:
            upstream = Upstream(cluster, base_url.host, base_url.port, base_url.tls, entry.max_requests)
            catalog.add_upstream(upstream, document.mark((*path, "base_url")), report)
        credential, variable = _credential(draft, path, entry, environ, report)
        target = Target(
            name=name,
            model=entry.model.partition("/")[2],
            cluster=cluster,
            authority=base_url.authority if base_url else None,
            path_prefix=(base_url.path or None) if base_url else None,
            credential=credential,
            passthrough_auth=entry.passthrough_auth,
            supports=_supports(entry.supports),
            # One whose hosts are lost has none to miss.
            has_address=base_url is not None or not cluster or _is_lost(draft, path, "model", "base_url"),
            origin=base_url.origin if base_url else None,
            price=Price(entry.price.input_per_million, entry.price.output_per_million)
            if entry.price
            else None,
        )
        if not is_lost:
            catalog.targets[name] = target
        if entry.default:
            defaults.append(path)
            if catalog.default is None:
                catalog.default, catalog.failure_variable = target, variable
    _check_defaults(draft, defaults, written, report)
    _index_models(draft, catalog, entries)
    return catalog


def _is_lost(draft: Draft, path: Path, *keys: str) -> bool:
    return any(draft.is_lost((*path, key)) for key in keys)


def _supports(written: SupportsSection) -> Supports:
    dialects = written.dialects
    return Supports(
        dialects=frozenset(Dialect(name) for name in dialects if name) if dialects is not None else None,
        images=written.images,
        tools=written.tools,
        context_tokens=written.context_tokens,
    )


def _base_url(draft: Draft, path: Path, entry: ModelProvider) -> BaseUrl | None:
    if entry.base_url is not None:
        return entry.base_url
    known = WELL_KNOWN.get(entry.model.partition("/")[0])
    return known.base_url if known and not draft.is_lost((*path, "base_url")) else None


def _cluster(draft: Draft, path: Path, entry: ModelProvider, report: Report) -> str:
    """The Envoy cluster. Empty, and a problem, when nothing says which."""
    prefix = entry.model.partition("/")[0]
    if entry.cluster is not None:
        return entry.cluster
    base_url = _base_url(draft, path, entry)
    if draft.config.envoy.cluster_naming == "istio" and base_url is not None:
        return f"outbound|{base_url.port}||{base_url.host}"
    if entry.base_url is not None:
        return entry.base_url.cluster
    if prefix in WELL_KNOWN:
        return prefix
    if not _is_lost(draft, path, "model", "base_url", "cluster"):
        close = report.did_you_mean(prefix, WELL_KNOWN)
        report.add(
            draft.document.mark((*path, "model")),
            f'nothing says where "{shown(entry.model)}" is served',
            f'write its "base_url", or the Envoy "cluster" that serves it{f"; {close}" if close else ""}',
        )
    return ""


def _credential(
    draft: Draft, path: Path, entry: ModelProvider, environ: Mapping[str, str], report: Report
) -> tuple[Credential | None, str | None]:
    """The credential, and the variable that holds its key if it is nothing but that variable."""
    document, key_path = draft.document, (*path, "access_key")
    if entry.passthrough_auth and entry.access_key is not None:
        mark = document.mark((*path, "passthrough_auth"), of_key=True)
        report.add(mark, '"passthrough_auth" and "access_key" exclude each other', "remove one of them")
    if entry.credential_header is not None and entry.access_key is None and not draft.is_lost(key_path):
        mark = document.mark((*path, "credential_header"), of_key=True)
        report.add(
            mark, '"credential_header" has no "access_key" to carry', "write access_key, or remove this"
        )
    if not entry.access_key:
        return None, None
    value = read_secret(entry.access_key, environ, document, key_path, report)
    if value is None:
        return None, None
    key = value.text.strip()
    if not key:
        if value.variable:
            text = f"the environment variable {value.variable} is empty, so no key is sent"
            report.add(document.mark(key_path), text, "set it, or remove access_key", is_warning=True)
        return None, None
    if not (key.isascii() and key.isprintable()):
        report.add(
            document.mark(key_path), '"access_key" has characters that no header can carry', "check the key"
        )
        return None, None
    header = entry.credential_header or _usual_header(entry)
    bare = header == _AUTHORIZATION and not key.lower().startswith(("bearer ", "basic "))
    variable = value.variable if value.plain and not entry.passthrough_auth else None
    return Credential(header, Secret(f"Bearer {key}" if bare else key)), variable


def _usual_header(entry: ModelProvider) -> str:
    interface = {"claude": "anthropic"}.get(entry.provider_interface or "", entry.provider_interface or "")
    known = WELL_KNOWN.get(interface or entry.model.partition("/")[0])
    return known.credential_header if known else _AUTHORIZATION


def _check_defaults(draft: Draft, defaults: list[Path], written: list[str], report: Report) -> None:
    document = draft.document
    for path in defaults[1:]:
        line = document.mark((*defaults[0], "default")).line
        mark = document.mark((*path, "default"), of_key=True)
        report.add(mark, "a second default provider", f"keep one: the first is in line {line}")
    # A provider that was taken out may have been the one.
    maybe_lost = any(
        path[0] in _SECTIONS and (len(path) < 3 or path[2:] == ("default",)) for path in draft.lost
    )
    if written and not defaults and not maybe_lost:
        mark = document.mark((written[0],))
        report.add(mark, "no provider is the default", 'write "default: true" at one of them')


def _index_models(draft: Draft, catalog: Catalog, entries: list[tuple[Path, ModelProvider]]) -> None:
    owners: dict[str, list[str]] = {}
    for path, entry in entries:
        if draft.is_lost((*path, "model")):
            continue
        name = entry.name or entry.model
        for spelling in {entry.model, entry.model.partition("/")[2]} - {name}:
            owners.setdefault(spelling, []).append(name)
    for spelling, names in owners.items():
        if spelling in catalog.targets:
            continue
        if len(names) == 1:
            catalog.models[spelling] = catalog.targets[names[0]]
        else:
            catalog.ambiguous[spelling] = names
