// ecs20140526: version 3 signatures, typed models.
'use strict';
const assert = require('assert');
const ECS = require('@alicloud/ecs20140526');
const OpenApi = require('@alicloud/openapi-client');
const e = process.env;

const client = new ECS.default(new OpenApi.Config({
  accessKeyId: e.SIM_KEY, accessKeySecret: e.SIM_SECRET, regionId: e.SIM_REGION, endpoint: e.SIM_HOST, protocol: 'http',
}));
const regionId = e.SIM_REGION;

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
  const regions = await client.describeRegions(new ECS.DescribeRegionsRequest({}));
  assert.deepStrictEqual(regions.body.regions.region.map((r) => r.regionId), [regionId]);

  const run = await client.runInstances(new ECS.RunInstancesRequest({
    regionId, imageId: e.SIM_IMAGE, instanceType: e.SIM_TYPE, vSwitchId: e.SIM_VSWITCH, securityGroupId: e.SIM_GROUP, instanceName: 'v3 主机',
    systemDisk: new ECS.RunInstancesRequestSystemDisk({ category: 'cloud_essd', size: '40' }),
    dataDisk: [new ECS.RunInstancesRequestDataDisk({ size: 60, category: 'cloud_essd' })],
    tag: [new ECS.RunInstancesRequestTag({ key: 'by', value: 'node' })],
    userData: Buffer.from('#!/bin/sh\n').toString('base64'),
  }));
  const id = run.body.instanceIdSets.instanceIdSet[0];
  const instance = await until('Running', async () => {
    const r = await client.describeInstances(new ECS.DescribeInstancesRequest({ regionId, instanceIds: JSON.stringify([id]) }));
    assert.strictEqual(r.body.totalCount, 1);
    const i = r.body.instances.instance[0];
    return i.status === 'Running' && i;
  });
  assert.strictEqual(instance.instanceName, 'v3 主机');
  assert.strictEqual(instance.vpcAttributes.vSwitchId, e.SIM_VSWITCH);
  assert.strictEqual(instance.tags.tag[0].tagValue, 'node');
  const data = await client.describeUserData(new ECS.DescribeUserDataRequest({ regionId, instanceId: id }));
  assert.strictEqual(Buffer.from(data.body.userData, 'base64').toString(), '#!/bin/sh\n');

  const disks = await client.describeDisks(new ECS.DescribeDisksRequest({ regionId, instanceId: id }));
  assert.deepStrictEqual(disks.body.disks.disk.map((d) => [d.type, d.size]), [['system', 40], ['data', 60]]);
  const system = disks.body.disks.disk[0].diskId;
  const snap = await client.createSnapshot(new ECS.CreateSnapshotRequest({ diskId: system, snapshotName: 'v3', retentionDays: 1, tag: [new ECS.CreateSnapshotRequestTag({ key: 'by', value: 'node' })] }));
  const snapshot = await until('accomplished', async () => {
    const r = await client.describeSnapshots(new ECS.DescribeSnapshotsRequest({ regionId, snapshotIds: JSON.stringify([snap.body.snapshotId]) }));
    const s = r.body.snapshots.snapshot[0];
    return s.status === 'accomplished' && s;
  });
  assert.strictEqual(snapshot.progress, '100%');
  assert.strictEqual(snapshot.sourceDiskSize, '40'); // a string
  const img = await client.createImage(new ECS.CreateImageRequest({ regionId, snapshotId: snapshot.snapshotId, imageName: 'v3-image' }));
  await refused('InvalidImageName.Duplicated', client.createImage(new ECS.CreateImageRequest({ regionId, snapshotId: snapshot.snapshotId, imageName: 'v3-image' })));
  const image = await until('Available', async () => {
    const r = await client.describeImages(new ECS.DescribeImagesRequest({ regionId, imageId: img.body.imageId, status: 'Creating,Waiting,Available,CreateFailed' }));
    const i = r.body.images.image[0];
    return i.status === 'Available' && i;
  });
  assert.strictEqual(image.usable, true);
  assert.strictEqual(image.diskDeviceMappings.diskDeviceMapping[0].snapshotId, snapshot.snapshotId);
  await refused('SnapshotCreatedImage', client.deleteSnapshot(new ECS.DeleteSnapshotRequest({ snapshotId: snapshot.snapshotId })));

  await client.tagResources(new ECS.TagResourcesRequest({ regionId, resourceType: 'instance', resourceId: [id], tag: [new ECS.TagResourcesRequestTag({ key: 'more', value: '1' })] }));
  const tags = await client.listTagResources(new ECS.ListTagResourcesRequest({ regionId, resourceType: 'instance', resourceId: [id] }));
  assert.deepStrictEqual(tags.body.tagResources.tagResource.map((t) => t.tagKey).sort(), ['by', 'more']);
  await client.untagResources(new ECS.UntagResourcesRequest({ regionId, resourceType: 'instance', resourceId: [id], tagKey: ['more'] }));

  const key = await client.createKeyPair(new ECS.CreateKeyPairRequest({ regionId, keyPairName: 'v3-key' }));
  require('crypto').createPrivateKey(key.body.privateKeyBody); // a real one
  const attached = await client.attachKeyPair(new ECS.AttachKeyPairRequest({ regionId, keyPairName: 'v3-key', instanceIds: JSON.stringify([id]) }));
  assert.strictEqual(attached.body.failCount, '0');
  await client.detachKeyPair(new ECS.DetachKeyPairRequest({ regionId, keyPairName: 'v3-key', instanceIds: JSON.stringify([id]) }));
  await client.deleteKeyPairs(new ECS.DeleteKeyPairsRequest({ regionId, keyPairNames: JSON.stringify(['v3-key']) }));

  await client.stopInstance(new ECS.StopInstanceRequest({ instanceId: id, stoppedMode: 'KeepCharging' }));
  await until('Stopped', async () => {
    const r = await client.describeInstanceStatus(new ECS.DescribeInstanceStatusRequest({ regionId, instanceId: [id] }));
    return r.body.instanceStatuses.instanceStatus[0].status === 'Stopped';
  });
  await client.deleteImage(new ECS.DeleteImageRequest({ regionId, imageId: image.imageId }));
  await client.deleteSnapshot(new ECS.DeleteSnapshotRequest({ snapshotId: snapshot.snapshotId }));
  await client.deleteInstance(new ECS.DeleteInstanceRequest({ instanceId: id }));
  // The data disk was made without DeleteWithInstance and so went with it.
  await until('gone', async () => (await client.describeDisks(new ECS.DescribeDisksRequest({ regionId, diskIds: JSON.stringify([system]) }))).body.disks.disk.length === 0);
  await refused('InvalidInstanceId.NotFound', client.describeInstanceAttribute(new ECS.DescribeInstanceAttributeRequest({ instanceId: id })));
}

async function wrongSecret() {
  await refused('SignatureDoesNotMatch', client.describeRegions(new ECS.DescribeRegionsRequest({})));
}

(process.argv[2] === 'wrong' ? wrongSecret() : main()).catch((err) => { console.error(err); process.exit(1); });
