// Live decisions.
import { DASH, byId, h, ms, number, time } from './elements.js';

const ROWS = 100;

const rows = byId('decisions').querySelector('tbody');
const waiting = [];
let isHeld = false;
let missed = 0;

export function take(batch) {
  missed += batch.skipped;
  waiting.push(...batch.entries);
  if (waiting.length > 5 * ROWS) missed += waiting.splice(0, waiting.length - 5 * ROWS).length;
  if (!isHeld) addRows();
  else byId('hold').textContent = `Go on (${waiting.length})`;
}

function addRows() {
  const added = [];
  for (const entry of waiting.splice(0)) {
    if (entry.kind === 'answer') addAnswer(entry);
    else { const row = decisionRow(entry); added.push(row); rows.prepend(row); }
  }
  while (rows.rows.length > ROWS) rows.deleteRow(-1);
  setTimeout(() => added.forEach((row) => row.classList.remove('new')), 900);
  byId('skipped').hidden = !missed;
  byId('skipped').textContent = `${number(missed)} more came too fast to be shown here; the figures count them.`;
}

const matches = (row) => { const wanted = byId('filter').value.trim().toLowerCase(); return !wanted || row.textContent.toLowerCase().includes(wanted); };

function decisionRow(entry) {
  const row = h('tr', { class: `new ${entry.fallback ? 'fallback' : ''} ${entry.arm === 'canary' ? 'canary' : ''}`, 'data-request': entry.request_id, 'data-model': entry.model },
    h('td', {}, time(entry.at)),
    h('td', { class: entry.policy ? '' : 'dim' }, entry.policy || DASH),
    h('td', { class: 'n' }, number(entry.score, 2)),
    h('td', {}, entry.model, entry.arm && h('span', { class: 'more' }, ` ${entry.arm}`)),
    h('td', { class: entry.fallback ? '' : 'dim' }, entry.reason, entry.shadow && h('span', { class: 'more', title: `copied to ${entry.shadow}` }, ' + copy')),
    h('td', { class: 'n' }, ms(entry.total_s * 1000)),
    h('td', { class: 'n dim' }, DASH), h('td', { class: 'n dim' }, DASH),
    h('td', { class: 'id', title: entry.request_id }, entry.request_id || DASH));
  row.hidden = !matches(row);
  return row;
}

function addAnswer(entry) {
  const row = entry.request_id && [...rows.rows].find((one) => one.dataset.request === entry.request_id);
  if (!row) return;
  row.cells[6].textContent = entry.status || 'none';
  row.cells[6].className = entry.error ? 'n bad' : 'n good';
  row.cells[7].textContent = ms(entry.latency_s * 1000);
  row.cells[7].className = 'n';
  if (entry.model !== row.dataset.model) row.cells[3].append(h('span', { class: 'warn' }, ` → ${entry.model}`));
}

byId('filter').addEventListener('input', () => { for (const row of rows.rows) row.hidden = !matches(row); });
byId('hold').addEventListener('click', () => {
  isHeld = !isHeld;
  byId('hold').setAttribute('aria-pressed', isHeld);
  byId('hold').textContent = isHeld ? 'Go on' : 'Pause';
  if (!isHeld) addRows();
});
