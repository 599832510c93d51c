"""Access control: no token, bad tokens, revoked tokens, other projects' objects, roles."""

from datetime import datetime, timedelta, timezone

import pytest

from conftest import new_member, close
from contractapi import check_fault, unique, wait

PROTECTED = [
    ("identity", "/users"), ("compute", "/servers"), ("network", "/networks"), ("image", "/images"), ("volume", "/volumes"),
    ("placement", "/resource_providers"),
]


@pytest.mark.parametrize("service,path", PROTECTED)
@pytest.mark.parametrize("token", [None, "nonsense", "a.b.c", "x" * 5000])
def test_without_a_good_token(member, service, path, token):
    answer = member.get(service, path, token=token)
    assert answer.status_code == 401, answer.text
    assert "Keystone" in answer.headers.get("WWW-Authenticate", "")


@pytest.mark.parametrize("service,path", PROTECTED)
def test_identity_headers_from_outside_do_nothing(member, service, path):
    forged = {"X-Roles": "admin", "X-Project-Id": member.project_id, "X-User-Id": member.user_id, "X-Identity-Status": "Confirmed", "X-Is-Admin-Project": "True"}
    assert member.get(service, path, token=None, headers=forged).status_code == 401


def test_a_token_with_a_changed_byte(member):
    token = member.token
    for place in (10, len(token) // 2, len(token) - 10):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1:]
        assert member.get("compute", "/servers", token=changed).status_code == 401


def test_a_revoked_token_ends_everywhere(admin, member):
    token = member.sign_on()
    member.sign_on()
    for service, path in PROTECTED[1:5]:
        assert member.get(service, path, token=token).status_code == 200
    assert member.delete("identity", "/auth/tokens", headers={"X-Subject-Token": token}).status_code == 204
    for service, path in PROTECTED:
        wait(f"{service} refuses the revoked token", lambda: member.get(service, path, token=token).status_code == 401, 3)
        assert member.get(service, path).status_code != 401
    assert member.get("identity", "/auth/tokens", headers={"X-Subject-Token": token}).status_code in (403, 404)
    assert admin.get("identity", "/auth/tokens", headers={"X-Subject-Token": token}).status_code == 404


def test_a_disabled_user_is_out(admin):
    member = new_member(admin)
    try:
        assert member.get("compute", "/servers").status_code == 200
        admin.ok(admin.patch("identity", f"/users/{member.user_id}", {"user": {"enabled": False}}), 200)
        for service, path in PROTECTED:
            wait(f"{service} refuses a disabled user", lambda: member.get(service, path).status_code == 401, 3)
        answer = member.post("identity", "/auth/tokens", member.sign_on_body(), token=None)
        check_fault("identity", answer)
        assert answer.status_code == 401
        admin.ok(admin.patch("identity", f"/users/{member.user_id}", {"user": {"enabled": True}}), 200)
        member.sign_on()
    finally:
        close(member, admin)


def test_a_lost_role_is_lost(admin):
    member = new_member(admin)
    role = admin.ok(admin.get("identity", "/roles", params={"name": "member"}))["roles"][0]["id"]
    grant = f"/projects/{member.project_id}/users/{member.user_id}/roles/{role}"
    admin.ok(admin.delete("identity", grant), 204)
    wait("the role is gone", lambda: member.get("compute", "/servers").status_code == 401, 3)
    admin.ok(admin.put("identity", grant), 204)
    member.sign_on()
    close(member, admin)


def test_wrong_passwords_say_nothing_about_the_user(member):
    def answer(name, password):
        user = {"name": name, "password": password, "domain": {"id": "default"}}
        return member.post("identity", "/auth/tokens", {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}, token=None)

    wrong, unknown = answer(member.user, "wrong"), answer("nobody-" + unique(), "wrong")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.json() == unknown.json()


@pytest.fixture(scope="module")
def belongings(member):
    """One resource of each kind in the member's project."""
    network = member.ok(member.post("network", "/networks", {"network": {"name": unique("own")}}), 201)["network"]["id"]
    subnet = member.ok(member.post("network", "/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.55.0.0/24"}}), 201)["subnet"]["id"]
    port = member.ok(member.post("network", "/ports", {"port": {"network_id": network}}), 201)["port"]["id"]
    router = member.ok(member.post("network", "/routers", {"router": {"name": unique("own")}}), 201)["router"]["id"]
    group = member.ok(member.post("network", "/security-groups", {"security_group": {"name": unique("own")}}), 201)["security_group"]["id"]
    volume = member.ok(member.post("volume", "/volumes", {"volume": {"size": 1, "name": unique("own")}}), 202)["volume"]["id"]
    image = member.ok(member.post("image", "/images", {"name": unique("own"), "disk_format": "raw", "container_format": "bare"}), 201)["id"]
    server_group = member.ok(member.post("compute", "/os-server-groups", {"server_group": {"name": unique("own"), "policy": "affinity"}}))["server_group"]["id"]
    wait("the volume is available", lambda: member.ok(member.get("volume", f"/volumes/{volume}"))["volume"]["status"] == "available")
    return {
        "network": network, "subnet": subnet, "port": port, "router": router, "group": group, "volume": volume, "image": image,
        "server_group": server_group,
    }


FOREIGN = [
    ("network", "GET", "/networks/{network}", None), ("network", "PUT", "/networks/{network}", {"network": {"name": "mine"}}),
    ("network", "DELETE", "/networks/{network}", None), ("network", "GET", "/subnets/{subnet}", None),
    ("network", "PUT", "/subnets/{subnet}", {"subnet": {"name": "mine"}}), ("network", "DELETE", "/subnets/{subnet}", None),
    ("network", "GET", "/ports/{port}", None), ("network", "PUT", "/ports/{port}", {"port": {"name": "mine"}}),
    ("network", "DELETE", "/ports/{port}", None), ("network", "GET", "/routers/{router}", None),
    ("network", "PUT", "/routers/{router}/add_router_interface", {"subnet_id": "{subnet}"}), ("network", "DELETE", "/routers/{router}", None),
    ("network", "GET", "/security-groups/{group}", None), ("network", "DELETE", "/security-groups/{group}", None),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "{group}", "direction": "ingress"}}),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "{network}", "ip_version": 4, "cidr": "10.5.0.0/24"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "{network}"}}),
    ("volume", "GET", "/volumes/{volume}", None), ("volume", "PUT", "/volumes/{volume}", {"volume": {"name": "mine"}}),
    ("volume", "DELETE", "/volumes/{volume}", None), ("volume", "POST", "/volumes/{volume}/action", {"os-extend": {"new_size": 9}}),
    ("volume", "POST", "/snapshots", {"snapshot": {"volume_id": "{volume}"}}),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "source_volid": "{volume}"}}),
    ("image", "GET", "/images/{image}", None), ("image", "DELETE", "/images/{image}", None), ("image", "GET", "/images/{image}/file", None),
    ("compute", "GET", "/os-server-groups/{server_group}", None), ("compute", "DELETE", "/os-server-groups/{server_group}", None),
]


def put_in(value, things):
    if isinstance(value, dict):
        return {key: put_in(item, things) for key, item in value.items()}
    return value.format(**things) if isinstance(value, str) and "{" in value else value


@pytest.mark.parametrize("service,method,path,body", FOREIGN)
def test_foreign_things_do_not_exist(member, other_project, unchanged, belongings, service, method, path, body):
    with unchanged(), unchanged(other_project):
        answer = other_project.send(method, service, path.format(**belongings), put_in(body, belongings))
        check_fault(service, answer)
    assert answer.status_code == 404, answer.text


def test_a_server_with_foreign_things(other_project, belongings, unchanged, guest, nano):
    for part in ({"networks": [{"uuid": belongings["network"]}]}, {"networks": [{"port": belongings["port"]}]}, {"networks": "none", "imageRef": belongings["image"]}):
        with unchanged(other_project):
            body = {"server": {"name": "s", "imageRef": guest, "flavorRef": nano, **part}}
            answer = other_project.post("compute", "/servers", body)
            check_fault("compute", answer)
            assert answer.status_code in (400, 404)


def test_lists_show_only_ones_own(other_project, belongings):
    inventory = other_project.inventory()
    seen = {one for ids in inventory.values() for one in ids}
    assert not seen & set(belongings.values())


READERS_MAY_NOT = [
    ("network", "/networks", {"network": {"name": "n"}}), ("network", "/security-groups", {"security_group": {"name": "n"}}),
    ("volume", "/volumes", {"volume": {"size": 1}}), ("image", "/images", {"name": "i"}),
    ("compute", "/os-server-groups", {"server_group": {"name": "g", "policy": "affinity"}}),
]


@pytest.mark.parametrize("service,path,body", READERS_MAY_NOT)
def test_readers_read(reader, unchanged, service, path, body):
    with unchanged(reader):
        assert reader.get(service, path).status_code == 200
        answer = reader.post(service, path, body)
        check_fault(service, answer)
    assert answer.status_code == 403


MEMBERS_MAY_NOT = [
    ("identity", "GET", "/users", None), ("identity", "POST", "/roles", {"role": {"name": "r"}}), ("identity", "POST", "/services", {"service": {"type": "t"}}),
    ("compute", "GET", "/os-hypervisors", None), ("compute", "GET", "/os-services", None), ("compute", "GET", "/os-aggregates", None),
    ("compute", "GET", "/servers/detail?all_tenants=1", None), ("compute", "PUT", "/os-quota-sets/{project}", {"quota_set": {"cores": 999}}),
    ("network", "PUT", "/quotas/{project}", {"quota": {"network": 999}}), ("volume", "PUT", "/os-quota-sets/{project}", {"quota_set": {"volumes": 999}}),
    ("network", "GET", "/agents", None), ("volume", "GET", "/os-services", None), ("placement", "GET", "/resource_providers", None),
    ("volume", "POST", "/types", {"volume_type": {"name": "t"}}),
]


@pytest.mark.parametrize("service,method,path,body", MEMBERS_MAY_NOT)
def test_members_are_no_operators(member, unchanged, service, method, path, body):
    with unchanged():
        answer = member.send(method, service, path.format(project=member.project_id), body)
    if path == "/agents":
        # Neutron shows tenants an empty list.
        assert answer.status_code in (403, 404) or answer.json()["agents"] == []
        return
    if "all_tenants" in path:
        assert answer.status_code == 403 or all(server["tenant_id"] == member.project_id for server in answer.json()["servers"])
        return
    check_fault(service, answer)
    assert answer.status_code == 403, answer.text


def test_the_project_in_the_path_must_be_the_tokens(member, other_project):
    answer = member.send("GET", "volume", f"/v3/{other_project.project_id}/volumes", root=True)
    assert answer.status_code in (400, 403), answer.text


def test_application_credentials(member):
    name = unique("app")
    body = {"application_credential": {"name": name}}
    made = member.ok(member.post("identity", f"/users/{member.user_id}/application_credentials", body), 201)["application_credential"]
    identity = {"methods": ["application_credential"], "application_credential": {"id": made["id"], "secret": made["secret"]}}
    answer = member.post("identity", "/auth/tokens", {"auth": {"identity": identity}}, token=None)
    assert answer.status_code == 201, answer.text
    assert answer.json()["token"]["project"]["id"] == member.project_id
    token = answer.headers["X-Subject-Token"]
    assert member.get("compute", "/servers", token=token).status_code == 200
    assert member.delete("identity", f"/users/{member.user_id}/application_credentials/{made['id']}").status_code == 204
    wait("its tokens end with it", lambda: member.get("compute", "/servers", token=token).status_code == 401, 3)
    again = member.post("identity", "/auth/tokens", {"auth": {"identity": identity}}, token=None)
    assert again.status_code == 401


def test_a_token_ends_when_it_expires(member):
    """A token of an application credential expires no later than the credential."""
    end = datetime.now(timezone.utc) + timedelta(seconds=4)
    body = {"application_credential": {"name": unique("app"), "expires_at": end.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
    made = member.ok(member.post("identity", f"/users/{member.user_id}/application_credentials", body), 201)["application_credential"]
    identity = {"methods": ["application_credential"], "application_credential": {"id": made["id"], "secret": made["secret"]}}
    answer = member.post("identity", "/auth/tokens", {"auth": {"identity": identity}}, token=None)
    assert answer.status_code == 201, answer.text
    assert datetime.fromisoformat(answer.json()["token"]["expires_at"].replace("Z", "+00:00")) <= end + timedelta(seconds=1)
    token = answer.headers["X-Subject-Token"]
    assert member.get("network", "/networks", token=token).status_code == 200
    for service, path in PROTECTED:
        wait(f"{service} refuses the expired token", lambda: member.get(service, path, token=token).status_code == 401, 10)
    assert member.post("identity", "/auth/tokens", {"auth": {"identity": identity}}, token=None).status_code == 401
    past = {"application_credential": {"name": unique("app"), "expires_at": "2020-01-01T00:00:00Z"}}
    assert member.post("identity", f"/users/{member.user_id}/application_credentials", past).status_code == 400
