// Shadows.
import { DASH, byId, h, number, percent, show, signed, time, total } from './elements.js';

export function showShadows(found) {
  const pairs = byId('pairs').tBodies[0];
  show(pairs, found.totals, () => found.totals.length ? found.totals.map((one) => h('tr', { class: one.role === 'noise' ? 'dim' : '' },
    h('td', {}, one.policy),
    h('td', {}, one.shadow, one.role === 'noise' && h('span', { class: 'more' }, ' (noise floor: our own model asked twice)')),
    h('td', { class: 'n' }, number(one.pairs)), h('td', { class: 'n' }, number(one.similarity, 3)), h('td', { class: 'n' }, percent(one.exact)),
    h('td', { class: 'n' }, percent(one.structured_equal)), h('td', { class: 'n' }, `${percent(one.shadow_refused)} / ${percent(one.primary_refused)}`),
    h('td', { class: one.shadow_failed ? 'n bad' : 'n' }, number(one.shadow_failed)),
    h('td', { class: 'n' }, total(Object.values(one.judge)) ? `${one.judge.shadow} / ${one.judge.tie} / ${one.judge.primary}` : DASH)))
    : [h('tr', {}, h('td', { colspan: 9, class: 'none' }, 'No answer has been compared yet.'))]);
  const recent = found.recent.slice(0, 30);
  show(byId('differences').tBodies[0], recent, () => recent.map((one) => h('tr', {},
    h('td', {}, time(one.at)), h('td', {}, one.policy), h('td', {}, one.primary), h('td', {}, one.shadow, one.role === 'noise' && ' (noise)'),
    h('td', { class: 'n' }, `${one.primary_status || 'none'} / ${one.shadow_status || 'none'}`), h('td', { class: 'n' }, one.exact ? 'exact' : number(one.similarity, 3)),
    h('td', { class: 'n' }, signed(one.latency_delta_ms)), h('td', { class: 'n' }, signed(one.first_byte_delta_ms)),
    h('td', { class: 'n' }, signed(one.tokens_out_delta)), h('td', { class: 'n' }, signed(one.cost_delta, 5)))));
}
