"""The lifecycle of one object of each kind: members of each response, filters, changes, deletion."""

import pytest

import shapes
from contractapi import check_fault, unique, wait
from shapes import check


@pytest.fixture(scope="module")
def network(member):
    return member.ok(member.post("network", "/networks", {"network": {"name": unique("net")}}), 201)["network"]


@pytest.fixture(scope="module")
def subnet(member, network):
    body = {"subnet": {"name": unique("sub"), "network_id": network["id"], "ip_version": 4, "cidr": "10.77.0.0/24"}}
    return member.ok(member.post("network", "/subnets", body), 201)["subnet"]


@pytest.fixture(scope="module")
def routed(member, subnet, public):
    """A router from the subnet to the outside."""
    router = member.ok(member.post("network", "/routers", {"router": {"name": unique("r"), "external_gateway_info": {"network_id": public}}}), 201)["router"]
    member.ok(member.put("network", f"/routers/{router['id']}/add_router_interface", {"subnet_id": subnet["id"]}), 200)
    return router


# service, collection path, member, list key, shape, status of creation, change
LIVES = {
    "network": ("network", "/networks", "network", "networks", shapes.NETWORK, {"name": "n2", "description": "d"}),
    "subnet": ("network", "/subnets", "subnet", "subnets", shapes.SUBNET, {"name": "n2", "dns_nameservers": ["9.9.9.9"]}),
    "port": ("network", "/ports", "port", "ports", shapes.PORT, {"name": "n2", "admin_state_up": False}),
    "router": ("network", "/routers", "router", "routers", shapes.ROUTER, {"name": "n2", "description": "d"}),
    "floatingip": ("network", "/floatingips", "floatingip", "floatingips", shapes.FLOATING_IP, {"description": "d"}),
    "security_group": ("network", "/security-groups", "security_group", "security_groups", shapes.SECURITY_GROUP, {"name": "n2", "description": "d"}),
    "security_group_rule": ("network", "/security-group-rules", "security_group_rule", "security_group_rules", shapes.SECURITY_GROUP_RULE, None),
    "server_group": ("compute", "/os-server-groups", "server_group", "server_groups", shapes.SERVER_GROUP, None),
    "volume": ("volume", "/volumes", "volume", "volumes", shapes.VOLUME, {"name": "n2", "description": "d"}),
}


@pytest.fixture
def body(request, member, network, subnet, routed, public):
    kind = request.param
    if kind == "security_group_rule":
        group = member.ok(member.post("network", "/security-groups", {"security_group": {"name": unique("g")}}), 201)["security_group"]
        return kind, {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 1, "port_range_max": 9}
    return kind, {
        "network": {"name": unique("n")},
        "subnet": {"name": unique("n"), "network_id": network["id"], "ip_version": 4, "cidr": "10.78.0.0/24"},
        "port": {"name": unique("n"), "network_id": network["id"]},
        "router": {"name": unique("n")},
        "floatingip": {"floating_network_id": public},
        "security_group": {"name": unique("n")},
        "server_group": {"name": unique("n"), "policy": "anti-affinity"},
        "volume": {"name": unique("n"), "size": 1},
    }[kind]


@pytest.mark.parametrize("body", LIVES, indirect=True)
def test_the_life_of(member, other_project, body):
    kind, members = body
    service, path, member_name, list_key, shape, change = LIVES[kind]
    made = member.ok(member.post(service, path, {member_name: members}))[member_name]
    one = f"{path}/{made['id']}"
    try:
        for name, value in members.items():
            assert made[name] == value, f"{name}: {made[name]!r}"
        shown = member.ok(member.get(service, one), 200)[member_name]
        check(shown, shape, kind)
        rows = member.ok(member.get(service, path + ("/detail" if service == "volume" else "")), 200)[list_key]
        row = next(row for row in rows if row["id"] == made["id"])
        check(row, {name: kinds for name, kinds in shape.items()}, f"{kind} in the list")
        if members.get("name") and kind != "server_group":
            named = member.ok(member.get(service, path, params={"name": members["name"]}))[list_key]
            assert [row["id"] for row in named] == [made["id"]]
            assert member.ok(member.get(service, path, params={"name": "no-such-name"}))[list_key] == []
        check_fault(service, other_project.get(service, one))
        assert other_project.get(service, one).status_code == 404
        assert other_project.delete(service, one).status_code == 404
        if change:
            if kind == "volume":
                wait("the volume is available", lambda: member.ok(member.get(service, one))["volume"]["status"] == "available")
            changed = member.ok(member.put(service, one, {member_name: change}), 200)[member_name]
            for name, value in change.items():
                assert changed[name] == value
            if "revision_number" in shape:
                assert changed["revision_number"] > made["revision_number"]
            assert other_project.put(service, one, {member_name: change}).status_code == 404
    finally:
        if kind == "volume":
            wait("the volume is settled", lambda: member.ok(member.get(service, one))["volume"]["status"] in ("available", "error"))
        gone = member.delete(service, one)
    assert gone.status_code in (202, 204) and not gone.content
    wait(f"the {kind} is gone", lambda: member.get(service, one).status_code == 404)
    check_fault(service, member.get(service, one))
    check_fault(service, member.delete(service, one))


def test_a_keypair(member, other_project):
    name = unique("key")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMgZ0p2ZmFrZWtleWZha2VrZXlmYWtla2V5ZmFrZWtl test"
    made = member.ok(member.post("compute", "/os-keypairs", {"keypair": {"name": name, "public_key": key, "type": "ssh"}}))["keypair"]
    check(made, shapes.KEYPAIR)
    assert member.ok(member.get("compute", f"/os-keypairs/{name}"))["keypair"]["public_key"] == key
    assert other_project.get("compute", f"/os-keypairs/{name}").status_code == 404
    again = member.post("compute", "/os-keypairs", {"keypair": {"name": name, "public_key": key}})
    assert again.status_code == 409 and name in again.text
    generated = member.post("compute", "/os-keypairs", {"keypair": {"name": unique("key")}}, version="2.10")
    assert "PRIVATE KEY" in member.ok(generated)["keypair"]["private_key"]
    check_fault("compute", member.post("compute", "/os-keypairs", {"keypair": {"name": unique("key")}}, version="2.92"))
    assert member.delete("compute", f"/os-keypairs/{name}").status_code in (202, 204)
    assert member.get("compute", f"/os-keypairs/{name}").status_code == 404


def test_an_image(member, other_project):
    made = member.ok(member.post("image", "/images", {"name": unique("i"), "disk_format": "raw", "container_format": "bare", "my_property": "x"}), 201)
    check(made, shapes.IMAGE)
    assert made["status"] == "queued" and made["my_property"] == "x" and made["owner"] == member.project_id
    one = f"/images/{made['id']}"
    data = b"\x00" * 1024
    put = member.put("image", one + "/file", data=data, headers={"Content-Type": "application/octet-stream"})
    assert put.status_code == 204, put.text
    shown = member.ok(member.get("image", one), 200)
    check(shown, shapes.IMAGE)
    assert shown["status"] == "active" and shown["size"] == len(data) and len(shown["os_hash_value"]) == 128
    assert member.get("image", one + "/file").content == data
    again = member.put("image", one + "/file", data=data, headers={"Content-Type": "application/octet-stream"})
    assert again.status_code == 409
    assert other_project.get("image", one).status_code == 404
    assert other_project.get("image", one + "/file").status_code == 404
    patch = [{"op": "replace", "path": "/name", "value": "renamed"}, {"op": "add", "path": "/other", "value": "y"}, {"op": "remove", "path": "/my_property"}]
    kind = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    changed = member.ok(member.patch("image", one, patch, headers=kind), 200)
    assert changed["name"] == "renamed" and changed["other"] == "y" and "my_property" not in changed
    rows = member.ok(member.get("image", "/images", params={"id": f"in:{made['id']}"}))["images"]
    assert [row["id"] for row in rows] == [made["id"]]
    assert member.delete("image", one).status_code == 204
    assert member.get("image", one).status_code == 404


def test_flavors(member):
    flavors = member.ok(member.get("compute", "/flavors/detail"))["flavors"]
    assert {flavor["name"] for flavor in flavors} >= {"m1.nano", "m1.large"}
    for flavor in flavors:
        check(flavor, shapes.FLAVOR)
        check(member.ok(member.get("compute", f"/flavors/{flavor['id']}"))["flavor"], shapes.FLAVOR)
    brief = member.ok(member.get("compute", "/flavors", version="2.1"))["flavors"][0]
    assert set(brief) == {"id", "name", "links"}
    old = member.ok(member.get("compute", f"/flavors/{brief['id']}", version="2.54"))["flavor"]
    assert "description" not in old and "extra_specs" not in old


@pytest.mark.parametrize("kind,shape,body", [
    ("project", shapes.PROJECT, {"domain_id": "default"}), ("user", shapes.USER, {"domain_id": "default"}),
    ("role", shapes.ROLE, {}), ("domain", shapes.DOMAIN, {}),
])
def test_identity(admin, member, kind, shape, body):
    path = f"/{kind}s"
    name = unique(kind)
    made = admin.ok(admin.post("identity", path, {kind: {"name": name, **body}}), 201)[kind]
    one = f"{path}/{made['id']}"
    check(made, shape)
    rows = admin.ok(admin.get("identity", path, params={"name": name}))
    assert [row["id"] for row in rows[kind + "s"]] == [made["id"]] and "self" in rows["links"]
    again = admin.post("identity", path, {kind: {"name": name, **body}})
    assert again.status_code == 409 and name in again.text
    assert member.post("identity", path, {kind: {"name": name, **body}}).status_code == 403
    changed = admin.ok(admin.patch("identity", one, {kind: {"name": name + "2"}}), 200)[kind]
    assert changed["name"] == name + "2"
    if kind == "domain":
        assert admin.delete("identity", one).status_code == 403
        admin.ok(admin.patch("identity", one, {kind: {"enabled": False}}), 200)
    assert admin.delete("identity", one).status_code == 204
    check_fault("identity", admin.get("identity", one))


def test_a_server_in_every_version(member, network, subnet, guest, nano):
    body = {"server": {"name": unique("s"), "imageRef": guest, "flavorRef": nano, "networks": [{"uuid": network["id"]}], "metadata": {"k": "v"}}}
    answer = member.post("compute", "/servers", body)
    assert answer.status_code == 202 and answer.headers["Location"].endswith(answer.json()["server"]["id"])
    made = answer.json()["server"]
    assert set(made) >= {"id", "links", "adminPass", "OS-DCF:diskConfig", "security_groups"}
    one = f"/servers/{made['id']}"

    def settled():
        server = member.ok(member.get("compute", one))["server"]
        return server if server["status"] in ("ACTIVE", "ERROR") else None

    server = wait("the server leaves BUILD", settled, 180)
    assert server["status"] == "ACTIVE", server.get("fault")
    for version in ("2.1", "2.8", "2.9", "2.19", "2.26", "2.46", "2.47", "2.63", "2.71", "2.73", "2.90", "2.96", "2.98", "2.100", "2.104"):
        shape = dict(shapes.SERVER)
        absent = set()
        for since, added in shapes.SERVER_SINCE.items():
            if tuple(map(int, since.split("."))) <= tuple(map(int, version.split("."))):
                shape.update(added)
            else:
                absent |= set(added)
        shown = member.ok(member.get("compute", one, version=version))["server"]
        check(shown, shape, f"server at {version}")
        assert not absent & set(shown), f"at {version}: {absent & set(shown)}"
        assert ("original_name" in shown["flavor"]) == (tuple(map(int, version.split("."))) >= (2, 47)), version
        listed = member.ok(member.get("compute", "/servers/detail", version=version))["servers"]
        check(next(row for row in listed if row["id"] == made["id"]), {k: v for k, v in shape.items() if k != "server_groups"}, f"server in the list at {version}")
    addresses = server["addresses"][network["name"]]
    assert set(addresses[0]) == {"addr", "version", "OS-EXT-IPS:type", "OS-EXT-IPS-MAC:mac_addr"}
    for query, hits in [({"name": body["server"]["name"]}, 1), ({"status": "ACTIVE"}, 1), ({"status": "ERROR"}, 0), ({"flavor": nano}, 1), ({"image": guest}, 1)]:
        found = member.ok(member.get("compute", "/servers", params=query))["servers"]
        assert sum(row["id"] == made["id"] for row in found) == hits, query
    actions = member.ok(member.get("compute", one + "/os-instance-actions"))["instanceActions"]
    assert actions[-1]["action"] == "create" and actions[-1]["request_id"].startswith("req-")
    assert member.delete("compute", one).status_code == 204
    wait("the server is gone", lambda: member.get("compute", one).status_code == 404)


def test_a_volume_and_its_snapshot(member):
    volume = member.ok(member.post("volume", "/volumes", {"volume": {"name": unique("v"), "size": 1, "description": None, "snapshot_id": None}}), 202)["volume"]
    one = f"/volumes/{volume['id']}"
    wait("the volume is available", lambda: member.ok(member.get("volume", one))["volume"]["status"] == "available")
    snapshot = member.ok(member.post("volume", "/snapshots", {"snapshot": {"name": unique("s"), "volume_id": volume["id"]}}), 202)["snapshot"]
    part = f"/snapshots/{snapshot['id']}"
    wait("the snapshot is available", lambda: member.ok(member.get("volume", part))["snapshot"]["status"] == "available")
    check(member.ok(member.get("volume", part))["snapshot"], shapes.SNAPSHOT)
    refused = member.delete("volume", one)
    assert refused.status_code == 400 and "snapshot" in refused.text
    assert member.delete("volume", part).status_code == 202
    wait("the snapshot is gone", lambda: member.get("volume", part).status_code == 404)
    assert member.post("volume", one + "/action", {"os-extend": {"new_size": 2}}).status_code == 202
    wait("the volume is larger", lambda: member.ok(member.get("volume", one))["volume"]["size"] == 2)
    wait("the volume is available", lambda: member.ok(member.get("volume", one))["volume"]["status"] == "available")
    assert member.delete("volume", one).status_code == 202
    wait("the volume is gone", lambda: member.get("volume", one).status_code == 404)


def test_placement(admin, member):
    providers = admin.ok(admin.get("placement", "/resource_providers"))["resource_providers"]
    assert providers
    for provider in providers:
        check(provider, shapes.RESOURCE_PROVIDER)
        one = f"/resource_providers/{provider['uuid']}"
        inventories = admin.ok(admin.get("placement", one + "/inventories"))
        assert {"VCPU", "MEMORY_MB", "DISK_GB"} <= set(inventories["inventories"])
        for inventory in inventories["inventories"].values():
            assert set(inventory) >= {"total", "reserved", "min_unit", "max_unit", "step_size", "allocation_ratio"}
        assert set(admin.ok(admin.get("placement", one + "/usages"))) == {"resource_provider_generation", "usages"}
        assert "traits" in admin.ok(admin.get("placement", one + "/traits"))
    candidates = admin.ok(admin.get("placement", "/allocation_candidates", params={"resources": "VCPU:1,MEMORY_MB:64"}))
    assert candidates["allocation_requests"] and candidates["provider_summaries"]
    assert member.get("placement", "/resource_providers").status_code == 403
