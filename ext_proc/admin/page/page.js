// The admin page: what its panels show, kept up to date.
import { showConfig } from './configuration.js';
import { take } from './decisions.js';
import { byId } from './elements.js';
import { showOverview } from './policies.js';
import { showRollouts } from './rollouts.js';
import { get } from './server.js';
import { showShadows } from './shadows.js';
import './trial.js';

const working = new Map();
function state(what, works) {
  working.set(what, works);
  const all = [...working.values()].every(Boolean);
  const text = all ? 'live' : 'no answer, trying again';
  if (byId('link').textContent !== text) byId('link').textContent = text;
  byId('link').className = `badge ${all ? 'good' : 'bad'}`;
}

function every(seconds, path, take) {
  const turn = async () => {
    if (!document.hidden) {
      try { take(await get(path)); state(path, true); } catch (error) {
        state(path, error instanceof TypeError || error instanceof SyntaxError ? false : path !== '/overview');
      }
    }
    setTimeout(turn, seconds * 1000);
  };
  turn();
}

let stream = null;
function listen() {
  if (stream || document.hidden) return;
  stream = new EventSource('/events');
  stream.addEventListener('open', () => state('/events', true));
  stream.addEventListener('decisions', (event) => take(JSON.parse(event.data)));
  stream.addEventListener('error', () => {
    state('/events', false);
    // Refused: the browser would not try again by itself.
    if (stream.readyState === EventSource.CLOSED) { stream = null; setTimeout(listen, 3000); }
  });
}
document.addEventListener('visibilitychange', () => {
  // A page that nobody sees takes no connection.
  if (document.hidden && stream) { stream.close(); stream = null; } else listen();
});

every(2, '/overview', showOverview);
every(2, '/rollouts', showRollouts);
every(5, '/shadows', showShadows);
every(10, '/config', showConfig);
listen();
