// The tiles and the policies.
import { DASH, armClass, bar, byId, h, isNumber, ms, number, percent, set, show, since, sparkline, total } from './elements.js';
import { showRouter } from './router.js';
import { changesNeed } from './server.js';

export function showOverview(found) {
  changesNeed(found.changes);
  byId('token-open').hidden = found.changes !== 'token';
  byId('about').textContent = `${found.version} · revision ${found.revision} · up ${since(found.at - found.started_at)}`;
  const decided = total(found.decided);
  const last = found.decided.slice(-4, -1);
  const reasons = (test) => total(found.reasons.filter(test).map((one) => one.count));
  const fallbacks = reasons((one) => one.fallback);
  const answered = found.policies.concat(found.others).flatMap((one) => one.targets);
  const failed = total(answered.map((one) => one.failed));
  const seen = total(answered.map((one) => one.answered));
  const tile = (name, value, more, kind, extra) => h('div', {}, h('dt', {}, name), h('dd', { class: kind }, value, more && h('small', {}, ` ${more}`), extra));
  show(byId('tiles'), [found.decided, found.reasons, found.decision, found.router, failed, seen], () => [
    tile('Requests', number(total(last) / (last.length * found.slot_s || 1), 1), 'a second', '', sparkline(found.decided, 'requests over five minutes')),
    tile('Decided by a policy', decided ? percent(reasons((one) => one.reason === 'policy' || one.reason === 'session' || one.reason === 'domain') / decided, 0) : DASH, `of ${number(decided)}`),
    tile('Decision', ms(found.decision.p50_ms), `ms · p99 ${ms(found.decision.p99_ms)}`),
    tile('Router', ms(found.router.p50_ms), `ms · p99 ${ms(found.router.p99_ms)}`),
    tile('Fallbacks to the default', number(fallbacks), decided ? percent(fallbacks / decided) : '', fallbacks ? 'warn' : ''),
    tile('Answers that failed', number(failed), `of ${number(seen)} seen`, failed ? 'bad' : ''),
  ]);
  showPolicies(found, decided);
  showRouter(found);
}

function showPolicies(found, decided) {
  const table = byId('policies').querySelector('table');
  const others = found.others.map((one) => ({ ...one, title: one.name || 'no policy', description: one.name ? 'not in the file' : `none matched, or none was asked for: ${found.reasons.filter((r) => !['policy', 'domain', 'session'].includes(r.reason)).map((r) => r.reason).join(', ')}` }));
  const all = found.policies.concat(others);
  while (table.tBodies.length > Math.max(1, all.length)) table.tBodies[table.tBodies.length - 1].remove();
  while (table.tBodies.length < all.length) table.append(h('tbody'));
  if (!all.length) {
    show(table.tBodies[0], 'none', () => [h('tr', {}, h('td', { colspan: 5, class: 'none' }, 'No policies, and no traffic yet.'))]);
    table.tBodies[0].hidden = false;
  }
  all.forEach((policy, at) => {
    table.tBodies[at].hidden = false;
    show(table.tBodies[at], [policy, decided], () => policyRows(policy, decided));
  });
}

function policyRows(policy, decided) {
  const sum = total(policy.targets.map((target) => target.decided));
  const more = [
    ...(policy.shadows || []).map((shadow) => `copies ${set(shadow.percent)} to ${shadow.model}`),
    ...(policy.fallbacks && policy.fallbacks.length ? [`then ${policy.fallbacks.join(', ')}`] : []),
    ...(policy.split === 'envoy' ? ['Envoy holds the weights'] : []),
  ].join(' · ');
  const head = h('tr', {}, h('th', { scope: 'rowgroup', colspan: 2 },
    h('b', {}, policy.title || policy.name), policy.domain && h('span', { class: 'more' }, ` in ${policy.domain}`),
    h('span', { class: 'dim' }, policy.description)),
  h('td', { class: 'n' }, number(sum)), h('td', { class: 'n dim', colspan: 2 }, decided && sum ? `${percent(sum / decided, 0)} of all` : ''));
  const rows = policy.targets.map((target, at) => {
    const share = sum ? target.decided / sum : null;
    const isSet = isNumber(target.configured);
    return h('tr', { class: isSet ? armClass(target.arm, at) : 'stray' },
      h('td', {}, h('span', { class: 'dot', 'aria-hidden': 'true' }), target.model, ' ', h('span', { class: 'more' }, target.arm || '')),
      !isSet && !target.decided ? h('td', { class: 'more' }, `${number(target.answered)} answers for another that failed`)
        : h('td', { class: 'share' }, bar(share, isSet ? target.configured / 100 : null), h('span', {}, percent(share)), h('span', { class: 'dim' }, isSet ? `set ${set(target.configured)}` : 'not set')),
      h('td', { class: 'n' }, number(target.decided)),
      h('td', { class: target.failed ? 'n bad' : 'n dim' }, target.failed ? percent(target.failed / target.answered) : target.answered ? '0' : DASH),
      h('td', {}, sparkline(target.trend, `${target.model}: decisions over five minutes`)));
  });
  if (more) rows.push(h('tr', {}, h('td', { colspan: 5, class: 'more' }, more)));
  return [head, ...rows];
}
