"""Every step of the demo with the unmodified `openstack` client, as a member without special rights."""

import json
import os
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from wolkecloud import run, wait


class Client:
    def __init__(self, cloud):
        self.program = Path(sys.executable).with_name("openstack")
        self.environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(cloud.clouds), "OS_CLOUD": "wolke-demo"}

    def __call__(self, *arguments, check=True):
        result = subprocess.run(
            [self.program, *arguments], capture_output=True, text=True, timeout=300, env=self.environment)
        if check and result.returncode != 0:
            raise AssertionError(f"openstack {' '.join(arguments)}: {result.stdout}\n{result.stderr}")
        return result

    def json(self, *arguments):
        text = self(*arguments, "-f", "json").stdout
        # With --wait the client prints its progress first.
        start = min((place for place in (text.find("{"), text.find("[")) if place >= 0), default=None)
        assert start is not None, f"openstack {' '.join(arguments)} printed no JSON: {text!r}"
        return json.loads(text[start:])


@pytest.fixture(scope="module")
def names():
    suffix = uuid.uuid4().hex[:6]
    kinds = ("key", "image", "net", "subnet", "router", "group", "server")
    return {kind: f"{kind}-{suffix}" for kind in kinds}


def test_the_demo_with_the_openstack_client(cloud, names, tmp_path):
    openstack = Client(cloud)
    key = tmp_path / "key"
    private = openstack("keypair", "create", names["key"]).stdout
    key.write_text(private)
    key.chmod(0o600)
    assert "PRIVATE KEY" in private
    try:
        make(openstack, cloud, names)
        address = server_with_floating_ip(openstack, names)
        look_around(openstack, names)
        wait("the guest answers ping", lambda: subprocess.run(["ping", "-c1", "-W1", address], capture_output=True).returncode == 0)
        said = wait("SSH into the guest", lambda: ssh(address, key, "hostname; ip -4 -o addr show scope global"))
        assert said.splitlines()[0] == names["server"]
        assert " 192.168.60." in said
        other = tmp_path / "other"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other)
        assert not ssh(address, other, "hostname"), "another key must not open the guest"
        keeps_out(cloud, address, key)
        life(openstack, names, address, key)
    finally:
        unmake(openstack, names)
    for kind in ("server", "network", "router", "image", "security group", "keypair", "floating ip", "port"):
        left = [row for row in openstack.json(kind, "list") if any(name in json.dumps(row) for name in names.values())]
        assert not left, f"{kind}: {left}"


def make(openstack, cloud, names):
    image = openstack.json(
        "image", "create", "--disk-format", "qcow2", "--container-format", "bare", "--min-disk", "1",
        "--file", str(cloud.state / "images" / "guest.qcow2"), names["image"])
    assert openstack.json("image", "show", image["id"])["status"] == "active"
    openstack("network", "create", names["net"])
    openstack("subnet", "create", "--network", names["net"], "--subnet-range", "192.168.60.0/24", names["subnet"])
    openstack("router", "create", names["router"])
    openstack("router", "set", "--external-gateway", "public", names["router"])
    openstack("router", "add", "subnet", names["router"], names["subnet"])
    openstack("security", "group", "create", names["group"])
    openstack("security", "group", "rule", "create", "--protocol", "icmp", names["group"])
    openstack("security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "22", names["group"])


def server_with_floating_ip(openstack, names):
    server = openstack.json(
        "server", "create", "--image", names["image"], "--flavor", "m1.nano", "--key-name", names["key"],
        "--network", names["net"], "--security-group", names["group"], "--wait", names["server"])
    assert server["status"] == "ACTIVE", server
    address = openstack.json("floating", "ip", "create", "public")["floating_ip_address"]
    openstack("server", "add", "floating", "ip", names["server"], address)
    return address


def look_around(openstack, names):
    shown = openstack.json("server", "show", names["server"])
    assert shown["key_name"] == names["key"]
    assert names["net"] in json.dumps(shown["addresses"])
    assert names["server"] in [row["Name"] for row in openstack.json("server", "list")]
    for command in (
        ("flavor", "list"), ("keypair", "list"), ("image", "list"), ("network", "list"), ("subnet", "list"), ("port", "list"),
        ("router", "list"), ("floating", "ip", "list"), ("security", "group", "list"), ("security", "group", "rule", "list"),
        ("volume", "list"), ("availability", "zone", "list"), ("catalog", "list"), ("quota", "show"), ("limits", "show", "--absolute"),
        ("server", "event", "list", names["server"]), ("extension", "list"), ("network", "agent", "list"),
    ):
        result = openstack(*command, "-f", "json", check=False)
        # Only operators can list agents.
        if command[:2] != ("network", "agent"):
            assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    wait("the console shows the guest", lambda: "wolke-guest" in openstack("console", "log", "show", names["server"]).stdout)


def ssh(address, key, command):
    return run(
        "ssh", "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=4", f"root@{address}", command,
        check=False)


def keeps_out(cloud, address, key):
    """S22: a guest behind a router does not reach the broker on the addresses between the machine and its other hosts."""
    def opens(host, port):
        return ssh(address, key, f"nc -w 2 {host} {port} </dev/null >/dev/null && echo opened").strip() == "opened"

    assert opens("127.0.0.1", 22), "the guest's own SSH server"
    offset = cloud.port_offset
    broker = (f"10.{72 + offset // 250}.{4 + offset % 250}.9", 5673 + offset)
    socket.create_connection(broker, timeout=5).close()
    assert not opens(*broker), broker


def life(openstack, names, address, key):
    """Set, tag, stop, start, reboot."""
    server = names["server"]
    openstack("server", "set", "--property", "colour=blue", server)
    assert openstack.json("server", "show", server)["properties"]["colour"] == "blue"
    openstack("server", "stop", server)
    status = lambda: openstack.json("server", "show", server)["status"]  # noqa: E731
    wait("the server stops", lambda: status() == "SHUTOFF", 90)
    openstack("server", "start", server)
    wait("the server starts", lambda: status() == "ACTIVE", 90)
    openstack("server", "reboot", "--hard", "--wait", server)
    wait("SSH after the reboot", lambda: ssh(address, key, "hostname").strip() == server)


def unmake(openstack, names):
    for row in openstack.json("floating", "ip", "list"):
        openstack("floating", "ip", "delete", row["ID"])
    openstack("server", "delete", "--wait", names["server"], check=False)
    openstack("router", "remove", "subnet", names["router"], names["subnet"], check=False)
    for kind in ("router", "net", "group", "image", "key"):
        noun = {"net": ["network"], "group": ["security", "group"], "key": ["keypair"]}.get(kind, [kind])
        openstack(*noun, "delete", names[kind], check=False)
