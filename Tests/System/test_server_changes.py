"""What a rebuild, a rescue and a resize change, seen from inside the guest."""

import pytest

from wolkecloud import wait

# Between the end of the small guest's image and the end of its disk of 1 GiB, in MiB.
MARK = 900


@pytest.fixture
def flavor(cloud):
    """Two processors, 256 MiB, and a disk of 2 GiB."""
    compute = cloud.admin.compute
    made = compute.create_flavor(name="resized", vcpus=2, ram=256, disk=2)
    yield made
    compute.delete_flavor(made.id)


def write(tenant, address, word, disk="vda"):
    tenant.ssh(address, f"echo {word} | dd of=/dev/{disk} bs=1M seek={MARK} conv=sync,fsync,notrunc 2>/dev/null")


def read(tenant, address, disk="vda"):
    return tenant.ssh(address, f"dd if=/dev/{disk} bs=1M skip={MARK} count=1 2>/dev/null | head -c 8 | tr -d '\\000'").strip()


def size(tenant, address, disk="vda"):
    return int(tenant.ssh(address, f"cat /sys/block/{disk}/size")) * 512


def status(tenant, server):
    found = tenant.api.compute.get_server(server.id)
    return None if found.task_state else found.status


def settled(tenant, server, *goals):
    def reached():
        now = status(tenant, server)
        assert now != "ERROR" or "ERROR" in goals, tenant.api.compute.get_server(server.id).fault
        return now in goals

    wait(f"{server.name} is {' or '.join(goals)}", reached, 120)


def test_a_rebuilt_server_has_a_new_disk_at_its_address(tenant):
    compute = tenant.api.compute
    server = tenant.create_server("rebuilt")
    address, fixed = tenant.floating_address(server), tenant.fixed_address(server)
    tenant.reachable(address)
    write(tenant, address, "before")
    assert read(tenant, address) == "before"
    boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
    image = tenant.api.image.find_image("guest", ignore_missing=False)
    answer = compute.rebuild_server(server.id, image.id, name="anew", metadata={"a": "b"})
    assert answer.name == "anew" and answer.admin_password
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert read(tenant, address) == ""
    assert tenant.ssh(address, "hostname").strip() == "rebuilt"
    assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") != boot
    assert tenant.fixed_address(server) == fixed
    # A server that is off stays off, and has the new disk when it is started.
    write(tenant, address, "again")
    compute.stop_server(server.id)
    settled(tenant, server, "SHUTOFF")
    compute.rebuild_server(server.id, image.id)
    settled(tenant, server, "SHUTOFF")
    compute.start_server(server.id)
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert read(tenant, address) == ""


def test_a_rescued_server_sees_its_own_disk(tenant):
    compute, storage = tenant.api.compute, tenant.api.block_storage
    server = tenant.create_server("rescued")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    write(tenant, address, "keep")
    volume = storage.create_volume(size=1, name="data")
    wait("the volume is available", lambda: storage.get_volume(volume.id).status == "available", 60)
    compute.create_volume_attachment(server.id, volume_id=volume.id)
    wait("the volume is in use", lambda: storage.get_volume(volume.id).status == "in-use", 60)

    compute.rescue_server(server.id)
    settled(tenant, server, "RESCUE")
    tenant.reachable(address)
    # The other system's disk, then the server's own; no volume.
    assert read(tenant, address) == "" and read(tenant, address, "vdb") == "keep"
    assert tenant.ssh(address, "ls /sys/block | grep -c vd").strip() == "2"
    write(tenant, address, "mended", "vdb")
    compute.unrescue_server(server.id)
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert read(tenant, address) == "mended"
    assert tenant.ssh(address, "ls /sys/block | grep -c vd").strip() == "2", "the volume is back"

    # A stable rescue adds a disk to all others, and boots from it.
    images = tenant.api.image
    guest = images.find_image("guest", ignore_missing=False)
    other = images.create_image(
        name="rescue", disk_format="qcow2", container_format="bare", hw_rescue_bus="virtio", hw_rescue_device="disk",
        data=images.download_image(guest.id).content, wait=True)
    compute.rescue_server(server.id, image_ref=other.id)
    settled(tenant, server, "RESCUE")
    tenant.reachable(address)
    assert read(tenant, address) == "mended"
    assert tenant.ssh(address, "ls /sys/block | grep -c vd").strip() == "3"
    assert tenant.ssh(address, "cat /sys/block/vd*/serial").count("rescue") == 1
    compute.unrescue_server(server.id)
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert tenant.ssh(address, "ls /sys/block | grep -c vd").strip() == "2"
    images.delete_image(other.id)


def test_a_resized_server_has_what_its_flavor_says(tenant, flavor):
    compute = tenant.api.compute
    server = tenant.create_server("resized")
    address, fixed = tenant.floating_address(server), tenant.fixed_address(server)
    tenant.reachable(address)
    write(tenant, address, "old")

    def inside():
        tenant.reachable(address)
        memory = int(tenant.ssh(address, "awk '/MemTotal/ {print $2}' /proc/meminfo")) // 1024
        return int(tenant.ssh(address, "nproc")), memory, size(tenant, address)

    processors, memory, disk = inside()
    assert processors == 1 and 64 < memory <= 128 and disk == 1 << 30
    compute.resize_server(server.id, flavor.id)
    settled(tenant, server, "VERIFY_RESIZE")
    processors, memory, disk = inside()
    assert processors == 2 and 160 < memory <= 256 and disk == 2 << 30
    assert read(tenant, address) == "old"
    write(tenant, address, "new")
    compute.revert_server_resize(server.id)
    settled(tenant, server, "ACTIVE")
    processors, memory, disk = inside()
    assert processors == 1 and memory <= 128 and disk == 1 << 30
    assert read(tenant, address) == "old", "what was written since the resize is gone with it"

    compute.resize_server(server.id, flavor.id)
    settled(tenant, server, "VERIFY_RESIZE")
    tenant.reachable(address)
    write(tenant, address, "kept")
    boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
    compute.confirm_server_resize(server.id)
    settled(tenant, server, "ACTIVE")
    assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot, "confirming restarts nothing"
    # Later starts have the same disk.
    compute.reboot_server(server.id, "HARD")
    settled(tenant, server, "ACTIVE")
    processors, memory, disk = inside()
    assert processors == 2 and disk == 2 << 30 and read(tenant, address) == "kept"
    assert tenant.fixed_address(server) == fixed
    moves = [m.status for m in tenant.cloud.admin.compute.migrations(server_id=server.id)]
    assert moves == ["confirmed", "reverted"]


def test_an_agents_crash_in_a_resize_loses_nothing(cloud, tenant, flavor):
    compute = tenant.api.compute
    server = tenant.create_server("interrupted")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    write(tenant, address, "data")
    host = cloud.admin.compute.get_server(server.id).hypervisor_hostname
    compute.resize_server(server.id, flavor.id)
    cloud.kill("wolke-compute-agent" + ("@host-2" if host == "host-2" else ""))
    settled(tenant, server, "VERIFY_RESIZE")
    tenant.reachable(address)
    assert read(tenant, address) == "data" and size(tenant, address) == 2 << 30
    compute.revert_server_resize(server.id)
    cloud.kill("wolke-compute")
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert read(tenant, address) == "data" and size(tenant, address) == 1 << 30


def test_a_server_on_a_volume_moves_and_returns(cloud, tenant):
    compute, storage = tenant.api.compute, tenant.api.block_storage
    image = tenant.api.image.find_image("guest", ignore_missing=False)
    volume = storage.create_volume(size=1, name="root", image_id=image.id)
    wait("the volume is made from the image", lambda: storage.get_volume(volume.id).status == "available", 90)
    server = tenant.create_server(
        "moving", image=False, block_device_mapping=[
            {"boot_index": 0, "uuid": volume.id, "source_type": "volume", "destination_type": "volume", "delete_on_termination": True}])
    address, fixed = tenant.floating_address(server), tenant.fixed_address(server)
    tenant.reachable(address)
    write(tenant, address, "data")

    def host():
        return cloud.admin.compute.get_server(server.id).hypervisor_hostname

    first = host()
    second = next(name for name in cloud.hosts() if name != first)
    cloud.admin.compute.migrate_server(server.id)
    settled(tenant, server, "VERIFY_RESIZE")
    assert host() == second and tenant.fixed_address(server) == fixed
    tenant.reachable(address)
    assert read(tenant, address) == "data"
    write(tenant, address, "more")
    compute.revert_server_resize(server.id)
    settled(tenant, server, "ACTIVE")
    assert host() == first
    tenant.reachable(address)
    assert read(tenant, address) == "more"
    cloud.admin.compute.migrate_server(server.id, host=second)
    settled(tenant, server, "VERIFY_RESIZE")
    compute.confirm_server_resize(server.id)
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert host() == second and read(tenant, address) == "more"
