"""The unmodified clients, command by command: the exit code is 0 and the output is as documented."""

import json
import os
import subprocess
import sys
import uuid
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
    # Lists of resources that this cloud does not have are empty.
    *((line, set()) for line in (
        "volume backup list", "volume transfer request list", "consistency group list", "consistency group snapshot list",
        "volume group list", "volume group type list", "volume group snapshot list", "volume attachment list")),
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
    ("volume qos list", set()), ("block storage cluster list", set()), ("volume backend pool list", {"Name"}),
    ("block storage resource filter list", {"Resource", "Filters"}),
    ("server list --all-projects", {"ID", "Name", "Status", "Networks", "Image", "Flavor"}),
    ("resource provider list", {"uuid", "name", "generation"}),
    ("resource class list", {"name"}), ("trait list", {"name"}),
    ("allocation candidate list --resource VCPU=1 --resource MEMORY_MB=64", {"#", "allocation", "resource provider", "inventory used/capacity", "traits"}),
    ("resource usage show admin", set()),
]
MISSING = ["server show no-such-server", "network show no-such-network", "image show no-such-image", "volume show no-such-volume"]
# Features that this cloud does not have yet are refused without a crash of the client.
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


# The lifecycle of all resources with the stock client, in order; {} is a suffix of this run.
MEMBER_LIFE = """
network create net{} --description d --tag t --mtu 1400
network set net{} --name net2{} --description e --disable
network set net2{} --name net{} --enable
network unset net{} --tag t
subnet create sub{} --network net{} --subnet-range 10.71.0.0/24 --dns-nameserver 1.1.1.1 --allocation-pool start=10.71.0.10,end=10.71.0.90 --host-route destination=10.9.0.0/16,gateway=10.71.0.5
subnet set sub{} --dns-nameserver 9.9.9.9 --description d
subnet unset sub{} --dns-nameserver 1.1.1.1
subnet show sub{}
router create r{} --description d
router set r{} --external-gateway public
router add subnet r{} sub{}
router set r{} --route destination=10.200.0.0/16,gateway=10.71.0.5
router unset r{} --route destination=10.200.0.0/16,gateway=10.71.0.5
router show r{}
security group create g{} --description d
security group rule create g{} --protocol tcp --dst-port 22 --remote-ip 10.0.0.0/8
security group rule create g{} --protocol icmp --ingress
security group rule create g{} --egress --protocol udp --dst-port 53:54 --ethertype IPv4
security group rule create g{} --remote-group g{} --protocol tcp --dst-port 80
security group set g{} --name h{}
security group set h{} --name g{}
security group show g{}
port create p{} --network net{} --fixed-ip subnet=sub{},ip-address=10.71.0.50 --security-group g{}
port set p{} --name q{} --description d --allowed-address ip-address=10.71.0.60
port show q{}
floating ip create public --description f{}
keypair create k{} --private-key /tmp/key{}
keypair show k{}
server group create sg{} --policy anti-affinity
server group show sg{}
volume create v{} --size 1 --description d --property a=b
volume set v{} --name w{} --property c=d
volume unset w{} --property a
volume show w{}
volume snapshot create s{} --volume w{}
volume snapshot show s{}
volume snapshot set s{} --name t{} --property x=y
volume snapshot delete t{}
server create srv{} --flavor m1.nano --image guest --port q{} --key-name k{} --property p=q --wait
server show srv{}
server set srv{} --property r=s --description d
server unset srv{} --property p
server add volume srv{} w{}
until in-use volume show w{}
server volume list srv{}
server remove volume srv{} w{}
until available volume show w{}
server add network srv{} net{}
server event list srv{}
server stop srv{}
console log show srv{}
server lock srv{}
server unlock srv{}
server list --name srv{}
server list --long
server delete srv{} --wait
server group delete sg{}
keypair delete k{}
port delete q{}
router remove subnet r{} sub{}
router unset r{} --external-gateway
router delete r{}
subnet delete sub{}
network delete net{}
security group delete g{}
volume delete w{}
application credential create app{} --description d
application credential show app{}
application credential delete app{}
image create i{} --disk-format raw --container-format bare --file /etc/hostname --property a=b --tag t
image set i{} --name j{} --property c=d --min-ram 1
image unset j{} --property a
image show j{}
image save j{} --file /tmp/image{}
image delete j{}
"""
ADMIN_LIFE = """
project create p{} --description d --tag t
project set p{} --name q{} --disable
project set q{} --enable --name p{}
project show p{}
user create u{} --password secret --email a@b.c --project p{}
user set u{} --description d --password secret2
user show u{}
role create role{}
role add role{} --user u{} --project p{}
role assignment list --user u{} --names
role remove role{} --user u{} --project p{}
role delete role{}
group create grp{}
group add user grp{} u{}
group contains user grp{} u{}
group remove user grp{} u{}
group delete grp{}
quota set p{} --cores 7 --instances 3 --networks 4 --volumes 2
quota show p{}
quota delete p{}
flavor create f{} --ram 64 --vcpus 1 --disk 1 --property a=b
flavor set f{} --property c=d --description d
flavor unset f{} --property a
flavor show f{}
flavor delete f{}
aggregate create a{} --zone z{} --property x=y
aggregate set a{} --property y=z
aggregate show a{}
aggregate delete a{}
volume type create vt{} --property a=b --description d
volume type set vt{} --property c=d
volume type show vt{}
volume type delete vt{}
service create svc{} --name svc{}
endpoint create svc{} public http://example.com/
service show svc{}
service delete svc{}
region create reg{} --description d
region delete reg{}
network create ext{} --external --share --provider-network-type geneve
network show ext{}
network delete ext{}
resource class create CUSTOM_C{}
resource class delete CUSTOM_C{}
trait create CUSTOM_T{}
trait delete CUSTOM_T{}
resource provider create rp{}
domain create d{}
domain set d{} --disable
domain delete d{}
user delete u{}
project delete p{}
"""


def lived(cloud, name, life, suffix):
    lines = [line.replace("{}", suffix) for line in life.strip().splitlines()]
    answers = run_all(cloud, name, lines)
    return [f"openstack {line}: {answers[line].stdout[-300:]}{answers[line].stderr[-500:]}" for line in lines if answers[line].returncode != 0]


def test_a_members_life_of_everything(cloud):
    suffix = uuid.uuid4().hex[:6]
    failed = lived(cloud, "wolke-demo", MEMBER_LIFE, suffix)
    for path in (f"/tmp/key{suffix}", f"/tmp/image{suffix}"):
        Path(path).unlink(missing_ok=True)
    left = json.loads(run_all(cloud, "wolke-demo", ["floating ip list"])["floating ip list"].stdout)
    run_all(cloud, "wolke-demo", [f"floating ip delete {row['ID']}" for row in left])
    assert not failed, "\n".join(failed)


def test_an_operators_life_of_everything(cloud):
    suffix = uuid.uuid4().hex[:6].upper()
    failed = lived(cloud, "wolke-admin", ADMIN_LIFE, suffix)
    providers = json.loads(run_all(cloud, "wolke-admin", ["resource provider list"])["resource provider list"].stdout)
    run_all(cloud, "wolke-admin", [f"resource provider delete {row['uuid']}" for row in providers if row["name"] == f"rp{suffix}"])
    assert not failed, "\n".join(failed)
