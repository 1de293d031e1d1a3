// pop-core: version 1 signatures, by POST (all in the form) and GET (all in the query).
'use strict';
const assert = require('assert');
const { RPCClient } = require('@alicloud/pop-core');
const e = process.env;
const method = process.argv[2];

const client = (apiVersion) => new RPCClient({
  endpoint: e.SIM_ENDPOINT, apiVersion, accessKeyId: e.SIM_KEY, accessKeySecret: e.SIM_SECRET, opts: { method, timeout: 30000 },
});
const ecs = client('2014-05-26'), slb = client('2014-05-15'), vpc = client('2016-04-28');
const RegionId = e.SIM_REGION;

async function until(what, f) {
  for (let i = 0; i < 600; i++) {
    const v = await f();
    if (v) return v;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error('never: ' + what);
}
const refused = (code, promise) => assert.rejects(promise, (err) => { assert.strictEqual(err.code, code, err.message); return true; });

async function main() {
  const vpcs = await vpc.request('DescribeVpcs', { RegionId, VpcId: e.SIM_VPC });
  assert.strictEqual(vpcs.Vpcs.Vpc[0].CidrBlock, '10.0.0.0/8');
  const sg = await ecs.request('CreateSecurityGroup', { RegionId, VpcId: e.SIM_VPC, SecurityGroupName: 'pop 组*~', Description: "it's (a) test!" });
  await ecs.request('AuthorizeSecurityGroup', { RegionId, SecurityGroupId: sg.SecurityGroupId, IpProtocol: 'tcp', PortRange: '8080/8080', SourceCidrIp: '10.0.0.0/8' });
  const rules = await ecs.request('DescribeSecurityGroupAttribute', { RegionId, SecurityGroupId: sg.SecurityGroupId });
  assert.strictEqual(rules.SecurityGroupName, 'pop 组*~');
  assert.strictEqual(rules.Description, "it's (a) test!");
  assert.deepStrictEqual(rules.Permissions.Permission.map((r) => [r.IpProtocol, r.PortRange, r.SourceCidrIp, r.Policy, r.Direction]), [['TCP', '8080/8080', '10.0.0.0/8', 'Accept', 'ingress']]);

  const run = await ecs.request('RunInstances', {
    RegionId, ImageId: e.SIM_IMAGE, InstanceType: e.SIM_TYPE, VSwitchId: e.SIM_VSWITCH, SecurityGroupIds: [e.SIM_GROUP, sg.SecurityGroupId],
    InstanceName: 'pop', Amount: 2, Tag: [{ Key: 'team', Value: 'a' }, { Key: 'use', Value: 'test' }],
    DataDisk: [{ Size: 100, Category: 'cloud_essd', DeleteWithInstance: true }],
  });
  const ids = run.InstanceIdSets.InstanceIdSet;
  assert.strictEqual(ids.length, 2);
  const instances = await until('Running', async () => {
    const r = await ecs.request('DescribeInstances', { RegionId, InstanceIds: JSON.stringify(ids), PageSize: 100 });
    return r.Instances.Instance.every((i) => i.Status === 'Running') && r.Instances.Instance;
  });
  assert.deepStrictEqual(instances[0].SecurityGroupIds.SecurityGroupId.slice().sort(), [e.SIM_GROUP, sg.SecurityGroupId].sort());
  assert.deepStrictEqual(instances[0].Tags.Tag.map((t) => t.TagKey + '=' + t.TagValue).sort(), ['team=a', 'use=test']);
  const disks = await ecs.request('DescribeDisks', { RegionId, InstanceId: ids[0] });
  assert.deepStrictEqual(disks.Disks.Disk.map((d) => [d.Type, d.Size]), [['system', 20], ['data', 100]]);
  assert.deepStrictEqual((await ecs.request('DescribeInstances', { RegionId, InstanceIds: '["i-none"]' })).Instances.Instance, []);

  const lb = await slb.request('CreateLoadBalancer', { RegionId, LoadBalancerName: 'pop', VSwitchId: e.SIM_VSWITCH, AddressType: 'intranet', ClientToken: 'pop-' + method });
  const again = await slb.request('CreateLoadBalancer', { RegionId, LoadBalancerName: 'pop', VSwitchId: e.SIM_VSWITCH, AddressType: 'intranet', ClientToken: 'pop-' + method });
  assert.strictEqual(again.LoadBalancerId, lb.LoadBalancerId);
  const busy = (f) => until('not busy', () => f().catch((err) => {
    if (['ServiceIsConfiguring', 'BackendServer.configuring', 'VServerGroupProcessing', 'OperationBusy'].includes(err.code)) return undefined;
    throw err;
  }));
  await busy(() => slb.request('AddBackendServers', { RegionId, LoadBalancerId: lb.LoadBalancerId, BackendServers: JSON.stringify(ids.map((ServerId) => ({ ServerId, Weight: '55' }))) }));
  const set = await busy(() => slb.request('SetBackendServers', { RegionId, LoadBalancerId: lb.LoadBalancerId, BackendServers: JSON.stringify([{ ServerId: ids[0], Weight: 0 }]) }));
  assert.deepStrictEqual(set.BackendServers.BackendServer.map((b) => b.Weight).sort(), ['0', '55']); // strings here
  const vg = await busy(() => slb.request('CreateVServerGroup', { RegionId, LoadBalancerId: lb.LoadBalancerId, VServerGroupName: 'app', BackendServers: JSON.stringify([{ ServerId: ids[0], Port: 8080, Weight: 10 }]) }));
  await busy(() => slb.request('SetVServerGroupAttribute', { RegionId, VServerGroupId: vg.VServerGroupId, BackendServers: JSON.stringify([{ ServerId: ids[0], Port: 8080, Weight: 20 }]) }));
  const group = await slb.request('DescribeVServerGroupAttribute', { RegionId, VServerGroupId: vg.VServerGroupId });
  assert.deepStrictEqual(group.BackendServers.BackendServer.map((b) => [b.ServerId, b.Port, b.Weight]), [[ids[0], 8080, 20]]); // numbers here
  const attribute = await slb.request('DescribeLoadBalancerAttribute', { RegionId, LoadBalancerId: lb.LoadBalancerId });
  assert.deepStrictEqual(attribute.BackendServers.BackendServer.map((b) => b.Weight).sort((a, b) => a - b), [0, 55]);
  await busy(() => slb.request('DeleteLoadBalancer', { RegionId, LoadBalancerId: lb.LoadBalancerId }));

  for (const InstanceId of ids) await ecs.request('DeleteInstance', { InstanceId, Force: true });
  await until('gone', async () => (await ecs.request('DescribeInstances', { RegionId, InstanceIds: JSON.stringify(ids) })).Instances.Instance.length === 0);
  await ecs.request('DeleteSecurityGroup', { RegionId, SecurityGroupId: sg.SecurityGroupId });

  await refused('InvalidInstanceId.NotFound', ecs.request('StartInstance', { InstanceId: ids[0] }));
  await refused('InvalidLoadBalancerId.NotFound', slb.request('DescribeLoadBalancerAttribute', { RegionId, LoadBalancerId: lb.LoadBalancerId }));
}

async function wrongSecret() {
  await refused('SignatureDoesNotMatch', ecs.request('DescribeRegions', {}));
}

(process.argv[3] === 'wrong' ? wrongSecret() : main()).catch((err) => { console.error(err); process.exit(1); });
