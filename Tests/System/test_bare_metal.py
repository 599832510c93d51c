"""Bare metal with the stock client (python-ironicclient) on fake machines: enrolled, inspected, claimed, deployed and taken back."""

import base64
import gzip
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from wolkecloud import wait

# All commands in one process: starting Python for each takes most of the time.
RUNNER = Path(__file__).parent / "contract" / "stockrunner.py"


class Client:
    """The commands of `openstack baremetal`."""

    def __init__(self, cloud, name="wolke-admin"):
        self.process = subprocess.Popen(
            [sys.executable, RUNNER, "serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(cloud.clouds)})

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def run(self, *arguments):
        """The exit code, the output and the errors."""
        self.process.stdin.write(json.dumps(["baremetal", *arguments]) + "\n")
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))

    def __call__(self, *arguments):
        status, output, errors = self.run(*arguments)
        assert status == 0, f"baremetal {' '.join(arguments)}: {output}\n{errors}"
        return output

    def json(self, *arguments):
        text = self(*arguments, "-f", "json")
        return json.loads(text[min(place for place in (text.find("{"), text.find("[")) if place >= 0):])


@pytest.fixture(scope="module")
def client(cloud):
    client = Client(cloud)
    yield client
    client.close()


@pytest.fixture
def node(client):
    """A node of fake hardware with a resource class of its own."""
    suffix = uuid.uuid4().hex[:6]
    name = f"node-{suffix}"
    client(
        "node", "create", "--driver", "fake-hardware", "--name", name, "--resource-class", f"class-{suffix}", "--property", "cpus=2",
        "--extra", "rack=7")
    yield name
    # Whatever a test has left.
    if client.run("node", "show", name)[0] == 0:
        client("node", "maintenance", "set", name)
        if client.json("node", "show", name)["provision_state"] in ("active", "deploy failed", "error"):
            client("node", "maintenance", "unset", name)
            client("node", "undeploy", name, "--wait", "60")
        client("node", "delete", name)


def show(client, node, *fields):
    found = client.json("node", "show", node)
    return found if not fields else tuple(found[field] for field in fields)


def test_a_machine_from_enrolment_to_its_end(client, node, tmp_path):
    assert show(client, node, "provision_state", "power_state", "properties", "extra") == ("enroll", None, {"cpus": 2}, {"rack": 7})
    client("node", "manage", node, "--wait", "60")
    client("node", "inspect", node, "--wait", "60")
    properties = show(client, node, "properties")[0]
    assert properties["memory_mb"] == 8192 and properties["cpu_arch"] == "x86_64"
    port = client.json("port", "create", "52:54:00:" + ":".join(uuid.uuid4().hex[i:i + 2] for i in (0, 2, 4)), "--node", show(client, node, "uuid")[0])
    assert port["uuid"] in client("port", "list", "--node", node)
    client("node", "provide", node, "--wait", "60")
    assert show(client, node, "provision_state") == ("available",)

    drive = tmp_path / "drive"
    drive.write_bytes(base64.b64encode(gzip.compress(b"drive")))
    client("node", "deploy", node, "--config-drive", str(drive), "--wait", "60")
    found = show(client, node)
    assert (found["provision_state"], found["power_state"], found["instance_info"]) == ("active", "power on", {"configdrive": "******"})
    client("node", "rebuild", node, "--wait", "60")
    client("node", "undeploy", node, "--wait", "60")
    assert show(client, node, "provision_state", "power_state", "instance_info") == ("available", "power off", {})
    assert "The node was deployed" in client("node", "history", "list", node, "--long", "-f", "json")


def test_power_boot_device_and_maintenance(client, node):
    client("node", "manage", node, "--wait", "60")
    for verb, state in (("on", "power on"), ("off", "power off")):
        client("node", "power", verb, node)
        wait(f"node is {state}", lambda: show(client, node, "power_state", "target_power_state") == (state, None), 30)
    client("node", "reboot", node)
    wait("node is on", lambda: show(client, node, "power_state", "target_power_state") == ("power on", None), 30)
    client("node", "boot", "device", "set", node, "pxe", "--persistent")
    assert client.json("node", "boot", "device", "show", node) == {"boot_device": "pxe", "persistent": True}
    client("node", "maintenance", "set", node, "--reason", "a fan is loud")
    assert show(client, node, "maintenance", "maintenance_reason") == (True, "a fan is loud")
    client("node", "maintenance", "unset", node)
    client("node", "set", node, "--property", "rack=8", "--description", "moved")
    assert show(client, node, "description") == ("moved",)
    client("node", "unset", node, "--property", "rack", "--description")
    assert show(client, node, "description", "properties") == (None, {"cpus": 2})
    checks = {row["Interface"]: row["Result"] for row in client.json("node", "validate", node)}
    assert checks["power"] is True and checks["management"] is True, checks


def test_allocations_find_a_node(client, node):
    kind = show(client, node, "resource_class")[0]
    for verb in ("manage", "provide"):
        client("node", verb, node, "--wait", "60")
    client("node", "add", "trait", node, "CUSTOM_GPU")
    name = f"claim-{uuid.uuid4().hex[:6]}"
    claim = client.json("allocation", "create", "--resource-class", kind, "--trait", "CUSTOM_GPU", "--name", name, "--wait")
    try:
        assert claim["state"] == "active" and claim["node_uuid"] == show(client, node, "uuid")[0]
        assert show(client, node, "instance_uuid", "allocation_uuid") == (claim["uuid"], claim["uuid"])
    finally:
        client("allocation", "delete", name)
    failed = client.json("allocation", "create", "--resource-class", "no-such-class", "--name", name)
    assert failed["state"] == "error" and "no-such-class" in failed["last_error"]
    client("allocation", "delete", name)


def test_failures_say_why(client, node, cloud):
    client("node", "set", node, "--driver-info", "fake_failing=power", "--driver-info", "fake_failure=the controller is mute")
    status, _, errors = client.run("node", "manage", node, "--wait", "60")
    assert status != 0 and "enroll" in errors, errors
    assert "mute" in show(client, node, "last_error")[0]
    why = cloud.osctl("baremetal", "node", "why", node, "--os-cloud", "wolke-admin", "--no-cache").stdout
    assert "mute" in why and f"osctl baremetal node manage {node}" in why, why
    client("node", "unset", node, "--driver-info", "fake_failing")
    waited = cloud.osctl("baremetal", "node", "manage", node, "--wait", "--os-cloud", "wolke-admin", "--no-cache").stdout
    assert waited.strip() == f"Node {node} is manageable."


def test_others_see_nothing(client, node, cloud, tenant):
    other = tenant.api.session.get("/v1/nodes", endpoint_filter={"service_type": "baremetal"}, headers={"X-OpenStack-Ironic-API-Version": "1.96"})
    assert other.json()["nodes"] == []
    one = tenant.api.session.get(
        f"/v1/nodes/{node}", endpoint_filter={"service_type": "baremetal"}, headers={"X-OpenStack-Ironic-API-Version": "1.96"},
        raise_exc=False)
    assert one.status_code == 404, one.text
    drivers = client("driver", "list")
    assert all(name in drivers for name in ("redfish", "ipmi", "fake-hardware")), drivers


def test_the_process_is_small(cloud):
    parts = {part["name"]: part for part in json.loads(cloud.osctl("status", "-o", "json", check=False).stdout)["parts"]}
    assert parts["wolke-bare-metal"]["health"] == "healthy"
