"""Volumes: attached to a running server, kept over a detach, booted from."""

import pytest

from wolkecloud import wait


def test_a_volume_keeps_its_data_between_servers(tenant):
    storage, compute = tenant.api.block_storage, tenant.api.compute
    first = tenant.create_server("first")
    volume = storage.create_volume(size=1, name="data")
    available = lambda: storage.get_volume(volume.id).status == "available"  # noqa: E731
    wait("the volume is available", available, 60)
    address = tenant.floating_address(first)
    tenant.reachable(address)
    disks = set(tenant.ssh(address, "ls /sys/block").split())

    def attach(server, address, before):
        compute.create_volume_attachment(server.id, volume_id=volume.id)
        wait("the volume is in use", lambda: storage.get_volume(volume.id).status == "in-use", 60)
        return wait("the guest sees the disk", lambda: set(tenant.ssh(address, "ls /sys/block").split()) - before, 30).pop()

    disk = attach(first, address, disks)
    assert tenant.ssh(address, f"cat /sys/block/{disk}/size").strip() == str(1 << 21)
    tenant.ssh(address, f"echo keepsake | dd of=/dev/{disk} bs=512 conv=sync,fsync 2>/dev/null")
    compute.delete_volume_attachment(first.id, volume.id)
    wait("the volume is free", available, 60)
    wait("the guest lost the disk", lambda: set(tenant.ssh(address, "ls /sys/block").split()) == disks, 30)

    second = tenant.create_server("second")
    other = tenant.floating_address(second)
    tenant.reachable(other)
    disk = attach(second, other, set(tenant.ssh(other, "ls /sys/block").split()))
    assert tenant.ssh(other, f"dd if=/dev/{disk} bs=8 count=1 2>/dev/null").strip() == "keepsake"
    compute.delete_server(second.id)
    wait("the volume survives its server", available, 90)


def test_a_guest_sees_that_its_volume_is_extended(tenant):
    storage, compute = tenant.api.block_storage, tenant.api.compute
    server = tenant.create_server("extended")
    volume = storage.create_volume(size=1, name="growing")
    wait("the volume is available", lambda: storage.get_volume(volume.id).status == "available", 60)
    address = tenant.floating_address(server)
    tenant.reachable(address)
    before = set(tenant.ssh(address, "ls /sys/block").split())
    compute.create_volume_attachment(server.id, volume_id=volume.id)
    disk = wait("the guest sees the disk", lambda: set(tenant.ssh(address, "ls /sys/block").split()) - before, 60).pop()
    wait("the volume is in use", lambda: storage.get_volume(volume.id).status == "in-use", 60)
    storage.post(f"/volumes/{volume.id}/action", json={"os-extend": {"new_size": 2}}, microversion="3.42").raise_for_status()
    assert storage.get_volume(volume.id).size == 2
    wait("the guest sees the new size", lambda: tenant.ssh(address, f"cat /sys/block/{disk}/size").strip() == str(2 << 21), 60)


def test_a_server_boots_from_a_volume(tenant):
    storage = tenant.api.block_storage
    image = tenant.api.image.find_image("guest", ignore_missing=False)
    volume = storage.create_volume(size=1, name="root", image_id=image.id)
    wait("the volume is made from the image", lambda: storage.get_volume(volume.id).status == "available", 90)
    server = tenant.create_server(
        "from-volume", image=False,
        block_device_mapping=[
            {"boot_index": 0, "uuid": volume.id, "source_type": "volume", "destination_type": "volume", "delete_on_termination": False}
        ])
    address = tenant.floating_address(server)
    tenant.reachable(address)
    assert tenant.ssh(address, "hostname").strip() == "from-volume"
    tenant.delete_servers()
    wait("the volume is free", lambda: storage.get_volume(volume.id).status == "available", 60)


@pytest.fixture
def shared_type(cloud):
    """A volume type whose volumes several servers can have."""
    storage = cloud.admin.block_storage
    made = storage.create_type(name="shared-by-servers", extra_specs={"multiattach": "<is> True"})
    yield made
    storage.delete_type(made.id)


def test_two_servers_share_a_volume(tenant, shared_type):
    storage, compute = tenant.api.block_storage, tenant.api.compute
    volume = storage.create_volume(size=1, name="shared", volume_type=shared_type.name)
    status = lambda: storage.get_volume(volume.id).status  # noqa: E731
    wait("the volume is available", lambda: status() == "available", 60)
    assert storage.get_volume(volume.id).is_multiattach
    disks = {}
    for name in ("writer", "other"):
        server = tenant.create_server(name)
        address = tenant.floating_address(server)
        tenant.reachable(address)
        before = set(tenant.ssh(address, "ls /sys/block").split())
        compute.create_volume_attachment(server.id, volume_id=volume.id)
        found = wait("the guest sees the disk", lambda: set(tenant.ssh(address, "ls /sys/block").split()) - before, 60)
        disks[name] = (server, address, found.pop())
    wait("both have the volume", lambda: len(storage.get_volume(volume.id).attachments) == 2, 60)

    def write(name, word):
        _, address, disk = disks[name]
        tenant.ssh(address, f"echo {word} | dd of=/dev/{disk} bs=4096 seek=7 conv=sync oflag=direct 2>/dev/null")

    def read(name):
        _, address, disk = disks[name]
        command = f"dd if=/dev/{disk} bs=4096 skip=7 count=1 iflag=direct 2>/dev/null | head -c 8 | tr -d '\\000'"
        return tenant.ssh(address, command).strip()

    # Both guests bypass their caches, so each sees the other's writes at once.
    for writer, reader, word in (("writer", "other", "hello"), ("other", "writer", "answer")):
        write(writer, word)
        assert read(reader) == word
    compute.delete_server(disks["writer"][0].id)
    wait("one attachment is left", lambda: len(storage.get_volume(volume.id).attachments) == 1, 90)
    assert status() == "in-use"
    write("other", "alone")
    assert read("other") == "alone"
    compute.delete_volume_attachment(disks["other"][0].id, volume.id)
    wait("the volume is free", lambda: status() == "available", 60)
    storage.delete_volume(volume.id)
    wait("the volume is gone", lambda: storage.find_volume(volume.id) is None, 60)


def test_a_volume_of_a_running_guest_is_swapped(cloud, tenant):
    storage, compute = tenant.api.block_storage, tenant.api.compute
    volumes = [storage.create_volume(size=size, name=f"v{size}") for size in (1, 2)]
    status = lambda volume: storage.get_volume(volume.id).status  # noqa: E731
    wait("the volumes are available", lambda: all(status(volume) == "available" for volume in volumes), 60)
    old, new = volumes
    server = tenant.create_server("swapped")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    before = set(tenant.ssh(address, "ls /sys/block").split())
    compute.create_volume_attachment(server.id, volume_id=old.id)
    disk = wait("the guest sees the disk", lambda: set(tenant.ssh(address, "ls /sys/block").split()) - before, 60).pop()
    wait("the volume is in use", lambda: status(old) == "in-use", 60)

    def write(word, place):
        tenant.ssh(address, f"echo {word} | dd of=/dev/{disk} bs=4096 seek={place} conv=sync oflag=direct 2>/dev/null")

    def read(place, disk):
        command = f"dd if=/dev/{disk} bs=4096 skip={place} count=1 iflag=direct 2>/dev/null | head -c 8 | tr -d '\\000'"
        return tenant.ssh(address, command).strip()

    write("pattern", 1000)
    started = float(tenant.ssh(address, "cut -d' ' -f1 /proc/uptime"))
    body = {"volumeAttachment": {"volumeId": new.id}}
    path = f"/servers/{server.id}/os-volume_attachments/{old.id}"
    assert tenant.api.compute.put(path, json=body).status_code == 403
    answer = cloud.admin.compute.put(path, json=body)
    assert answer.status_code == 202, answer.text
    wait("the volumes are swapped", lambda: (status(old), status(new)) == ("available", "in-use"), 120)
    assert [item.volume_id for item in compute.volume_attachments(server)] == [new.id]
    assert read(1000, disk) == "pattern"
    assert tenant.ssh(address, f"cat /sys/block/{disk}/size").strip() == str(2 << 21)
    assert float(tenant.ssh(address, "cut -d' ' -f1 /proc/uptime")) > started
    # What is written now is in the new volume only.
    write("after", 2000)
    others = set(tenant.ssh(address, "ls /sys/block").split())
    compute.create_volume_attachment(server.id, volume_id=old.id)
    second = wait("the guest sees the old volume", lambda: set(tenant.ssh(address, "ls /sys/block").split()) - others, 60).pop()
    assert read(1000, second) == "pattern" and read(2000, second) == ""
    assert read(2000, disk) == "after"
    # Each is detached from its own place.
    compute.delete_volume_attachment(server.id, new.id)
    wait("the new volume is free", lambda: status(new) == "available", 60)
    left = set(tenant.ssh(address, "ls /sys/block").split())
    assert second in left and disk not in left
