// Asking the server. The token stays in this module.
import { byId } from './elements.js';

let token = '';

/** What a change needs, as the server says: 'token', 'free', or 'off'. */
export let changes = 'off';
export function changesNeed(what) { changes = what; }

export async function get(path) {
  const answer = await fetch(path, { headers: { accept: 'application/json' } });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || `the server answered ${answer.status}`);
  return found;
}

/** POST; null when a person was asked for a token and gave none. */
export async function change(path, body) {
  for (let tries = 0; ; tries += 1) {
    const headers = { 'content-type': 'application/json' };
    if (token) headers.authorization = `Bearer ${token}`;
    const answer = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
    const found = await answer.json().catch(() => ({}));
    if (answer.ok) return found;
    if (answer.status !== 401) throw new Error(found.error || `the server answered ${answer.status}`);
    if (!(await askToken(token ? 'The server did not take this token.' : ''))) return null;
  }
}

function closed(dialog) {
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener('close', () => resolve(dialog.returnValue), { once: true }));
}

const explanation = byId('token-why').textContent;
async function askToken(problem) {
  byId('token-why').textContent = problem || explanation;
  byId('token-why').className = problem ? 'bad' : 'dim';
  byId('token-value').value = '';
  const said = await closed(byId('token'));
  if (said === 'ok') token = byId('token-value').value.trim();
  byId('token-value').value = '';
  byId('token-open').textContent = token ? 'Token: given' : 'Token';
  return said === 'ok';
}

export async function isSure(policy, title, why, verb) {
  byId('sure-h').textContent = title;
  byId('sure-why').textContent = `${policy}: ${why}`;
  byId('sure-yes').textContent = verb;
  return (await closed(byId('sure'))) === 'ok';
}
byId('token-open').addEventListener('click', () => askToken(''));
