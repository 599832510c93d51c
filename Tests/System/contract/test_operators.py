"""Documents that clients read besides the main resources, and operators' requests."""

import uuid

import pytest

from contractapi import API, check_fault, message, unique

# service, path, caller, members of the response (a dotted path into it, then names)
READS = [
    ("compute", "/limits", "member", "limits.absolute", {"maxTotalInstances", "maxTotalCores", "maxTotalRAMSize", "maxTotalKeypairs", "maxServerMeta", "maxServerGroups", "maxServerGroupMembers", "totalInstancesUsed", "totalCoresUsed", "totalRAMUsed", "totalServerGroupsUsed"}),
    ("compute", "/os-quota-sets/{project}", "member", "quota_set", {"id", "instances", "cores", "ram", "key_pairs", "metadata_items", "server_groups", "server_group_members"}),
    ("compute", "/os-quota-sets/{project}/defaults", "member", "quota_set", {"id", "instances", "cores", "ram", "key_pairs"}),
    ("compute", "/os-availability-zone", "member", "availabilityZoneInfo.0", {"zoneName", "zoneState", "hosts"}),
    ("compute", "/os-availability-zone/detail", "admin", "availabilityZoneInfo.0", {"zoneName", "zoneState", "hosts"}),
    ("compute", "/os-hypervisors/detail", "admin", "hypervisors.0", {"id", "hypervisor_hostname", "hypervisor_type", "hypervisor_version", "host_ip", "state", "status", "service", "uptime", "servers"} - {"servers"}),
    ("compute", "/os-services", "admin", "services.0", {"id", "binary", "host", "zone", "status", "state", "updated_at", "disabled_reason", "forced_down"}),
    ("compute", "/extensions", "member", "", {"extensions"}),
    ("network", "/quotas/{project}", "member", "quota", {"network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule"}),
    ("network", "/quotas/{project}/default", "member", "quota", {"network", "subnet", "port", "router", "floatingip"}),
    ("network", "/quotas/{project}/details", "member", "quota.network", {"limit", "used", "reserved"}),
    ("network", "/agents", "admin", "agents.0", {"id", "agent_type", "binary", "host", "alive", "admin_state_up", "configurations", "heartbeat_timestamp", "created_at", "started_at", "topic", "availability_zone"}),
    ("network", "/availability_zones", "member", "", {"availability_zones"}),
    ("network", "/extensions", "member", "extensions.0", {"alias", "name", "description", "links", "updated"}),
    ("volume", "/types", "admin", "volume_types.0", {"id", "name", "description", "is_public", "extra_specs", "os-volume-type-access:is_public"}),
    ("volume", "/types/default", "member", "volume_type", {"id", "name"}),
    ("volume", "/limits", "member", "limits.absolute", {"maxTotalVolumes", "maxTotalVolumeGigabytes", "maxTotalSnapshots", "totalVolumesUsed", "totalGigabytesUsed", "totalSnapshotsUsed"}),
    ("volume", "/os-quota-sets/{project}", "member", "quota_set", {"id", "volumes", "snapshots", "gigabytes"}),
    ("volume", "/os-services", "admin", "services.0", {"binary", "host", "zone", "status", "state", "updated_at"}),
    ("volume", "/os-availability-zone", "member", "availabilityZoneInfo.0", {"zoneName", "zoneState"}),
    ("image", "/schemas/image", "member", "", {"name", "properties", "links"}),
    ("image", "/schemas/images", "member", "", {"name", "properties", "links"}),
    ("image", "/info/stores", "member", "stores.0", {"id"}),
    ("identity", "/auth/catalog", "member", "catalog.0", {"id", "name", "type", "endpoints"}),
    ("identity", "/auth/projects", "member", "projects.0", {"id", "name", "domain_id", "enabled"}),
    ("identity", "/users/{user}/projects", "member", "projects.0", {"id", "name"}),
    ("identity", "/users/{user}", "member", "user", {"id", "name", "domain_id"}),
    ("identity", "/services", "admin", "services.0", {"id", "name", "type", "enabled", "links"}),
    ("identity", "/endpoints", "admin", "endpoints.0", {"id", "url", "interface", "region", "region_id", "service_id", "enabled", "links"}),
    ("identity", "/regions", "admin", "regions.0", {"id", "description", "parent_region_id", "links"}),
    ("identity", "/role_assignments", "admin", "role_assignments.0", {"role", "scope", "links"}),
    ("placement", "/traits", "admin", "", {"traits"}), ("placement", "/resource_classes", "admin", "resource_classes.0", {"name", "links"}),
]


@pytest.mark.parametrize("case", READS, ids=lambda case: f"{case[0]} {case[1]}")
def test_it_has_its_documented_members(request, case):
    service, path, caller, place, names = case
    api = request.getfixturevalue(caller)
    value = api.ok(api.get(service, path.format(project=api.project_id, user=api.user_id)), 200)
    for step in filter(None, place.split(".")):
        value = value[int(step)] if step.isdigit() else value[step]
    assert names <= set(value), f"lacks {sorted(names - set(value))}"


# Identity


def test_every_scope_of_a_token(admin, auth):
    def sign_on(scope):
        body = admin.sign_on_body()
        body["auth"].pop("scope", None)
        if scope:
            body["auth"]["scope"] = scope
        return admin.post("identity", "/auth/tokens", body, token=None)

    project = sign_on({"project": {"id": admin.project_id}}).json()["token"]
    assert project["project"]["id"] == admin.project_id and project["catalog"] and project["roles"]
    system = sign_on({"system": {"all": True}}).json()["token"]
    assert system["system"] == {"all": True} and "project" not in system
    domain = sign_on({"domain": {"id": "default"}}).json()["token"]
    assert domain["domain"]["id"] == "default"
    bare = sign_on("unscoped").json()["token"]
    assert "project" not in bare and not bare.get("catalog") and not bare.get("roles")
    for token in (project, system, domain, bare):
        assert set(token) >= {"methods", "user", "expires_at", "issued_at", "audit_ids"}
    missing = sign_on({"project": {"id": "0" * 32}})
    assert missing.status_code == 401
    assert sign_on({"project": {"id": admin.project_id}, "domain": {"id": "default"}}).status_code in (400, 401)


def test_a_token_shows_itself(member, admin):
    shown = member.get("identity", "/auth/tokens", headers={"X-Subject-Token": member.token})
    assert shown.status_code == 200 and shown.headers["X-Subject-Token"] == member.token
    assert shown.json()["token"]["user"]["id"] == member.user_id
    assert member.send("HEAD", "identity", "/auth/tokens", headers={"X-Subject-Token": member.token}).status_code == 200
    slim = member.get("identity", "/auth/tokens", headers={"X-Subject-Token": member.token}, params={"nocatalog": "1"})
    assert "catalog" not in slim.json()["token"]
    assert member.get("identity", "/auth/tokens", headers={"X-Subject-Token": admin.token}).status_code in (403, 404)
    assert member.get("identity", "/auth/tokens").status_code in (400, 403, 404)


def test_a_password_is_changed_by_its_owner(admin):
    from conftest import close, new_member

    member = new_member(admin)
    try:
        fresh = uuid.uuid4().hex
        wrong = member.post("identity", f"/users/{member.user_id}/password", {"user": {"original_password": "wrong", "password": fresh}})
        assert wrong.status_code == 401
        changed = member.post("identity", f"/users/{member.user_id}/password", {"user": {"original_password": member.password, "password": fresh}})
        assert changed.status_code == 204, changed.text
        old = member.post("identity", "/auth/tokens", member.sign_on_body(), token=None)
        assert old.status_code == 401
        member.password = fresh
        member.sign_on()
    finally:
        close(member, admin)


# Placement


def test_a_provider_of_ones_own(admin):
    name = unique("rp")
    made = admin.ok(admin.post("placement", "/resource_providers", {"name": name}), 200)
    one = f"/resource_providers/{made['uuid']}"
    again = admin.post("placement", "/resource_providers", {"name": name})
    assert again.status_code == 409 and name in message(again)
    inventory = {"resource_provider_generation": made["generation"], "inventories": {"VCPU": {"total": 4}}}
    put = admin.ok(admin.put("placement", one + "/inventories", inventory), 200)
    assert put["resource_provider_generation"] == made["generation"] + 1 and put["inventories"]["VCPU"]["allocation_ratio"] == 1.0
    stale = admin.put("placement", one + "/inventories", inventory)
    check_fault("placement", stale)
    assert stale.status_code == 409 and stale.json()["errors"][0]["code"] == "placement.concurrent_update"
    for bad in ({"VCPU": {"total": 0}}, {"VCPU": {"total": "many"}}, {"NONSENSE": {"total": 1}}):
        answer = admin.put("placement", one + "/inventories", {"resource_provider_generation": put["resource_provider_generation"], "inventories": bad})
        check_fault("placement", answer)
        assert answer.status_code == 400
    consumer = str(uuid.uuid4())

    def allocations(amount, generation):
        return {
            "allocations": {made["uuid"]: {"resources": {"VCPU": amount}}}, "project_id": admin.project_id, "user_id": admin.user_id,
            "consumer_generation": generation, "consumer_type": "TEST",
        }

    too_many = admin.put("placement", f"/allocations/{consumer}", allocations(5, None))
    check_fault("placement", too_many)
    assert too_many.status_code == 409
    assert admin.put("placement", f"/allocations/{consumer}", allocations(3, None)).status_code == 204
    assert admin.put("placement", f"/allocations/{consumer}", allocations(2, None)).status_code == 409
    shown = admin.ok(admin.get("placement", f"/allocations/{consumer}"))
    assert shown["allocations"][made["uuid"]]["resources"] == {"VCPU": 3} and shown["consumer_generation"] == 1
    assert admin.ok(admin.get("placement", one + "/usages"))["usages"] == {"VCPU": 3}
    assert admin.delete("placement", one).status_code == 409
    assert admin.delete("placement", f"/allocations/{consumer}").status_code == 204
    assert admin.delete("placement", f"/allocations/{consumer}").status_code == 404
    trait = "CUSTOM_" + unique("T").upper().replace("-", "_")
    assert admin.put("placement", f"/traits/{trait}").status_code in (201, 204)
    generation = admin.ok(admin.get("placement", one))["generation"]
    assert admin.ok(admin.put("placement", one + "/traits", {"resource_provider_generation": generation, "traits": [trait]}), 200)["traits"] == [trait]
    found = admin.ok(admin.get("placement", "/resource_providers", params={"required": trait}))["resource_providers"]
    assert [row["uuid"] for row in found] == [made["uuid"]]
    assert admin.put("placement", "/traits/NOT_CUSTOM").status_code == 400
    assert admin.delete("placement", one).status_code == 204
    assert admin.get("placement", one).status_code == 404
    assert admin.delete("placement", f"/traits/{trait}").status_code == 204


@pytest.mark.parametrize("query,word", [
    ({"resources": "VCPU"}, "VCPU"), ({"resources": "VCPU:zero"}, "zero"), ({"resources": "NONSENSE:1"}, "NONSENSE"), ({}, "resources"),
    ({"resources": "VCPU:1", "required": "nonsense"}, "nonsense"), ({"resources": "VCPU:1", "limit": "0"}, "limit"),
])
def test_bad_questions_for_candidates(admin, query, word):
    answer = admin.get("placement", "/allocation_candidates", params=query)
    check_fault("placement", answer)
    assert answer.status_code == 400 and word in message(answer), answer.text


# Compute


def test_flavors_with_extra_specs(admin, member):
    made = admin.ok(admin.post("compute", "/flavors", {"flavor": {"name": unique("f"), "ram": 64, "vcpus": 1, "disk": 0}}), 200)["flavor"]
    one = f"/flavors/{made['id']}"
    specs = admin.ok(admin.post("compute", one + "/os-extra_specs", {"extra_specs": {"hw:cpu_policy": "shared", "note:x": "1"}}), 200)
    assert specs["extra_specs"]["note:x"] == "1"
    assert admin.ok(admin.put("compute", one + "/os-extra_specs/note:x", {"note:x": "2"}), 200) == {"note:x": "2"}
    assert admin.delete("compute", one + "/os-extra_specs/note:x").status_code in (200, 202, 204)
    assert admin.get("compute", one + "/os-extra_specs/note:x").status_code == 404
    for bad, word in (({"ram": 0}, "ram"), ({"vcpus": -1}, "vcpus"), ({"disk": "x"}, "disk"), ({"nonsense": 1}, "nonsense")):
        answer = admin.post("compute", "/flavors", {"flavor": {"name": unique("f"), "ram": 64, "vcpus": 1, "disk": 0, **bad}})
        check_fault("compute", answer)
        assert answer.status_code == 400 and word in message(answer)
    twice = admin.post("compute", "/flavors", {"flavor": {"name": made["name"], "ram": 64, "vcpus": 1, "disk": 0}})
    assert twice.status_code == 409 and made["name"] in message(twice)
    private = admin.ok(admin.post("compute", "/flavors", {"flavor": {"name": unique("f"), "ram": 64, "vcpus": 1, "disk": 0, "os-flavor-access:is_public": False}}))["flavor"]
    assert member.get("compute", f"/flavors/{private['id']}").status_code == 404
    access = {"addTenantAccess": {"tenant": member.project_id}}
    admin.ok(admin.post("compute", f"/flavors/{private['id']}/action", access), 200)
    assert member.get("compute", f"/flavors/{private['id']}").status_code == 200
    for flavor in (made, private):
        assert admin.delete("compute", f"/flavors/{flavor['id']}").status_code == 202
        assert admin.get("compute", f"/flavors/{flavor['id']}").status_code == 404


def test_an_aggregate(admin):
    host = admin.ok(admin.get("compute", "/os-services", params={"binary": "nova-compute"}))["services"][0]["host"]
    made = admin.ok(admin.post("compute", "/os-aggregates", {"aggregate": {"name": unique("agg")}}), 200)["aggregate"]
    one = f"/os-aggregates/{made['id']}"
    assert admin.ok(admin.post("compute", one + "/action", {"add_host": {"host": host}}), 200)["aggregate"]["hosts"] == [host]
    assert admin.post("compute", one + "/action", {"add_host": {"host": host}}).status_code == 409
    assert admin.post("compute", one + "/action", {"add_host": {"host": "no-such-host"}}).status_code == 404
    assert admin.ok(admin.post("compute", one + "/action", {"set_metadata": {"metadata": {"ssd": "true"}}}))["aggregate"]["metadata"]["ssd"] == "true"
    assert admin.delete("compute", one).status_code in (400, 409)
    admin.ok(admin.post("compute", one + "/action", {"remove_host": {"host": host}}), 200)
    assert admin.delete("compute", one).status_code == 200
    assert admin.get("compute", one).status_code == 404


# Network


def test_several_networks_in_one_request(member, unchanged):
    body = {"networks": [{"name": "bulk-1"}, {"name": "bulk-2"}]}
    made = member.ok(member.post("network", "/networks", body), 201)["networks"]
    assert [network["name"] for network in made] == ["bulk-1", "bulk-2"]
    for network in made:
        member.ok(member.delete("network", f"/networks/{network['id']}"), 204)
    with unchanged():
        answer = member.post("network", "/networks", {"networks": [{"name": "good"}, {"name": "x" * 300}]})
        check_fault("network", answer)
        assert answer.status_code == 400


def test_tags_of_a_network(member):
    made = member.ok(member.post("network", "/networks", {"network": {"name": unique("tag")}}), 201)["network"]
    path = f"/networks/{made['id']}/tags"
    assert member.ok(member.put("network", path, {"tags": ["a", "b"]}), 200) == {"tags": ["a", "b"]}
    assert member.put("network", path + "/c").status_code in (200, 201)
    assert sorted(member.ok(member.get("network", path))["tags"]) == ["a", "b", "c"]
    rows = member.ok(member.get("network", "/networks", params={"tags": "a,c"}))["networks"]
    assert [row["id"] for row in rows] == [made["id"]]
    assert member.delete("network", path + "/a").status_code == 204
    assert member.get("network", path + "/a").status_code == 404
    assert member.delete("network", path).status_code == 204
    member.ok(member.delete("network", f"/networks/{made['id']}"), 204)


def test_revisions_guard_changes(member):
    made = member.ok(member.post("network", "/networks", {"network": {"name": unique("rev")}}), 201)["network"]
    one = f"/networks/{made['id']}"
    stale = {"If-Match": f"revision_number={made['revision_number'] - 1}"}
    assert member.put("network", one, {"network": {"name": "n"}}, headers=stale).status_code == 412
    fresh = {"If-Match": f"revision_number={made['revision_number']}"}
    assert member.put("network", one, {"network": {"name": "n"}}, headers=fresh).status_code == 200
    member.ok(member.delete("network", one), 204)


def test_a_shared_network_is_used_but_not_changed(admin, member):
    made = admin.ok(admin.post("network", "/networks", {"network": {"name": unique("shared"), "shared": True}}), 201)["network"]
    one = f"/networks/{made['id']}"
    try:
        assert member.ok(member.get("network", one), 200)["network"]["shared"]
        assert member.put("network", one, {"network": {"name": "mine"}}).status_code == 403
        assert member.delete("network", one).status_code == 403
        port = member.ok(member.post("network", "/ports", {"port": {"network_id": made["id"]}}), 201)["port"]
        member.ok(member.delete("network", f"/ports/{port['id']}"), 204)
    finally:
        admin.delete("network", one)


# Image


def test_an_image_shared_with_a_project(member, other_project):
    image = member.ok(member.post("image", "/images", {"name": unique("i"), "disk_format": "raw", "container_format": "bare", "visibility": "shared"}), 201)
    one = f"/images/{image['id']}"
    assert other_project.get("image", one).status_code == 404
    made = member.ok(member.post("image", one + "/members", {"member": other_project.project_id}), 200)
    assert made["status"] == "pending" and made["member_id"] == other_project.project_id
    assert other_project.get("image", one).status_code == 200
    assert image["id"] not in [row["id"] for row in other_project.ok(other_project.get("image", "/images"))["images"]]
    accepted = other_project.put("image", f"{one}/members/{other_project.project_id}", {"status": "accepted"})
    assert other_project.ok(accepted, 200)["status"] == "accepted"
    assert image["id"] in [row["id"] for row in other_project.ok(other_project.get("image", "/images"))["images"]]
    assert other_project.delete("image", one).status_code == 403
    assert other_project.put("image", f"{one}/members/{other_project.project_id}", {"status": "perhaps"}).status_code == 400
    assert member.delete("image", f"{one}/members/{other_project.project_id}").status_code == 204
    assert other_project.get("image", one).status_code == 404
    member.ok(member.delete("image", one), 204)


def test_a_protected_image(member):
    image = member.ok(member.post("image", "/images", {"name": unique("i"), "protected": True}), 201)
    assert member.delete("image", f"/images/{image['id']}").status_code == 403
    kind = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    for bad in ([{"op": "replace", "path": "/status", "value": "active"}], [{"op": "remove", "path": "/id"}], [{"op": "fly", "path": "/name"}], {"op": "add"}):
        answer = member.patch("image", f"/images/{image['id']}", bad, headers=kind)
        assert answer.status_code in (400, 403), answer.text
    assert member.patch("image", f"/images/{image['id']}", [], headers={"Content-Type": "application/json"}).status_code == 415
    member.ok(member.patch("image", f"/images/{image['id']}", [{"op": "replace", "path": "/protected", "value": False}], headers=kind), 200)
    member.ok(member.delete("image", f"/images/{image['id']}"), 204)


# All services


def test_a_system_token_reads_everything(auth):
    operator = API(auth["auth_url"], auth["username"], auth["password"], auth["project_name"], system=True)
    assert operator.ok(operator.get("identity", "/users"))["users"]


# Block Storage


def test_block_storage_has_a_backend_and_schedulers(admin):
    services = admin.ok(admin.get("volume", "/os-services"))["services"]
    assert {service["binary"] for service in services} == {"cinder-scheduler", "cinder-volume"}
    assert all(service["state"] == "up" for service in services)
    scheduler = admin.ok(admin.get("volume", "/os-services", params={"binary": "cinder-scheduler"}))["services"][0]
    answer = admin.put("volume", "/os-services/disable", {"host": scheduler["host"], "binary": "cinder-scheduler"})
    assert answer.status_code == 400 and "cinder-scheduler" in message(answer)
