"""S5, S22, S26: the confinement of an attacker who has escaped from a guest, or has access to a network of the cloud's parts."""

import os
import socket
import stat
from pathlib import Path

import pytest

import servicelist
from wolkecloud import run, wait


def status(pid):
    """The fields of /proc/PID/status."""
    return {line.split(":", 1)[0]: line.split(":", 1)[1].split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()}


def emulator(server):
    """The process of a server's QEMU."""
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                words = (directory / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"qemu-system-x86_64") and any(f"guest={server}".encode() in word for word in words):
                return int(directory.name)
    return None


@pytest.fixture
def guest(cloud, tenant):
    """A server without a network, and the process of its QEMU."""
    compute = tenant.api.compute
    server = compute.create_server(
        name="confined", flavor_id=compute.find_flavor("m1.nano").id, image_id=tenant.api.image.find_image("guest").id, networks="none")
    server = wait("the server runs", lambda: (found := compute.get_server(server.id)).status in ("ACTIVE", "ERROR") and found)
    assert server.status == "ACTIVE", server.fault
    yield server.id, emulator(server.id)
    compute.delete_server(server.id)
    wait("the server is gone", lambda: compute.find_server(server.id) is None)


def test_s26_guests_run_without_rights(cloud, guest):
    """QEMU has its own user, no capabilities, a system call filter and its own /dev."""
    server, pid = guest
    fields = status(pid)
    user = run("id", "-u", "libvirt-qemu").strip()
    assert fields["Uid"] == [user] * 4
    assert fields["CapEff"] == fields["CapPrm"] == ["0000000000000000"]
    assert fields["Seccomp"] == ["2"]
    assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    assert not Path(f"/proc/{pid}/root/dev/mem").exists() and not Path(f"/proc/{pid}/root/dev/sda").exists()


def test_s26_the_hypervisors_daemon_is_accessible_to_root_only(cloud):
    parts = cloud.parts()
    names = [name for name in parts if name.startswith("libvirtd")]
    assert names
    listening = run("ss", "-H", "-l", "-t", "-n", "-p")
    for name in names:
        assert f"pid={parts[name]['pid']}," not in listening, name
    for directory in (cloud.state, cloud.state / "host-2"):
        for path in (directory / "libvirt/run").glob("*-sock*"):
            mode = path.stat()
            assert mode.st_uid == 0 and mode.st_mode & 0o077 == 0, path


def test_s5_s26_disks_are_accessible_to_qemu_and_root_only(cloud, tenant, guest):
    """No other user of the machine can read a disk, image, volume or secret; QEMU's user can only read its guest's files."""
    volume = tenant.api.block_storage.create_volume(size=1, name="closed")
    wait("the volume is there", lambda: tenant.api.block_storage.get_volume(volume.id).status == "available")
    found = 0
    for place in ("volumes", "image-store", "agent", "host-2/agent", "secrets"):
        assert (cloud.state / place).stat().st_mode & 0o066 == 0, place
        for path in (cloud.state / place).rglob("*"):
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found += 1
                assert mode & 0o007 == 0, f"{path} {oct(mode)}"
    assert found > 5
    for path in (cloud.state / "secrets").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    assert (cloud.state / "secrets").stat().st_mode & 0o077 == 0
    tenant.api.block_storage.delete_volume(volume.id)


def test_s22_the_parts_listen_for_each_other_only(cloud):
    """Parts only listen on this machine, and the broker requires a password."""
    parts = cloud.parts()
    lines = run("ss", "-H", "-l", "-t", "-n", "-p").splitlines()
    for name in ("postgres", "epmd"):
        own = [line.split()[3] for line in lines if f"pid={parts[name]['pid']}," in line]
        assert own and all(address.startswith(("127.", "[::1]")) for address in own), (name, own)
    for service in servicelist.services().values():
        operators = [line.split()[3] for line in lines if line.split()[3].endswith(f":{service['operator_port'] + cloud.port_offset}")]
        assert operators and all(address.startswith(("127.", "[::1]")) for address in operators), operators


def sign_on(port, user, password):
    """The method with which the broker answers a sign-on (AMQP 0-9-1); None if it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as broker:
        broker.sendall(b"AMQP\0\0\x09\x01")
        assert broker.recv(65536)[7:11] == b"\0\x0a\0\x0a"  # connection.start
        response = f"\0{user}\0{password}".encode()
        payload = b"\0\x0a\0\x0b" + bytes(4) + b"\x05PLAIN" + len(response).to_bytes(4, "big") + response + b"\x05en_US"
        broker.sendall(b"\x01\0\0" + len(payload).to_bytes(4, "big") + payload + b"\xce")
        try:
            return tuple(broker.recv(65536)[7:11]) or None
        except ConnectionResetError:
            return None


def test_s22_the_broker_asks_for_its_password(cloud):
    port, tune = 5673 + cloud.port_offset, (0, 10, 0, 30)
    password = (cloud.state / "secrets" / "rabbitmq-password").read_text().strip()
    assert sign_on(port, "wolke", password) == tune
    for user, wrong in (("guest", "guest"), ("wolke", ""), ("wolke", "wolke"), ("", "")):
        assert sign_on(port, user, wrong) != tune, user
