"""The project's own command line against a running cloud, as a member."""

import json
import os
import subprocess

import pytest

from contractapi import unique
from wolkecloud import BUILD


@pytest.fixture(scope="module")
def osctl(cloud, member, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {
        "HOME": str(home), "PATH": os.environ["PATH"], "OS_AUTH_URL": member.auth_url, "OS_USERNAME": member.user, "OS_PASSWORD": member.password,
        "OS_PROJECT_NAME": member.project, "OS_USER_DOMAIN_ID": "default", "OS_PROJECT_DOMAIN_ID": "default",
    }

    def run(line, expect=0):
        result = subprocess.run([BUILD / "osctl", *line.split()], capture_output=True, text=True, timeout=300, env=environment, cwd=home)
        assert result.returncode == expect, f"osctl {line}: {result.stdout}{result.stderr}"
        return result

    return run


def value(osctl, line):
    return osctl(line + " -o value -c id").stdout.strip()


def test_a_tenants_story(osctl, unchanged):
    with unchanged():
        name = unique("osctl")
        assert "PRIVATE KEY" in osctl(f"keypair create {name}").stdout
        osctl(f"network create {name}")
        osctl(f"subnet create {name} --network {name} --range 10.88.0.0/24")
        osctl(f"router create {name} --external-gateway public")
        osctl(f"router add subnet {name} {name}")
        osctl(f"security-group create {name}")
        osctl(f"security-group rule create {name} --dst-port 22")
        made = osctl(f"server create {name} --flavor m1.nano --image guest --network {name} --security-group {name} --keypair {name} --wait")
        assert f"server {name}: active" in made.stderr and "10.88.0." in made.stdout
        address = osctl(f"server add floating-ip {name} --network public -o value -c floating_ip_address").stdout.strip()
        assert address in osctl("server list").stdout
        osctl(f"volume create {name} --size 1 --wait")
        osctl(f"server add volume {name} {name} --wait")
        osctl(f"server remove volume {name} {name} --wait")
        osctl(f"server stop {name} --wait")
        osctl(f"server start {name} --wait")
        image = osctl(f"server image create {name} --name {name}-copy --property purpose=test --wait")
        assert "active" in image.stdout and "image_" in image.stderr
        osctl(f"image delete {name}-copy")
        osctl(f"server shelve {name} --wait")
        osctl(f"server unshelve {name} --wait")
        assert f"Server {name} is ACTIVE" in osctl(f"server why {name}").stdout
        used = {row["resource"]: row["used"] for row in json.loads(osctl("quota usage -o json").stdout)}
        assert used["servers"] == 1 and used["floating-ips"] == 1 and used["volumes"] == 1
        osctl(f"server delete {name} --wait")
        osctl(f"volume delete {name} --wait")
        osctl(f"floating-ip delete {address}")
        osctl(f"router remove subnet {name} {name}")
        osctl(f"router delete {name}")
        osctl(f"network delete {name}")
        osctl(f"security-group delete {name}")
        osctl(f"keypair delete {name}")


def test_an_image_there_and_back(osctl, tmp_path):
    name = unique("osctl")
    disk = tmp_path / "disk"
    disk.write_bytes(os.urandom(3 << 20))
    osctl(f"image create {name} --disk-format raw --file {disk} --property a=b")
    osctl(f"image set {name} --property c=d --min-ram 64")
    shown = json.loads(osctl(f"image show {name} -o json").stdout)
    assert shown["a"] == "b" and shown["c"] == "d" and shown["min_ram"] == 64 and shown["size"] == 3 << 20
    osctl(f"image download {name} -f {tmp_path}/copy")
    assert (tmp_path / "copy").read_bytes() == disk.read_bytes()
    osctl(f"image delete {name}")


def test_refusals_say_what_next(osctl):
    assert "See: osctl flavor list" in osctl("server create x --flavor none --image none", 1).stderr
    assert "Error: " in osctl("subnet create x --network public --range 10.1.0.0/24", 1).stderr
    assert "Policy doesn't allow" in osctl("hypervisor list", 1).stderr
    assert "no-such" in osctl("server delete no-such", 1).stderr


LISTS = [
    "server", "flavor", "keypair", "server-group", "availability-zone", "image", "network", "subnet", "router", "port", "floating-ip",
    "security-group", "security-group rule", "network-extension", "volume", "volume snapshot", "volume type", "catalog",
]


@pytest.mark.parametrize("noun", LISTS)
def test_lists_in_every_form(osctl, noun):
    assert osctl(f"{noun} list").stdout.isprintable() is False
    rows = json.loads(osctl(f"{noun} list -o json").stdout)
    assert isinstance(rows, list)
    osctl(f"{noun} list -o yaml")
