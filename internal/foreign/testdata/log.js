// log: the old form of GetLogs, version 1 signatures of the log service.
'use strict';
const assert = require('assert');
const dns = require('dns');
// The project is the first label of the host: all names are this machine here.
dns.lookup = (host, options, done) => {
  if (typeof options === 'function') [options, done] = [{}, options];
  return options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4);
};
const Client = require('@alicloud/log');
const e = process.env;
const port = e.SIM_HOST.split(':')[1];
const client = new Client({ accessKeyId: e.SIM_KEY, accessKeySecret: e.SIM_SECRET, endpoint: `http://${e.SIM_REGION}.log.aliyuncs.com:${port}` });
const from = new Date(Date.now() - 3600e3), to = new Date(Date.now() + 60e3);
const refused = (code, promise) => assert.rejects(promise, (err) => { assert.strictEqual(err.code, code, err.message); return true; });

async function main() {
  const all = await client.getLogs(e.SIM_PROJECT, e.SIM_STORE, from, to, { line: 100 });
  assert.strictEqual(all.length, 3);
  const bad = await client.getLogs(e.SIM_PROJECT, e.SIM_STORE, from, to, { query: 'status: 502' });
  assert.deepStrictEqual(bad.map((r) => [r.status, r.upstream_addr]), [['502', '10.0.0.11:8080']]);
  assert.strictEqual((await client.getLogs(e.SIM_PROJECT, e.SIM_STORE, from, to, { line: 2, offset: 1 })).length, 2);
  await refused('LogStoreNotExist', client.getLogs(e.SIM_PROJECT, 'none', from, to));
  await refused('ProjectNotExist', client.getLogs('none', e.SIM_STORE, from, to));
}

const wrongSecret = () => refused('SignatureNotMatch', client.getLogs(e.SIM_PROJECT, e.SIM_STORE, from, to));

(process.argv[2] === 'wrong' ? wrongSecret() : main()).catch((err) => { console.error(err); process.exit(1); });
