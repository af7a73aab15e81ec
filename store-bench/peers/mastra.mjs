// Mastra's LibSQL store. Clients are promises on the one thread that JavaScript has.
//
// Called as `node mastra.mjs CASE CLIENTS SECONDS DIRECTORY`; see `loop.py` for what that means.

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LibSQLStore } from '@mastra/libsql';

const [name, clientsText, secondsText, directory] = process.argv.slice(2);
const [clients, seconds] = [Number(clientsText), Number(secondsText)];
const documents = JSON.parse(readFileSync(join(directory, 'documents.json'), 'utf8'));

/** As many connections as the client of libsql opens at most. */
const CONNECTIONS = 20;

const store = new LibSQLStore({ id: 'peer', url: `file:${join(directory, 'mastra.db')}` });
await store.init();

/** Runs a statement on every connection that the client's pool may hold: they are all taken at once. */
const onAll = sql => Promise.all(Array.from({ length: CONNECTIONS }, () => store.client.execute(sql)));

const { snapshot, summary } = documents.version;
const { id: _id, owner, name: title, description, body, ...metadata } = snapshot;

/** For each case: what is there before, and the operation of client `n`. */
const cases = {
  async 'skills.createVersion'() {
    const skills = await store.getStore('skills');
    const last = Array(clients).fill(1);
    for (let n = 0; n < clients; n++) {
      await skills.create({ skill: { id: `skill-${n}`, authorId: owner, name: title, description, instructions: body } });
    }
    return n =>
      skills.createVersion({
        id: randomUUID(),
        skillId: `skill-${n}`,
        versionNumber: ++last[n], // the caller's to know; ours finds it in the same transaction
        name: title,
        description,
        instructions: body,
        metadata,
        changedFields: ['instructions'],
        changeMessage: summary,
      });
  },
  async 'schedules.updateSchedule'() {
    const schedules = await store.getStore('schedules');
    for (let n = 0; n < clients; n++) {
      await schedules.createSchedule({
        id: `schedule-${n}`,
        target: { type: 'workflow', workflowId: 'weekly-report', inputData: { text: body.slice(0, 300) } },
        cron: '0 7 * * 1',
        timezone: 'Europe/Berlin',
        status: 'active',
        nextFireAt: 1,
        createdAt: 1,
        updatedAt: 1,
      });
    }
    let at = 1;
    return n => schedules.updateSchedule(`schedule-${n}`, { nextFireAt: ++at });
  },
  async 'workflows.persistWorkflowSnapshot'() {
    const workflows = await store.getStore('workflows');
    return n =>
      workflows.persistWorkflowSnapshot({
        workflowName: 'weekly-report',
        runId: `run-${n}`,
        snapshot: documents.checkpoint,
      });
  },
};

async function run(op, seconds) {
  const until = performance.now() + seconds * 1000;
  const latencies = [];
  const client = async n => {
    for (let began; (began = performance.now()) < until; ) {
      await op(n);
      latencies.push((performance.now() - began) * 1000);
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: clients }, (_, n) => client(n)));
  return { latencies, seconds: (performance.now() - began) / 1000 };
}

const op = await cases[name]();
await onAll('PRAGMA synchronous = FULL'); // it sets NORMAL itself, which may lose what it has acknowledged
await run(op, seconds / 10);
const ran = await run(op, seconds);
const latencies = ran.latencies.sort((a, b) => a - b);
const at = part => latencies[Math.min(latencies.length - 1, Math.floor(part * latencies.length))];

const asked = async pragma => [...new Set((await onAll(`PRAGMA ${pragma}`)).map(of => Object.values(of.rows[0])[0]))];
const settings = {
  journal_mode: (await asked('journal_mode')).join(),
  synchronous: (await asked('synchronous')).map(level => ['OFF', 'NORMAL', 'FULL', 'EXTRA'][Number(level)]).join(),
  sqlite: String(Object.values((await store.client.execute('SELECT sqlite_version()')).rows[0])[0]),
};
console.log(
  JSON.stringify({
    ops: latencies.length,
    seconds: ran.seconds,
    p50_us: at(0.5),
    p99_us: at(0.99),
    max_us: at(1),
    settings,
  }),
);
process.exit(0);
