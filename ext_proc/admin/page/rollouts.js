// Rollouts.
import { DASH, bar, byId, h, isNumber, number, say, set, show, since, time } from './elements.js';
import { change, changes, get, isSure } from './server.js';

const cards = new Map();
const MAY = {
  start: (phase) => !['progressing', 'paused'].includes(phase),
  pause: (phase) => ['progressing', 'waiting'].includes(phase),
  resume: (phase) => phase === 'paused',
  promote: (phase) => ['progressing', 'paused'].includes(phase),
  full: (phase) => phase !== 'promoted',
  abort: (phase) => phase !== 'aborted',
};
const VERBS = [
  ['start', 'Start'], ['resume', 'Resume'], ['pause', 'Pause'], ['promote', 'Next step'],
  ['full', 'Promote to 100 %'], ['abort', 'Abort'],
];
const KINDS = { progressing: 'warn', paused: 'warn', promoted: 'good', aborted: 'bad' };

export function showRollouts(found) {
  const { replica, rollouts } = found;
  byId('replica').textContent = !replica ? '' : replica.store !== 'ok'
    ? `the store fails (${replica.store}): weights stay or go down until it is back`
    : `${replica.name} answers${replica.leads ? ' and drives them' : ', another replica drives them'}`;
  byId('replica').className = replica && replica.store !== 'ok' ? 'bad' : 'dim';
  const names = new Set(rollouts.map((one) => one.policy));
  for (const [name, card] of cards) if (!names.has(name)) { card.element.remove(); cards.delete(name); }
  const empty = byId('cards').querySelector('.none');
  if (!rollouts.length && !empty) byId('cards').append(h('p', { class: 'none' }, 'No policy in the file has a rollout.'));
  if (rollouts.length && empty) empty.remove();
  for (const one of rollouts) showRollout(one);
}

function showRollout(one) {
  let card = cards.get(one.policy);
  if (!card) {
    card = makeCard(one.policy);
    cards.set(one.policy, card);
    byId('cards').append(card.element);
  }
  const { phase } = one.current;
  show(card.body, [one, changes], () => rolloutBody(one));
  for (const [verb, button] of Object.entries(card.buttons)) {
    const may = MAY[verb](phase);
    // Focus is not to fall out of the card with the button that did its work.
    if (!may && document.activeElement === button) card.title.focus();
    button.hidden = !may;
    button.disabled = changes === 'off';
  }
  card.off.hidden = changes !== 'off';
  card.badge.textContent = phase;
  card.badge.className = `badge ${KINDS[phase] || ''}`;
}

function makeCard(policy) {
  const badge = h('span', { class: 'badge' });
  const title = h('h3', { tabindex: -1 }, policy, ' ', badge);
  const body = h('div');
  const off = h('p', { class: 'dim', hidden: true }, 'Nothing can be changed here: the file has no admin.token, and this is no loopback address.');
  const buttons = Object.fromEntries(VERBS.map(([verb, name]) => [verb,
    h('button', { type: 'button', class: verb === 'abort' ? 'danger' : '', 'aria-label': `${name}: ${policy}`, onclick: () => steer(policy, verb, name) }, name)]));
  const past = h('div');
  const history = h('details', { ontoggle: () => { if (history.open) showHistory(policy, past); } }, h('summary', {}, 'History'), past);
  const element = h('article', { 'aria-label': `Rollout of ${policy}` }, title, body, h('div', { class: 'buttons' }, Object.values(buttons)), off, history);
  return { element, title, badge, body, buttons, off };
}

function rolloutBody(one) {
  const { declared, current } = one;
  const isOn = current.phase === 'progressing' || current.phase === 'paused';
  const fact = (name, value) => [h('dt', {}, name), h('dd', {}, value)];
  return [
    h('p', { class: 'models' }, `${declared.baseline} → ${declared.target}`),
    h('ol', { class: 'steps', 'aria-label': 'Steps' }, declared.steps.map((step, at) => h('li', {
      class: current.phase === 'promoted' || (isOn && at < current.step) ? 'done' : '',
      'aria-current': isOn && at === current.step ? 'step' : null,
    }, step))),
    h('dl', { class: 'facts canary' },
      fact('Weight', [bar((one.share_here || 0) / 100, current.weight / 100), ` set ${set(current.weight)}`, isNumber(one.share_here) && h('span', { class: 'dim' }, ` · seen here ${set(one.share_here)}`)]),
      fact('Why', `${current.text} (${since(Math.max(0, Date.now() / 1000 - current.changed_at))} ago)`),
      current.waits_for.length > 0 && fact('Waits for', current.waits_for.join('; ')),
      fact('Exposed', `${number(one.exposed)} answers of the canary in this run`),
      Object.entries(one.checks).map(([name, check]) => fact(name, check.passed ? 'passed' : `not passed, ${check.failures} failures`)),
      one.unreadable && fact('Stored state', h('span', { class: 'bad' }, `cannot be read: ${one.unreadable}`))),
    one.evidence.length > 0 && h('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': `Evidence: ${one.policy}` }, evidence(one.evidence)),
  ].filter(Boolean);
}

function evidence(findings) {
  const value = (number) => isNumber(number) ? String(+number.toPrecision(3)) : DASH;
  const way = (share, kind) => [bar(share, null, kind), ` ${number(Math.max(0, Math.min(1, share)) * 100)} %`];
  return h('table', {}, h('caption', { class: 'hide' }, 'Evidence. Worse and Good: how far each test has come.'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Metric'), h('th', { scope: 'col', class: 'n' }, 'Baseline'), h('th', { scope: 'col', class: 'n' }, 'Canary'),
      h('th', { scope: 'col', class: 'n' }, 'Answers'), h('th', { scope: 'col' }, 'Worse'), h('th', { scope: 'col' }, 'Good'), h('th', { scope: 'col' }, 'Outcome'))),
    h('tbody', {}, findings.map((one) => h('tr', {}, h('td', {}, one.metric), h('td', { class: 'n' }, value(one.baseline)), h('td', { class: 'n' }, value(one.canary)),
      h('td', { class: 'n' }, `${number(one.n_baseline)} / ${number(one.n_canary)}`), h('td', { class: 'share' }, way(one.worse, 'to-bad')), h('td', { class: 'share' }, way(one.good, 'to-good')), h('td', {}, one.outcome)))));
}

async function showHistory(policy, place) {
  try {
    const found = await get(`/rollouts/${encodeURIComponent(policy)}/history?limit=50`);
    place.replaceChildren(h('table', {}, h('thead', {}, h('tr', {}, ['Time', 'What', 'Weight', 'Text'].map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', {}, found.events.reverse().map((event) => h('tr', {}, h('td', {}, time(event.at)), h('td', {}, event.cause),
        h('td', {}, `${event.before_per_10k / 100} → ${event.after_per_10k / 100} %`), h('td', {}, event.text + (event.by ? ` (by ${event.by})` : '')))))));
  } catch (error) { place.replaceChildren(h('p', { class: 'bad' }, error.message)); }
}

const WARNINGS = {
  full: ['Promote to 100 %?', 'The canary gets all sessions of this policy, whatever the evidence says.', 'Promote'],
  abort: ['Abort the rollout?', 'The canary gets nothing more. Its sessions go back to the baseline.', 'Abort'],
};

async function steer(policy, verb, name) {
  if (WARNINGS[verb] && !(await isSure(policy, ...WARNINGS[verb]))) return;
  const path = `/rollouts/${encodeURIComponent(policy)}/${verb === 'full' ? 'promote' : verb}`;
  try {
    const found = await change(path, { by: 'the admin page', full: verb === 'full' });
    if (!found) return;
    const told = { sent: 'told to the replica that drives the rollouts', waiting: 'noted, and stored when the store is back' };
    say(`${policy}: ${told[found.result] || `${found.current.phase} at ${set(found.current.weight)}`}`);
    showRollout(found);
  } catch (error) { say(`${name}, ${policy}: ${error.message}`, true); }
}
