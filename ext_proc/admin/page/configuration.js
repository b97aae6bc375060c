// The configuration.
import { byId, h, show, since, time } from './elements.js';

export function showConfig(found) {
  const { last_reload: last, configuration } = found;
  byId('loaded').textContent = `${found.file}, in force since ${new Date(found.in_force_since * 1000).toLocaleString('en-GB')}`;
  show(byId('config'), configuration, () => [h('pre', {}, yaml(configuration, '').trimStart())]);
  const isBad = last && last.problems.length > 0;
  const workers = found.workers || [];
  const without = workers.filter((one) => one.last_reload && one.last_reload.outcome !== 'ok');
  const differ = (found.revisions || []).length > 1 && h('p', { class: 'bad' }, `The workers differ: ${workers.map((one) => `${one.worker} has revision ${one.revision}`).join(', ')}`);
  show(byId('reload'), [last, workers], () => !last ? [differ].filter(Boolean) : [
    h('p', { class: isBad ? 'bad' : 'dim' }, `Last reload ${last.outcome.replaceAll('_', ' ')} at ${time(last.at)}${isBad ? '; what was in force still is' : ''}${without.length ? ` (${without.length} of ${workers.length} workers)` : ''}`),
    differ,
    ...last.problems.concat(last.warnings).map((line) => h('p', { class: 'id' }, line)),
    last.waits_for_restart.length > 0 && h('p', { class: 'warn' }, `Waits for a restart: ${last.waits_for_restart.join(', ')}`),
  ].filter(Boolean));
}

/** Data as a person would write it in the file. */
function yaml(value, indent) {
  if (Array.isArray(value)) {
    if (value.every((one) => typeof one !== 'object' || one === null)) return ` [${value.map(scalar).join(', ')}]`;
    return value.map((one) => `\n${indent}- ${yaml(one, `${indent}  `).trimStart()}`).join('');
  }
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).map(([name, one]) => `\n${indent}${scalar(name)}:${yaml(one, `${indent}  `)}`).join('');
  }
  return ` ${scalar(value)}`;
}
const scalar = (value) => typeof value === 'string' && /^[\w$][^#\n:,[\]{}"']*$/.test(value) ? value : JSON.stringify(value);
