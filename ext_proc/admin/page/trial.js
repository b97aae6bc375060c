// Trying a message.
import { bar, byId, h, ms, number, set } from './elements.js';
import { change } from './server.js';

byId('trial').addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = event.submitter || byId('trial').querySelector('button');
  button.disabled = true;
  try {
    const found = await change('/try', { message: byId('message').value, session: byId('session').value, model: byId('model').value });
    if (found) byId('explained').replaceChildren(...explained(found));
  } catch (error) {
    byId('explained').replaceChildren(h('p', { class: 'bad' }, error.message));
  } finally { button.disabled = false; }
});
byId('message').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId('trial').requestSubmit(); }
});

function explained(found) {
  const scores = Object.entries(found.scores);
  if (scores.length) scores.push(['none of them', found.none]);
  const said = found.said === null ? 'none of them' : found.said;
  const unsure = found.reason === 'unsure' || found.reason === 'domain';
  const head = (...names) => h('thead', {}, h('tr', {}, names.map((name) => h('th', { scope: 'col' }, name))));
  return [
    h('p', { class: 'verdict' }, h('strong', {}, found.policy || 'no policy'), ' → ', h('strong', {}, found.target.name),
      found.arm && ` (${found.arm})`, h('span', { class: 'dim' }, ` because ${found.reason}; cluster ${found.target.cluster}`)),
    scores.length > 0 && h('table', {}, head('Policy', 'Score'), h('tbody', {}, scores.sort((one, other) => other[1] - one[1]).slice(0, 12).map(([name, score]) =>
      h('tr', { class: name === said ? 'chosen' : '' }, h('td', {}, name), h('td', { class: 'share' }, bar(score, unsure && name === said ? found.needed.threshold : null), h('span', {}, number(score, 3))))))),
    unsure && h('p', { class: 'warn' }, `It needed ${found.needed.threshold}, and ${found.needed.margin} more than the next.`),
    found.split.length > 1 && h('table', {}, head('Arm', `Sessions: this one is at ${number(found.bucket)} of 10,000`), h('tbody', {}, found.split.map((row) =>
      h('tr', { class: row.chosen ? 'chosen' : '' }, h('td', {}, `${row.arm}: ${row.model}`), h('td', {}, `${number(row.buckets[0])} to ${number(row.buckets[1])} (${set(row.percent)})`))))),
    ...found.shadows.map((shadow) => h('p', {}, `${shadow.model} gets copies of ${set(shadow.percent)}: ${shadow.model === found.shadow ? 'of this session too' : 'not of this session'}.`)),
    found.fallbacks.length > 0 && h('p', {}, `If it fails: ${found.fallbacks.join(', then ')}.`),
    h('p', { class: 'dim' }, found.timings_ms.router === null ? 'The router was not asked.' : `Router ${ms(found.timings_ms.router)} ms, in all ${ms(found.timings_ms.total)} ms.`),
  ].filter(Boolean);
}
