// Elements, words, numbers and small drawings. Whatever comes from the server becomes text, never markup: there
// is no innerHTML here, and the page's Content-Security-Policy allows none.

export const byId = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('--')) element.style.setProperty(name, value);
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Put new children in, unless they would be what is there: a reader's place and selection stay. */
const shown = new WeakMap();
export function show(element, state, children) {
  const text = JSON.stringify(state);
  if (shown.get(element) === text) return;
  shown.set(element, text);
  element.replaceChildren(...children());
}

// ---- words and numbers ----

export const DASH = '–';
export const isNumber = (value) => typeof value === 'number';
export const number = (value, digits = 0) => isNumber(value)
  ? value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }) : DASH;
export const ms = (value) => number(value, !isNumber(value) || value >= 100 ? 0 : value >= 10 ? 1 : 2);
export const percent = (share, digits = 1) => isNumber(share) ? `${number(share * 100, digits)} %` : DASH;
export const set = (value) => `${+value.toFixed(2)} %`;
export const signed = (value, digits = 0) => isNumber(value) ? (value > 0 ? '+' : '') + number(value, digits) : DASH;
export const time = (at) => new Date(at * 1000).toLocaleTimeString('en-GB');
export const say = (text, isBad) => { byId('said').className = isBad ? 'bad' : ''; byId('said').textContent = text; };
export const since = (seconds) => {
  const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const [size, unit] = units.find(([size]) => seconds >= size) || units[3];
  return `${Math.floor(seconds / size)} ${unit}`;
};
export const total = (values) => values.reduce((sum, value) => sum + value, 0);

// ---- drawing ----

export function sparkline(values, label) {
  const count = values.length || 1;
  const most = Math.max(1, ...values);
  const points = values.map((value, at) => `${((at / Math.max(1, count - 1)) * 100).toFixed(1)},${(19 - (value / most) * 17).toFixed(1)}`);
  return svg('svg', { viewBox: '0 0 100 20', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    points.length > 1 && svg('polygon', { points: `0,20 ${points.join(' ')} 100,20`, fill: 'currentColor', opacity: '.16' }),
    points.length > 1 && svg('polyline', { points: points.join(' '), fill: 'none', stroke: 'currentColor', 'stroke-width': '1.4', 'vector-effect': 'non-scaling-stroke', 'stroke-linejoin': 'round' }));
}
const within = (share) => `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
export const bar = (share, mark, kind = '') => h('span', { class: `bar ${kind}`, 'aria-hidden': 'true', '--is': within(share), '--set': within(mark) },
  h('i'), isNumber(mark) && h('b'));
export const armClass = (arm, at) => arm === 'baseline' || (!arm && !at) ? 'ours' : arm === 'canary' ? 'canary' : arm ? 'third' : 'stray';
