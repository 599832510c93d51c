"""Callers for the contract tests: an operator, a member, and a member of another project."""

import contextlib
import sys
import uuid
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from contractapi import API, unique, wait  # noqa: E402


@pytest.fixture(scope="session")
def auth(cloud):
    return cloud.admin.config.config["auth"]


@pytest.fixture(scope="session")
def admin(auth):
    return API(auth["auth_url"], auth["username"], auth["password"], auth["project_name"])


def new_member(admin, role="member"):
    """A user with one role in a separate project."""
    name, password = unique("contract"), uuid.uuid4().hex
    project = admin.ok(admin.post("identity", "/projects", {"project": {"name": name, "domain_id": "default"}}), 201)["project"]
    user = admin.ok(
        admin.post("identity", "/users", {"user": {"name": name, "password": password, "domain_id": "default"}}), 201)["user"]
    roles = admin.ok(admin.get("identity", "/roles", params={"name": role}))["roles"]
    admin.ok(admin.put("identity", f"/projects/{project['id']}/users/{user['id']}/roles/{roles[0]['id']}"), 204)
    return API(admin.auth_url, name, password, name)


def close(member, admin):
    clean(member)
    admin.delete("identity", f"/users/{member.user_id}")
    admin.delete("identity", f"/projects/{member.project_id}")


def clean(member):
    """Deletes everything that the member's project has."""
    for server in member.ok(member.get("compute", "/servers"))["servers"]:
        member.delete("compute", f"/servers/{server['id']}")
    wait("the servers are gone", lambda: not member.ok(member.get("compute", "/servers"))["servers"])
    for group in member.ok(member.get("compute", "/os-server-groups"))["server_groups"]:
        member.delete("compute", f"/os-server-groups/{group['id']}")
    for pair in member.ok(member.get("compute", "/os-keypairs"))["keypairs"]:
        member.delete("compute", f"/os-keypairs/{pair['keypair']['name']}")
    for snapshot in member.ok(member.get("volume", "/snapshots"))["snapshots"]:
        member.delete("volume", f"/snapshots/{snapshot['id']}")
    wait("the snapshots are gone", lambda: not member.ok(member.get("volume", "/snapshots"))["snapshots"])
    for volume in member.ok(member.get("volume", "/volumes"))["volumes"]:
        member.delete("volume", f"/volumes/{volume['id']}")
    wait("the volumes are gone", lambda: not member.ok(member.get("volume", "/volumes"))["volumes"])
    own = {"project_id": member.project_id}
    for address in member.ok(member.get("network", "/floatingips", params=own))["floatingips"]:
        member.delete("network", f"/floatingips/{address['id']}")
    for router in member.ok(member.get("network", "/routers", params=own))["routers"]:
        for port in member.ok(member.get("network", "/ports", params={"device_id": router["id"]}))["ports"]:
            member.put("network", f"/routers/{router['id']}/remove_router_interface", {"port_id": port["id"]})
        member.delete("network", f"/routers/{router['id']}")
    for port in member.ok(member.get("network", "/ports", params=own))["ports"]:
        if not port["device_owner"].startswith("network:"):
            member.delete("network", f"/ports/{port['id']}")
    for network in member.ok(member.get("network", "/networks", params=own))["networks"]:
        member.delete("network", f"/networks/{network['id']}")
    for group in member.ok(member.get("network", "/security-groups", params=own))["security_groups"]:
        if group["name"] != "default":
            member.delete("network", f"/security-groups/{group['id']}")
    for image in member.ok(member.get("image", "/images", params={"owner": member.project_id}))["images"]:
        member.delete_image(image["id"])


@pytest.fixture(scope="module")
def member(admin):
    member = new_member(admin)
    yield member
    close(member, admin)


@pytest.fixture(scope="module")
def other_project(admin):
    other_project = new_member(admin)
    yield other_project
    close(other_project, admin)


@pytest.fixture(scope="module")
def reader(admin):
    reader = new_member(admin, "reader")
    yield reader
    close(reader, admin)


@pytest.fixture
def unchanged(member):
    """Checks that the block does not change the project's resources and usage."""

    @contextlib.contextmanager
    def block(caller=member):
        before = caller.inventory(), caller.usage()
        yield
        after = caller.inventory(), caller.usage()
        assert after == before

    return block


@pytest.fixture(scope="session")
def guest(admin):
    """The id of the public image."""
    return admin.ok(admin.get("image", "/images", params={"name": "guest"}))["images"][0]["id"]


@pytest.fixture(scope="session")
def nano(admin):
    """The id of the smallest flavor."""
    flavors = admin.ok(admin.get("compute", "/flavors"))["flavors"]
    return next(flavor["id"] for flavor in flavors if flavor["name"] == "m1.nano")


@pytest.fixture(scope="session")
def public(admin):
    """The id of the external network."""
    return admin.ok(admin.get("network", "/networks", params={"router:external": "true"}))["networks"][0]["id"]
