// The admin page. Whatever comes from the server becomes text, never markup: there is no innerHTML here, and
// the page's Content-Security-Policy allows none. The token stays in this closure.
'use strict';
(() => {
  const ROWS = 100;
  const byId = (id) => document.getElementById(id);
  const SVG = 'http://www.w3.org/2000/svg';
  let token = '';
  let changes = 'off';

  // ---- making elements ----

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
  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  /** Put new children in, unless they would be what is there: a reader's place and selection stay. */
  const shown = new WeakMap();
  function show(element, state, children) {
    const text = JSON.stringify(state);
    if (shown.get(element) === text) return;
    shown.set(element, text);
    element.replaceChildren(...children());
  }

  // ---- words and numbers ----

  const DASH = '–';
  const isNumber = (value) => typeof value === 'number';
  const number = (value, digits = 0) => isNumber(value)
    ? value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }) : DASH;
  const ms = (value) => number(value, !isNumber(value) || value >= 100 ? 0 : value >= 10 ? 1 : 2);
  const percent = (share, digits = 1) => isNumber(share) ? `${number(share * 100, digits)} %` : DASH;
  const set = (value) => `${+value.toFixed(2)} %`;
  const signed = (value, digits = 0) => isNumber(value) ? (value > 0 ? '+' : '') + number(value, digits) : DASH;
  const time = (at) => new Date(at * 1000).toLocaleTimeString('en-GB');
  const say = (text, isBad) => { byId('said').className = isBad ? 'bad' : ''; byId('said').textContent = text; };
  const since = (seconds) => {
    const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
    const [size, unit] = units.find(([size]) => seconds >= size) || units[3];
    return `${Math.floor(seconds / size)} ${unit}`;
  };

  // ---- drawing ----

  function sparkline(values, label) {
    const count = values.length || 1;
    const most = Math.max(1, ...values);
    const points = values.map((value, at) => `${((at / Math.max(1, count - 1)) * 100).toFixed(1)},${(19 - (value / most) * 17).toFixed(1)}`);
    return svg('svg', { viewBox: '0 0 100 20', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
      points.length > 1 && svg('polygon', { points: `0,20 ${points.join(' ')} 100,20`, fill: 'currentColor', opacity: '.16' }),
      points.length > 1 && svg('polyline', { points: points.join(' '), fill: 'none', stroke: 'currentColor', 'stroke-width': '1.4', 'vector-effect': 'non-scaling-stroke', 'stroke-linejoin': 'round' }));
  }
  const within = (share) => `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  const bar = (share, mark, kind = '') => h('span', { class: `bar ${kind}`, 'aria-hidden': 'true', '--is': within(share), '--set': within(mark) },
    h('i'), isNumber(mark) && h('b'));
  const armClass = (arm, at) => arm === 'baseline' || (!arm && !at) ? 'ours' : arm === 'canary' ? 'canary' : arm ? 'third' : 'stray';

  // ---- the tiles and the policies ----

  const total = (values) => values.reduce((sum, value) => sum + value, 0);

  function showOverview(found) {
    changes = found.changes;
    byId('token-open').hidden = changes !== 'token';
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

  // ---- the router and what failed ----

  function showRouter(found) {
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

  // ---- live decisions ----

  const rows = byId('decisions').querySelector('tbody');
  const waiting = [];
  let isHeld = false;
  let missed = 0;

  function take(batch) {
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

  // ---- rollouts ----

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

  function showRollouts(found) {
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

  // ---- shadows ----

  function showShadows(found) {
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

  // ---- trying a message ----

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

  // ---- the configuration ----

  function showConfig(found) {
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

  // ---- asking the server ----

  async function get(path) {
    const answer = await fetch(path, { headers: { accept: 'application/json' } });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || `the server answered ${answer.status}`);
    return found;
  }

  /** POST; null when a person was asked for a token and gave none. */
  async function change(path, body) {
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

  async function isSure(policy, title, why, verb) {
    byId('sure-h').textContent = title;
    byId('sure-why').textContent = `${policy}: ${why}`;
    byId('sure-yes').textContent = verb;
    return (await closed(byId('sure'))) === 'ok';
  }
  byId('token-open').addEventListener('click', () => askToken(''));

  // ---- staying up to date ----

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
})();
