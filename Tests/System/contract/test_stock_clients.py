"""The unmodified clients, command by command: the exit code is 0 and what comes out is what the client documents."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

# command, columns that its JSON rows (or object) must have
AS_MEMBER = [
    ("server list", {"ID", "Name", "Status", "Networks", "Image", "Flavor"}),
    ("server group list", {"ID", "Name", "Policy"}),
    ("flavor list", {"ID", "Name", "RAM", "Disk", "Ephemeral", "VCPUs", "Is Public"}),
    ("flavor show m1.nano", {"id", "name", "ram", "disk", "vcpus", "properties"}),
    ("keypair list", {"Name", "Fingerprint", "Type"}),
    ("image list", {"ID", "Name", "Status"}),
    ("image show guest", {"id", "name", "status", "disk_format", "size", "checksum", "visibility"}),
    ("network list", {"ID", "Name", "Subnets"}),
    ("network show public", {"id", "name", "router:external", "status", "mtu"}),
    ("subnet list", {"ID", "Name", "Network", "Subnet"}),
    ("router list", {"ID", "Name", "Status", "State", "Project"}),
    ("port list", {"ID", "Name", "MAC Address", "Fixed IP Addresses", "Status"}),
    ("floating ip list", {"ID", "Floating IP Address", "Fixed IP Address", "Port"}),
    ("security group list", {"ID", "Name", "Description", "Project"}),
    ("security group show default", {"id", "name", "rules"}),
    ("security group rule list default", {"ID", "IP Protocol", "Ethertype", "IP Range", "Port Range", "Direction"}),
    ("volume list", {"ID", "Name", "Status", "Size", "Attached to"}),
    ("volume snapshot list", {"ID", "Name", "Description", "Status", "Size"}),
    ("volume type list", {"ID", "Name", "Is Public"}),
    ("availability zone list", {"Zone Name", "Zone Status"}),
    ("limits show --absolute", {"Name", "Value"}),
    ("quota show", {"Resource", "Limit"}),
    ("quota show --usage", {"Resource", "Limit", "In Use", "Reserved"}),
    ("catalog list", {"Name", "Type", "Endpoints"}),
    ("extension list --network", {"Name", "Alias", "Description"}),
    ("token issue", {"expires", "id", "project_id", "user_id"}),
    ("application credential list", {"ID", "Name", "Project ID"}),
    ("versions show", {"Region Name", "Service Type", "Version", "Status", "Endpoint"}),
    ("network qos policy list", set()),
]
AS_ADMIN = [
    ("project list", {"ID", "Name"}), ("user list", {"ID", "Name"}), ("role list", {"ID", "Name"}), ("domain list", {"ID", "Name", "Enabled", "Description"}),
    ("role assignment list --names", {"Role", "User", "Project", "Domain", "System", "Inherited"}),
    ("service list", {"ID", "Name", "Type"}), ("endpoint list", {"ID", "Region", "Service Name", "Service Type", "Enabled", "Interface", "URL"}),
    ("region list", {"Region", "Parent Region", "Description"}), ("group list", {"ID", "Name"}),
    ("hypervisor list", {"ID", "Hypervisor Hostname", "Hypervisor Type", "Host IP", "State"}),
    ("hypervisor stats show", set()),
    ("compute service list", {"ID", "Binary", "Host", "Zone", "Status", "State", "Updated At"}),
    ("aggregate list", {"ID", "Name", "Availability Zone"}),
    ("network agent list", {"ID", "Agent Type", "Host", "Availability Zone", "Alive", "State", "Binary"}),
    ("volume service list", {"Binary", "Host", "Zone", "Status", "State", "Updated At"}),
    ("server list --all-projects", {"ID", "Name", "Status", "Networks", "Image", "Flavor"}),
    ("resource provider list", {"uuid", "name", "generation"}),
    ("resource class list", {"name"}), ("trait list", {"name"}),
    ("allocation candidate list --resource VCPU=1 --resource MEMORY_MB=64", {"#", "allocation", "resource provider", "inventory used/capacity", "traits"}),
    ("resource usage show admin", set()),
]
MISSING = ["server show no-such-server", "network show no-such-network", "image show no-such-image", "volume show no-such-volume"]
# What this cloud does not have yet: an honest refusal, not a crash of the client.
ABSENT = {"network qos policy list", "hypervisor stats show", "resource usage show admin"}


def run_all(cloud, name, lines):
    """Each command's exit code, output and errors."""
    request = json.dumps({"cloud": name, "lines": lines})
    environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(cloud.clouds)}
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("stockrunner.py")], input=request, capture_output=True, text=True, timeout=600, env=environment)
    assert result.returncode == 0, result.stderr
    return {line: SimpleNamespace(returncode=code, stdout=output, stderr=errors) for line, (code, output, errors) in json.loads(result.stdout).items()}


@pytest.fixture(scope="module")
def member_answers(cloud):
    return run_all(cloud, "wolke-demo", [line for line, _ in AS_MEMBER] + MISSING)


@pytest.fixture(scope="module")
def admin_answers(cloud):
    return run_all(cloud, "wolke-admin", [line for line, _ in AS_ADMIN])


def columns(output):
    value = json.loads(output)
    return value if not value or isinstance(value, dict) else value[0]


@pytest.mark.parametrize("line,wanted", AS_MEMBER, ids=[line for line, _ in AS_MEMBER])
def test_as_member(member_answers, line, wanted):
    verify(member_answers[line], line, wanted)


@pytest.mark.parametrize("line,wanted", AS_ADMIN, ids=[line for line, _ in AS_ADMIN])
def test_as_operator(admin_answers, line, wanted):
    verify(admin_answers[line], line, wanted)


def verify(result, line, wanted):
    if line in ABSENT and result.returncode != 0:
        assert "Traceback" not in result.stderr, result.stderr
        return
    assert result.returncode == 0, f"openstack {line}: {result.stdout}{result.stderr}"
    found = columns(result.stdout)
    if found:
        assert wanted <= set(found), f"openstack {line}: {sorted(found)}"


def test_a_resource_provider_by_the_placement_client(cloud, admin_answers):
    provider = json.loads(admin_answers["resource provider list"].stdout)[0]["uuid"]
    verbs = ("show", "inventory list", "usage show", "trait list", "aggregate list")
    answers = run_all(cloud, "wolke-admin", [f"resource provider {verb} {provider}" for verb in verbs])
    for line, answer in answers.items():
        assert answer.returncode == 0, f"{line}: {answer.stderr}"
    inventory = json.loads(answers[f"resource provider inventory list {provider}"].stdout)
    assert {row["resource_class"] for row in inventory} >= {"VCPU", "MEMORY_MB", "DISK_GB"}


@pytest.mark.parametrize("line", MISSING)
def test_what_is_missing_is_said_so(member_answers, line):
    result = member_answers[line]
    assert result.returncode == 1 and "no-such-" in result.stderr and "Traceback" not in result.stderr, result.stderr
