"""Apache Libcloud's drivers for ECS and SLB: GET, version 1 signatures, XML."""
import os
import sys
import time

from libcloud.common.types import LibcloudError
from libcloud.compute.drivers.ecs import ECSDriver
from libcloud.compute.types import NodeState, StorageVolumeState
from libcloud.loadbalancer.base import Algorithm, Member
from libcloud.loadbalancer.drivers.slb import SLBDriver

E = os.environ
HOST, PORT = E["SIM_HOST"].split(":")
OPTIONS = dict(region=E["SIM_REGION"], host=HOST, port=int(PORT), secure=False)


def until(what, f):
    for _ in range(600):
        v = f()
        if v:
            return v
        time.sleep(0.05)
    raise SystemExit("never: " + what)


def equal(got, want):
    if got != want:
        raise AssertionError("got %r, want %r" % (got, want))


def refused(code, f):
    try:
        f()
    except Exception as err:
        if code not in str(err):
            raise
        return
    raise AssertionError("not refused with " + code)


def wait_for(driver):
    # The driver looks every three seconds; this cloud is a thousand times faster.
    waiting = driver._wait_until_state
    driver._wait_until_state = lambda nodes, state: waiting(nodes, state, wait_period=0.1)
    return driver


def compute(ecs):
    equal([l.id for l in ecs.list_locations()], [E["SIM_REGION"]])
    assert E["SIM_ZONE"] in [z.id for z in ecs.ex_list_zones()]
    size = next(s for s in ecs.list_sizes() if s.id == E["SIM_TYPE"])
    equal((size.ram, size.extra["cpu_core_count"]), (8.0, 2))
    image = ecs.get_image(E["SIM_IMAGE"])
    equal(image.extra["image_owner_alias"], "system")

    groups = [g.id for g in ecs.ex_list_security_groups(ex_filters={"VpcId": E["SIM_VPC"]})]
    assert E["SIM_GROUP"] in groups, groups
    extra_group = ecs.ex_create_security_group(description="of libcloud")
    ecs.ex_modify_security_group_by_id(extra_group, name="renamed", description="still")
    equal([g.name for g in ecs.ex_list_security_groups() if g.id == extra_group], ["renamed"])
    equal(ecs.ex_list_security_group_attributes(extra_group), [])

    node = ecs.create_node(
        "lib node", size, image, ex_security_group_id=E["SIM_GROUP"], ex_vswitch_id=E["SIM_VSWITCH"], ex_description="d & <d>",
        ex_hostname="lib", ex_system_disk={"category": "cloud_efficiency"},
        ex_data_disks=[{"category": "cloud_essd", "size": 50, "delete_with_instance": True}])
    equal(node.extra["vpc_attributes"]["vswitch_id"], E["SIM_VSWITCH"])
    node = ecs.list_nodes(ex_node_ids=[node.id])[0]
    equal((node.name, node.state, node.extra["description"], node.extra["io_optimized"]), ("lib node", NodeState.RUNNING, "d & <d>", "true"))
    equal(ecs.list_nodes(ex_node_ids=["i-none"]), [])
    disks = ecs.list_volumes(ex_filters={"InstanceId": node.id})
    equal([(d.extra["type"], d.size) for d in disks], [("system", 20), ("data", 50)])

    volume = ecs.create_volume(70, "more", ex_zone_id=E["SIM_ZONE"], ex_disk_category="cloud_essd")
    get = lambda: ecs.list_volumes(ex_volume_ids=[volume.id])[0]
    until("available", lambda: get().state == StorageVolumeState.AVAILABLE)
    ecs.attach_volume(node, volume, ex_delete_with_instance=False)
    until("in use", lambda: get().state == StorageVolumeState.INUSE and get().extra["instance_id"] == node.id)

    snapshot = ecs.create_volume_snapshot(disks[0], name="lib")
    snaps = lambda: ecs.list_volume_snapshots(disks[0])
    until("accomplished", lambda: [s.extra["progress"] for s in snaps()] == ["100%"])
    equal(snaps()[0].extra["source_disk_id"], disks[0].id)
    made = ecs.create_image(node, "lib-image", description="by snapshot", ex_snapshot_id=snapshot.id)
    until("image", lambda: [i for i in ecs.list_images(ex_image_ids=[made.id])])
    refused("SnapshotCreatedImage", lambda: ecs.destroy_volume_snapshot(snapshot))
    assert ecs.delete_image(made)
    assert ecs.destroy_volume_snapshot(snapshot)

    ecs.detach_volume(volume, ex_instance_id=node.id)
    until("detached", lambda: get().state == StorageVolumeState.AVAILABLE)
    assert ecs.destroy_volume(volume)
    assert ecs.reboot_node(node)
    until("running", lambda: ecs.list_nodes(ex_node_ids=[node.id])[0].state == NodeState.RUNNING)
    return node, extra_group


def balancing(slb, node):
    members = [Member(node.id, None, 8080, extra={"Weight": 30})]
    balancer = slb.create_balancer(
        "lib", 80, "http", Algorithm.WEIGHTED_ROUND_ROBIN, members, ex_vswitch_id=E["SIM_VSWITCH"], ex_address_type="intranet",
        StickySession="off", HealthCheck="off")
    equal([(b.id, b.name) for b in slb.list_balancers(ex_balancer_ids=[balancer.id])], [(balancer.id, "lib")])
    equal(slb.get_balancer(balancer.id).extra["address_type"], "intranet")
    listed = slb.ex_get_balancer_attribute(balancer)
    equal(listed.backend_servers, [{"ServerId": node.id, "Weight": "30"}])
    equal(listed.listeners, [{"ListenerPort": "80", "ListenerProtocol": "http"}])
    slb.ex_stop_listener(balancer, 80)
    slb.ex_start_listener(balancer, 80)

    member = slb.balancer_list_members(balancer)[0]
    assert slb.balancer_detach_member(balancer, member)
    equal(slb.balancer_list_members(balancer), [])
    slb.balancer_attach_member(balancer, Member(node.id, None, 8080))
    equal(slb.ex_get_balancer_attribute(balancer).backend_servers, [{"ServerId": node.id, "Weight": "100"}])
    assert slb.destroy_balancer(balancer)
    equal(slb.list_balancers(ex_balancer_ids=[balancer.id]), [])


def main():
    ecs = wait_for(ECSDriver(E["SIM_KEY"], E["SIM_SECRET"], **OPTIONS))
    slb = SLBDriver(E["SIM_KEY"], E["SIM_SECRET"], E["SIM_REGION"])
    slb.connection.host, slb.connection.port, slb.connection.secure = HOST, int(PORT), False
    slb.connection.connect()
    if sys.argv[1:] == ["wrong"]:
        refused("SignatureDoesNotMatch", ecs.list_locations)
        refused("SignatureDoesNotMatch", slb.list_balancers)
        return
    node, group = compute(ecs)
    balancing(slb, node)
    ecs.ex_stop_node(node)
    until("stopped", lambda: ecs.list_nodes(ex_node_ids=[node.id])[0].state == NodeState.STOPPED)
    ecs.ex_start_node(node)
    until("running", lambda: ecs.list_nodes(ex_node_ids=[node.id])[0].state == NodeState.RUNNING)
    ecs.stop_node(node)
    assert ecs.destroy_node(node)
    until("gone", lambda: ecs.list_nodes(ex_node_ids=[node.id]) == [])
    ecs.ex_delete_security_group_by_id(group)
    refused("InvalidInstanceId.NotFound", lambda: ecs.ex_start_node(node))


main()
