"""Images of servers, backups and shelving, seen from inside the guests: what was written on a disk is there again."""

import json

from wolkecloud import wait

PROOF = "mkdir -p /mnt && mount -t vfat /dev/vda /mnt"


def write(tenant, address, text):
    tenant.ssh(address, f"{PROOF} && echo {text} >/mnt/proof && sync && umount /mnt")


def read(tenant, address):
    return tenant.ssh(address, f"{PROOF} && cat /mnt/proof; umount /mnt").strip()


def act(tenant, server, body, version="2.96"):
    answer = tenant.api.compute.post(f"/servers/{server.id}/action", json=body, microversion=version)
    assert answer.status_code == 202, answer.text
    return answer.json() if answer.content else {}


def settled(tenant, server, status, limit=240):
    def is_settled():
        found = tenant.api.compute.get_server(server.id)
        return found if not found.task_state and found.status == status else None

    return wait(f"server {server.name} is {status}", is_settled, limit)


def images(tenant):
    return [image for image in tenant.api.image.images() if image.owner_id == tenant.project.id]


def test_a_server_boots_from_an_image_of_another(cloud, tenant):
    compute = tenant.api.compute
    first = tenant.create_server("first")
    address = tenant.floating_address(first)
    tenant.reachable(address)
    write(tenant, address, "kept")
    boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
    made = act(tenant, first, {"createImage": {"name": "copy", "metadata": {"purpose": "test"}}})["image_id"]
    # Written after the copy began: it may not be in the image.
    tasks = set()
    wait("the server has no task", lambda: not (task := compute.get_server(first.id).task_state) or tasks.add(task), 240, 0.05)
    assert tasks <= {"image_snapshot_pending", "image_snapshot", "image_pending_upload", "image_uploading"}, tasks
    image = tenant.api.image.get_image(made)
    assert (image.status, image.visibility, image.disk_format, image.owner_id) == ("active", "private", "qcow2", tenant.project.id)
    assert image.properties["purpose"] == "test" and image.properties["image_type"] == "snapshot"
    assert image.instance_uuid == first.id
    # The guest has run on.
    assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot
    compute.delete_server(first.id)
    second = tenant.create_server("second", image=False, image_id=made)
    other = tenant.floating_address(second)
    tenant.reachable(other)
    assert tenant.ssh(other, "hostname").strip() == "second"
    assert read(tenant, other) == "kept"
    # A server that is off can be imaged too, and a server that boots from an image of a server can be imaged again.
    write(tenant, other, "changed")
    compute.stop_server(second.id)
    settled(tenant, second, "SHUTOFF")
    later = act(tenant, second, {"createImage": {"name": "later"}})["image_id"]
    settled(tenant, second, "SHUTOFF")
    assert tenant.api.image.get_image(later).status == "active"
    third = tenant.create_server("third", image=False, image_id=later)
    address = tenant.floating_address(third)
    tenant.reachable(address)
    assert read(tenant, address) == "changed"
    tenant.delete_servers()
    for image in images(tenant):
        tenant.api.image.delete_image(image.id)


def test_a_server_on_volumes_is_copied_while_it_runs(tenant):
    """Root and data volume are copied at one moment, with what was on them, and servers boot from the image."""
    compute, storage = tenant.api.compute, tenant.api.block_storage
    source = tenant.api.image.find_image("guest", ignore_missing=False).id
    root = {"boot_index": 0, "uuid": source, "source_type": "image", "destination_type": "volume", "volume_size": 1,
            "delete_on_termination": True}
    data = {"source_type": "blank", "destination_type": "volume", "volume_size": 1, "boot_index": -1, "tag": "data",
            "delete_on_termination": True}
    first = tenant.create_server("on-volumes", image=False, block_device_mapping=[root, data])
    address = tenant.floating_address(first)
    tenant.reachable(address)
    write(tenant, address, "kept")
    tenant.ssh(address, "echo second >/dev/vdb && sync")
    boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
    made = act(tenant, first, {"createImage": {"name": "pair"}})["image_id"]
    settled(tenant, first, "ACTIVE")
    image = tenant.api.image.get_image(made)
    assert (image.status, image.size) == ("active", 0)
    mapping = json.loads(image.properties["block_device_mapping"])
    assert [entry["boot_index"] for entry in mapping] == [0, None] and mapping[1]["tag"] == "data"
    assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot
    # Data written from now on is not in the snapshots.
    write(tenant, address, "later")
    second = tenant.create_server("from-image", image=False, image_id=made)
    other = tenant.floating_address(second)
    tenant.reachable(other)
    assert read(tenant, other) == "kept"
    assert tenant.ssh(other, "head -c 6 /dev/vdb") == "second"
    assert read(tenant, address) == "later"
    # A snapshot of a volume in use, requested from Block Storage.
    volume = next(item for item in storage.volumes() if any(a["server_id"] == second.id and a["device"] == "/dev/vdb"
                                                            for a in item.attachments))
    snapshot = storage.create_snapshot(volume_id=volume.id, name="in-use", is_forced=True)
    wait("the snapshot is available", lambda: storage.get_snapshot(snapshot.id).status == "available", 120)
    # The content of the boot volume is replaced; the guest starts from the image.
    act(tenant, second, {"rebuild": {"imageRef": source}}, "2.93")
    settled(tenant, second, "ACTIVE")
    tenant.reachable(other)
    assert tenant.ssh(other, f"{PROOF} && ls /mnt; umount /mnt").find("proof") < 0
    assert tenant.ssh(other, "head -c 6 /dev/vdb") == "second"
    tenant.delete_servers()
    tenant.api.image.delete_image(made)
    for item in list(storage.snapshots()):
        storage.delete_snapshot(item.id)
    wait("the snapshots are deleted", lambda: not list(storage.snapshots()), 60)
    # Volumes with snapshots have outlived their servers, as in Nova.
    left = list(storage.volumes())
    assert left and all(item.status == "available" for item in left), left
    for item in left:
        storage.delete_volume(item.id)
    wait("the volumes are deleted", lambda: not list(storage.volumes()), 60)


def test_backups_rotate(tenant):
    server = tenant.create_server("saved")
    for name in ("one", "two", "three"):
        act(tenant, server, {"createBackup": {"name": name, "backup_type": "daily", "rotation": 2}})
        settled(tenant, server, "ACTIVE")
    wait("the oldest is gone", lambda: sorted(image.name for image in images(tenant)) == ["three", "two"], 30)
    for image in images(tenant):
        tenant.api.image.delete_image(image.id)


def test_a_shelved_server_comes_back_with_its_disk(cloud, tenant):
    compute = tenant.api.compute
    server = tenant.create_server("sleeper")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    write(tenant, address, "asleep")
    fixed = tenant.fixed_address(server)
    act(tenant, server, {"shelve": None})
    settled(tenant, server, "SHELVED_OFFLOADED")
    assert server.id not in cloud.libvirt_domains()
    assert [image.name for image in images(tenant)] == ["sleeper-shelved"]
    assert not cloud.admin.compute.get_server(server.id).compute_host
    act(tenant, server, {"unshelve": None})
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert tenant.fixed_address(server) == fixed
    assert read(tenant, address) == "asleep"
    wait("the image is deleted", lambda: not images(tenant), 30)
    # The image is not needed any more: a restart uses the existing disk.
    compute.reboot_server(server.id, "HARD")
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert read(tenant, address) == "asleep"
    act(tenant, server, {"shelve": None})
    settled(tenant, server, "SHELVED_OFFLOADED")
    compute.delete_server(server.id)
    wait("its image goes with it", lambda: not images(tenant), 60)


def test_a_shelved_server_starts_on_the_host_that_is_named(cloud, tenant):
    server = tenant.create_server("sleeper")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    write(tenant, address, "asleep")
    first = cloud.admin.compute.get_server(server.id).hypervisor_hostname
    second = next(name for name in cloud.hosts() if name != first)
    act(tenant, server, {"shelve": None})
    settled(tenant, server, "SHELVED_OFFLOADED")
    body = {"unshelve": {"host": second}}
    refused = tenant.api.compute.post(f"/servers/{server.id}/action", json=body, microversion="2.96")
    assert refused.status_code == 403, "tenants do not choose hosts"
    answer = cloud.admin.compute.post(f"/servers/{server.id}/action", json=body, microversion="2.96")
    assert answer.status_code == 202, answer.text
    settled(tenant, server, "ACTIVE")
    assert cloud.admin.compute.get_server(server.id).hypervisor_hostname == second
    assert server.id in cloud.domains_of(second == "host-2")
    tenant.reachable(address)
    assert read(tenant, address) == "asleep"


def test_file_systems_are_frozen_while_the_disk_is_copied(cloud, tenant):
    """The guest's agent calls a hook when it freezes and thaws; the copy is refused when nothing can freeze."""
    image = tenant.api.create_image(
        "quiet", filename=str(cloud.state / "images" / "guest.qcow2"), disk_format="qcow2", container_format="bare",
        min_disk=1, hw_qemu_guest_agent="yes", os_require_quiesce="yes", wait=True)
    server = tenant.create_server("frozen", image=False, image_id=image.id)
    address = tenant.floating_address(server)
    tenant.reachable(address)
    wait("the agent runs", lambda: tenant.ssh(address, "cat /run/qemu-ga.pid 2>/dev/null", check=False).strip(), 60)
    tenant.ssh(address, "printf '#!/bin/sh\\necho $1 >>/run/hook.log\\n' >/run/hook && chmod 755 /run/hook")
    tenant.ssh(address, "kill $(cat /run/qemu-ga.pid); sleep 1; cd /sys/class/virtio-ports && for p in *; do "
                        "[ $(cat $p/name) = org.qemu.guest_agent.0 ] && qemu-ga --daemonize --method=virtio-serial --path=/dev/$p "
                        "--statedir=/run --pidfile=/run/qemu-ga.pid --fsfreeze-hook=/run/hook; done")
    act(tenant, server, {"createImage": {"name": "frozen-copy"}})
    settled(tenant, server, "ACTIVE")
    # Thawing what is not frozen does nothing; the host does it whenever a freeze may be left over.
    calls = tenant.ssh(address, "cat /run/hook.log").split()
    assert calls.count("freeze") == 1 and calls[-1] == "thaw", calls
    assert [copy.status for copy in images(tenant) if copy.name == "frozen-copy"] == ["active"]
    # Without an agent nothing can freeze, and the image says that this is required.
    tenant.ssh(address, "kill $(cat /run/qemu-ga.pid)")
    act(tenant, server, {"createImage": {"name": "torn-copy"}})
    settled(tenant, server, "ACTIVE")
    assert not [copy for copy in images(tenant) if copy.name == "torn-copy" and copy.status == "active"]
    assert tenant.ssh(address, "cat /run/hook.log").split() == calls
    tenant.delete_servers()
    for left in images(tenant):
        tenant.api.image.delete_image(left.id)


def test_a_shelved_server_gets_and_loses_volumes(tenant):
    """The guest has the volume after it was unshelved, and not the one that it has lost."""
    compute, storage = tenant.api.compute, tenant.api.block_storage
    server = tenant.create_server("sleeper")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    volumes = [storage.create_volume(size=1, name=name) for name in ("old", "new")]
    for volume in volumes:
        wait(f"{volume.name} is available", lambda: storage.get_volume(volume.id).status == "available", 60)
    old, new = volumes
    compute.create_volume_attachment(server, volume_id=old.id)
    wait("the guest has it", lambda: tenant.ssh(address, "ls /dev/vdb 2>/dev/null || true"), 60)
    tenant.ssh(address, "echo old >/dev/vdb && sync")
    act(tenant, server, {"shelve": None})
    settled(tenant, server, "SHELVED_OFFLOADED")
    compute.create_volume_attachment(server, volume_id=new.id)
    wait("it is in use", lambda: storage.get_volume(new.id).status == "in-use", 60)
    compute.delete_volume_attachment(server, old.id)
    wait("it is free", lambda: storage.get_volume(old.id).status == "available", 60)
    act(tenant, server, {"unshelve": None})
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    serials = tenant.ssh(address, "cat /sys/block/vd*/serial")
    assert new.id[:20] in serials and old.id[:20] not in serials, serials
    device = next(item.device for item in compute.volume_attachments(server))
    tenant.ssh(address, f"echo new >{device} && sync && head -c 3 {device} | grep new")
    tenant.delete_servers()
    for volume in volumes:
        wait(f"{volume.name} is free", lambda: storage.get_volume(volume.id).status == "available", 60)
        storage.delete_volume(volume)


def test_crashes_leave_no_half_images(cloud, tenant):
    """Whatever dies while an image is made: it is complete in the end, or it is gone and the server has no task."""
    compute = tenant.api.compute
    server = tenant.create_server("steady")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    host = cloud.admin.compute.get_server(server.id).hypervisor_hostname
    agent = "wolke-compute-agent@host-2" if host == "host-2" else "wolke-compute-agent"
    for name in (agent, "wolke-compute", "wolke-image", "libvirtd"):
        made = act(tenant, server, {"createImage": {"name": f"after {name}"}})["image_id"]
        wait("the host works on it", lambda: compute.get_server(server.id).task_state in (None, "image_pending_upload", "image_uploading"), 60, 0.05)
        cloud.kill(name)
        settled(tenant, server, "ACTIVE", 300)
        left = [image for image in images(tenant) if image.id == made]
        assert all(image.status == "active" for image in left), left
        for image in left:
            tenant.api.image.delete_image(image.id)
        assert cloud.sql("SELECT count(*) FROM server_jobs") == ["0"]
        assert cloud.osctl("doctor", check=False).returncode == 0
    tenant.reachable(address)
