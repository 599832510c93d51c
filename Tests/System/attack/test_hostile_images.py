"""S1, S2, S3: images that refer to files of the host, or have a wrong size, become neither a volume nor a server.

First through the front door: the Image service refuses them. Then with that service deceived: the bytes are put into its
store as an active image, so that Block Storage and the compute agent have to refuse them by themselves.
"""

import base64
import gzip
import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from hostileimages import GIB, extension, flat, hostile, qcow2, qcow2_data_file, sound, vhd, vmdk
from openstack import exceptions

from wolkecloud import wait

SECRET = b"CANARY-" + os.urandom(24).hex().encode()


@pytest.fixture
def canary(tmp_path):
    """A file of the host that every user can read, and a text that refers to it."""
    path = tmp_path / "canary"
    path.write_bytes(SECRET.ljust(65536, b"\0"))
    Path(f"{path}.flat").write_bytes(flat(path))
    for directory in (path.parent, path.parent.parent):
        directory.chmod(0o755)
    return str(path)


def leaked(cloud):
    """Files of the cloud that contain the canary's data; uploads only contain its name."""
    places = [str(cloud.state / name) for name in ("volumes", "agent", "host-2", "image-store") if (cloud.state / name).exists()]
    return subprocess.run(["grep", "-rlaF", SECRET, *places], capture_output=True, text=True).stdout.split()


def queue(tenant, name, disk_format):
    return tenant.api.image.post(
        "/images", json={"name": name, "disk_format": disk_format, "container_format": "bare"}).json()["id"]


def upload(tenant, image, data):
    return tenant.api.image.put(f"/images/{image}/file", data=data, headers={"Content-Type": "application/octet-stream"})


def smuggle(cloud, tenant, name, disk_format, data):
    """An active image with these bytes, as if the Image service had accepted them."""
    image = queue(tenant, name, "raw")
    assert upload(tenant, image, b"sound".ljust(512, b"\0")).status_code == 204
    stored = cloud.sql(f"SELECT file_id FROM images WHERE id = '{image}'")[0]
    (cloud.state / "image-store" / stored).write_bytes(data)
    cloud.sql(
        f"UPDATE images SET disk_format = '{disk_format}', size = {len(data)}, virtual_size = NULL, "
        f"checksum = '{hashlib.md5(data).hexdigest()}', os_hash_value = '{hashlib.sha512(data).hexdigest()}' WHERE id = '{image}'")
    return image


def volume_from(tenant, image, size=1):
    """The volume in its final status."""
    volume = tenant.api.block_storage.create_volume(size=size, image_id=image)
    return wait(
        "the volume is settled",
        lambda: next((v for v in [tenant.api.block_storage.get_volume(volume.id)] if v.status in ("available", "error")), None), 90)


def volume_file(cloud, volume):
    return cloud.state / "volumes" / f"volume-{volume.id}"


# Errors of the sandboxed tool for images that our own parser should have refused before.
TOOL = ("but the disk in it has", "refers to other data", "the size of the disk in the image is unknown", "cannot be read as a disk")


def fault(cloud, volume):
    """The reason of a volume's error as shown to operators."""
    return cloud.sql(f"SELECT fault FROM volumes WHERE id = '{volume.id}'")[0]


def remove_images(tenant):
    for image in list(tenant.api.image.images(owner=tenant.project.id)):
        tenant.api.image.delete_image(image.id)


def test_s1_s3_hostile_images_are_refused_at_upload(cloud, tenant, canary, tally):
    refused = 0
    for name, disk_format, data in hostile(canary):
        image = queue(tenant, name, disk_format)
        answer = upload(tenant, image, data)
        assert answer.status_code == 415, f"{name}: {answer.status_code} {answer.text}"
        assert "not accepted as an image" in answer.text, name
        assert tenant.api.image.get_image(image).status == "queued", name
        refused += 1
    answer = tenant.api.image.post("/images", json={"name": "x", "disk_format": "vhdx", "container_format": "bare"})
    assert answer.status_code == 400 and "qcow2" in answer.text
    assert not leaked(cloud)
    remove_images(tenant)
    tally(uploads=refused + 1, refused=refused + 1)


def test_s1_s3_block_storage_refuses_what_image_let_through(cloud, tenant, canary, scale, tally):
    corpus = hostile(canary)[: scale(8, None)]
    for name, disk_format, data in corpus:
        volume = volume_from(tenant, smuggle(cloud, tenant, name, disk_format, data))
        assert volume.status == "error", name
        reason = fault(cloud, volume)
        assert reason.startswith("The image cannot be used to create a volume: ") and not any(word in reason for word in TOOL), f"{name}: {reason}"
        assert not volume_file(cloud, volume).exists(), name
        tenant.api.block_storage.delete_volume(volume.id)
    assert not leaked(cloud)
    remove_images(tenant)
    tally(volumes=len(corpus), refused=len(corpus))


def test_s1_vmdk_whose_parent_is_a_descriptor(cloud, tenant, canary, tally):
    """A descriptor's text is uploaded as a raw volume, and a VMDK refers to that volume as its parent."""
    image = queue(tenant, "descriptor", "raw")
    assert upload(tenant, image, flat(canary)).status_code == 415
    first = volume_from(tenant, smuggle(cloud, tenant, "descriptor", "raw", flat(canary)))
    assert first.status == "error"
    # As a volume that was created before this was refused.
    parent = cloud.state / "volumes" / "volume-parent"
    parent.write_bytes(flat(canary))
    try:
        child = vmdk(
            b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=bc609ba4\ncreateType="monolithicSparse"\n'
            + f'# parentFileNameHint="{parent}"\nRW 20480 SPARSE "x"\n'.encode())
        image = queue(tenant, "child", "vmdk")
        answer = upload(tenant, image, child)
        assert answer.status_code == 415 and "parent" in answer.text
        second = volume_from(tenant, smuggle(cloud, tenant, "child", "vmdk", child))
        assert second.status == "error"
        assert not leaked(cloud)
    finally:
        parent.unlink()
    remove_images(tenant)
    tally(uploads=2, volumes=2, refused=4)


def test_s3_volumes_are_as_large_as_asked_for(cloud, tenant, tally):
    for name, disk_format, data, size in sound():
        image = queue(tenant, name, disk_format)
        assert upload(tenant, image, data).status_code == 204, name
        assert tenant.api.image.get_image(image)["virtual_size"] == size, name
        volume = volume_from(tenant, image)
        assert volume.status == "available", name
        file = volume_file(cloud, volume).stat()
        assert file.st_size == GIB and file.st_mode & 0o7777 == 0o600 and file.st_gid == 0, name
        tenant.api.block_storage.delete_volume(volume.id)
    lies = [
        ("qcow2", qcow2(size=20 * GIB), "more than the requested 1073741824"),
        ("vhd", vhd(creator=b"vpc ", geometry=(41610, 16, 63)), "does not agree with its geometry"),
    ]
    for disk_format, data, word in lies:
        volume = volume_from(tenant, smuggle(cloud, tenant, "larger", disk_format, data))
        assert volume.status == "error" and not volume_file(cloud, volume).exists(), disk_format
        assert word in fault(cloud, volume), fault(cloud, volume)
    with pytest.raises(exceptions.BadRequestException, match="larger than volume size"):
        image = queue(tenant, "20 GiB", "qcow2")
        assert upload(tenant, image, qcow2(size=20 * GIB)).status_code == 204
        tenant.api.block_storage.create_volume(size=1, image_id=image)
    remove_images(tenant)
    tally(sound=5, lies=3, refused=3)


def test_s1_s2_the_agent_refuses_what_image_let_through(cloud, tenant, canary, scale, tally):
    corpus = hostile(canary)[: scale(4, None)]
    group, network = tenant.group(), tenant.network()
    for start in range(0, len(corpus), 8):
        servers = []
        for name, disk_format, data in corpus[start : start + 8]:
            image = smuggle(cloud, tenant, name, disk_format, data)
            servers.append((name, tenant.api.compute.create_server(
                name="hostile", image_id=image, flavor_id=tenant.api.compute.find_flavor("m1.nano").id,
                networks=[{"uuid": network.id}], security_groups=[{"name": group.name}])))
        for name, server in servers:
            failed = wait(
                f"the server of '{name}' fails",
                lambda: next((s for s in [tenant.api.compute.get_server(server.id)] if s.status == "ERROR"), None), 120)
            reason = failed.fault["message"]
            assert "the image cannot be used: " in reason and not any(word in reason for word in TOOL), f"{name}: {reason}"
        assert not leaked(cloud)
        tenant.delete_servers()
    remove_images(tenant)
    tally(servers=len(corpus), refused=len(corpus))


def test_s1_a_sound_foreign_image_boots_from_a_disk_of_our_own(cloud, tenant):
    """The uploaded guest image is converted once; the guest's QEMU only opens our own file."""
    server = tenant.create_server("sound")
    directory = Path(f"{cloud.state}/agent/servers/{server.id}")
    if not directory.exists():
        directory = next(cloud.state.glob(f"host-*/**/servers/{server.id}"))
    root = directory / "root.qcow2"
    assert root.stat().st_mode & 0o077 == 0
    backing = subprocess.run(
        ["qemu-img", "info", "-U", str(root)], capture_output=True, text=True, check=True).stdout
    assert ".disk.qcow2" in backing


def settled(tenant, server, *goals):
    """The server, once it has no task and one of these statuses."""
    def reached():
        found = tenant.api.compute.get_server(server.id)
        return found if found.task_state is None and found.status in goals else None

    return wait(f"the server is {' or '.join(goals)}", reached, 120)


def test_s1_s2_a_rebuild_refuses_what_image_let_through(cloud, tenant, canary, scale, tally):
    server = tenant.create_server("rebuilt")
    corpus = hostile(canary)[: scale(2, None)]
    for name, disk_format, data in corpus:
        tenant.api.compute.rebuild_server(server.id, smuggle(cloud, tenant, name, disk_format, data))
        reason = settled(tenant, server, "ERROR").fault["message"]
        assert "the image cannot be used: " in reason and not any(word in reason for word in TOOL), f"{name}: {reason}"
        assert not leaked(cloud)
    # Nothing is left that stands in the way of the next rebuild.
    tenant.api.compute.rebuild_server(server.id, tenant.api.image.find_image("guest", ignore_missing=False).id)
    settled(tenant, server, "ACTIVE")
    tenant.delete_servers()
    remove_images(tenant)
    tally(rebuilds=len(corpus), refused=len(corpus))


def write(tenant, address, data, disk):
    """Writes to the beginning of a guest's disk."""
    text = base64.b64encode(gzip.compress(data)).decode()
    tenant.ssh(address, f"echo {text} | base64 -d | gunzip | dd of=/dev/{disk} bs=64k conv=notrunc,fsync 2>/dev/null")


def test_s1_a_guests_disk_is_copied_and_never_interpreted(cloud, tenant, canary, scale, tally, tmp_path):
    """CVE-2015-7548, CVE-2026-24708: a guest writes an image's header on its disks; then its images and snapshots are made."""
    headers = [
        ("qcow2 backing file", qcow2(backing=canary, extensions=extension(0xE2792ACA, "raw"))),
        ("qcow2 data file", qcow2_data_file(canary)),
        ("flat extent", flat(canary)),
    ][: scale(1, None)]
    compute, storage, images = tenant.api.compute, tenant.api.block_storage, tenant.api.image
    server = tenant.create_server("liar")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    volume = storage.create_volume(size=1, name="lying")
    wait("the volume is available", lambda: storage.get_volume(volume.id).status == "available", 60)
    compute.create_volume_attachment(server.id, volume_id=volume.id)
    wait("the guest has the volume", lambda: tenant.ssh(address, "[ -b /dev/vdb ] && echo yes; true").strip() == "yes", 60)
    for name, header in headers:
        write(tenant, address, header, "vda")
        image = compute.create_server_image(server.id, name, wait=False)
        wait("the image is active", lambda: images.get_image(image.id).status == "active", 240)
        settled(tenant, server, "ACTIVE")
        copy, disk = tmp_path / "image", tmp_path / "disk"
        copy.write_bytes(images.download_image(image.id).content)
        info = json.loads(subprocess.run(
            ["qemu-img", "info", "--output=json", "-f", "qcow2", copy], capture_output=True, text=True, check=True).stdout)
        assert "backing-filename" not in info and "data-file" not in info["format-specific"]["data"], name
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", copy, disk], check=True)
        with open(disk, "rb") as file:
            assert file.read(len(header)) == header, f"{name}: the image has what the guest wrote"
        assert SECRET not in copy.read_bytes() and not leaked(cloud), name
    for name, header in headers:
        write(tenant, address, header, "vdb")
    compute.delete_volume_attachment(server.id, volume.id)
    wait("the volume is available", lambda: storage.get_volume(volume.id).status == "available", 60)
    snapshot = storage.create_snapshot(volume_id=volume.id, name="lying")
    wait("the snapshot is available", lambda: storage.get_snapshot(snapshot.id).status == "available", 60)
    second = storage.create_volume(size=1, snapshot_id=snapshot.id, name="second")
    wait("the second volume is available", lambda: storage.get_volume(second.id).status == "available", 60)
    with open(volume_file(cloud, second), "rb") as file:
        assert file.read(len(headers[-1][1])) == headers[-1][1]
    assert not leaked(cloud)
    storage.delete_volume(second.id)
    wait("the second volume is gone", lambda: storage.find_volume(second.id) is None, 60)
    storage.delete_snapshot(snapshot.id)
    wait("the snapshot is gone", lambda: storage.find_snapshot(snapshot.id) is None, 60)
    tenant.delete_servers()
    remove_images(tenant)
    tally(images=len(headers), volumes=1)
