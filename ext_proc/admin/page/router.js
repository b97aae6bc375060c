// The router and what failed.
import { byId, h, ms, number, show, svg } from './elements.js';

export function showRouter(found) {
  const { router, faults } = found;
  byId('times').textContent = router.count
    ? `${number(router.count)} questions in five minutes, those from memory too: p50 ${ms(router.p50_ms)} ms, p90 ${ms(router.p90_ms)} ms, p99 ${ms(router.p99_ms)} ms`
    : 'not asked in the last five minutes';
  show(byId('histogram'), router, () => router.count ? histogram(router) : []);
  const all = found.reasons.filter((one) => one.fallback).map((one) => ({ kind: 'to the default', what: one.reason, count: one.count })).concat(faults);
  show(byId('faults').tBodies[0], all, () => all.length
    ? all.map((one) => h('tr', {}, h('td', {}, one.kind), h('td', {}, one.what), h('td', { class: 'n' }, number(one.count))))
    : [h('tr', {}, h('td', { colspan: 3, class: 'none good' }, 'Nothing in the last five minutes.'))]);
}

/** Times on a logarithmic axis. A bucket's lower end is its upper one by 1.25. */
function histogram(router) {
  const low = 0.04, high = Math.max(100, router.buckets[router.buckets.length - 1][0]);
  const x = (value) => (100 * Math.log(Math.max(value, low) / low)) / Math.log(high / low);
  const most = Math.max(...router.buckets.map(([, count]) => count));
  const tall = (count) => Math.max(1, (count / most) * 36);
  const ticks = [0.1, 1, 10, 100, 1000, 10000].filter((tick) => tick <= high);
  const line = (value, kind) => svg('line', { x1: x(value), x2: x(value), y1: 0, y2: 40, class: kind, 'vector-effect': 'non-scaling-stroke' });
  return [
    svg('svg', { viewBox: '0 0 100 40', preserveAspectRatio: 'none', role: 'img', 'aria-label': byId('times').textContent },
      ticks.map((tick) => line(tick, 'tick')),
      router.buckets.map(([upper, count]) => svg('rect', { x: x(upper / 1.25), width: Math.max(0.3, x(upper) - x(upper / 1.25) - 0.2), y: 40 - tall(count), height: tall(count) })),
      line(router.p50_ms, 'q'), line(router.p99_ms, 'q')),
    h('p', { class: 'axis dim', 'aria-hidden': 'true' }, ticks.map((tick) => h('span', { '--at': `${x(tick)}%` }, tick < 1000 ? `${tick} ms` : `${tick / 1000} s`))),
  ];
}
