"""For any input, a service answers with an error in its own format: never a 5xx, never no response."""

import copy

import pytest

from contractapi import unique, wait

ODD = [
    None, "", " ", "x" * 70000, "\u0000", "a\u0000b", "é\u202e\U0001f600", "\ud7ff", "'; DROP TABLE servers; --", "%s%n", "../../etc/passwd", "<x>", "$(id)",
    0, -1, 2**31, 2**63, 2**64, 1e308, 0.5, True, [], [None], [[]], {}, {"a": None}, ["x"] * 2000,
]
WORDS = [
    "", "x", "'", "\"", "\\", "%00", "%", "*", "(", "[", "a" * 5000, "-1", "0", "99999999999999999999", "1e9", "null", "None", "true", "..", "é", "\u202e",
    "id); DROP TABLE x; --", "2026-13-45T99:99:99Z", "in:", "in:a,b", "gt:x", "gte:2026-01-01T00:00:00Z", ",", "name:sideways", "00000000-0000-0000-0000-000000000000",
]
LISTS = [
    ("network", "/networks", ["name", "limit", "marker", "sort_key", "sort_dir", "fields", "id", "shared", "router:external", "admin_state_up", "tags", "not-tags-any", "mtu", "revision_number"]),
    ("network", "/ports", ["fixed_ips", "device_id", "mac_address", "network_id", "security_groups", "status", "binding:host_id"]),
    ("network", "/subnets", ["cidr", "network_id", "ip_version", "enable_dhcp", "gateway_ip"]),
    ("network", "/security-group-rules", ["port_range_min", "direction", "protocol", "remote_ip_prefix"]),
    ("network", "/floatingips", ["floating_ip_address", "port_id", "status"]), ("network", "/routers", ["name", "status", "project_id"]),
    ("compute", "/servers/detail", ["name", "status", "flavor", "image", "ip", "ip6", "limit", "marker", "sort_key", "sort_dir", "changes-since", "changes-before", "tags", "tags-any", "not-tags", "locked", "deleted", "all_tenants", "reservation_id", "availability_zone", "host"]),
    ("compute", "/flavors/detail", ["minRam", "minDisk", "is_public", "sort_key", "sort_dir", "limit", "marker"]),
    ("compute", "/os-keypairs", ["limit", "marker", "user_id"]), ("compute", "/os-server-groups", ["limit", "offset", "all_projects"]),
    ("volume", "/volumes/detail", ["name", "status", "limit", "marker", "offset", "sort", "sort_key", "metadata", "bootable", "all_tenants", "created_at", "availability_zone"]),
    ("volume", "/snapshots/detail", ["name", "status", "volume_id", "sort", "limit", "marker"]), ("volume", "/types", ["is_public", "sort", "limit"]),
    ("image", "/images", ["name", "status", "visibility", "owner", "tag", "size_min", "size_max", "created_at", "updated_at", "sort", "sort_key", "sort_dir", "id", "limit", "marker", "member_status", "os_hidden", "protected", "disk_format"]),
    ("identity", "/auth/projects", ["name", "limit", "marker"]),
]
OPERATOR_LISTS = [
    ("identity", "/users", ["name", "domain_id", "enabled", "limit", "marker", "name__contains", "sort_key", "password_expires_at"]),
    ("identity", "/projects", ["name", "domain_id", "parent_id", "is_domain", "enabled", "tags"]), ("identity", "/role_assignments", ["user.id", "scope.project.id", "effective", "include_names"]),
    ("placement", "/resource_providers", ["name", "uuid", "member_of", "resources", "in_tree", "required"]),
    ("placement", "/allocation_candidates", ["resources", "required", "member_of", "limit", "group_policy", "resources1"]),
    ("compute", "/os-hypervisors/detail", ["limit", "marker", "hypervisor_hostname_pattern"]), ("compute", "/os-services", ["binary", "host"]),
]


def check(answer):
    assert answer.status_code < 500 or answer.status_code == 501, f"{answer.request.method} {answer.url[:300]} {str(answer.request.body)[:300]}: {answer.status_code} {answer.text[:300]}"
    return answer


@pytest.mark.parametrize("service,path,names", LISTS, ids=[path for _, path, _ in LISTS])
def test_odd_queries(member, service, path, names):
    for name in [*names, "nonsense"]:
        for word in WORDS:
            check(member.get(service, path, params={name: word}))
    check(member.get(service, path + "?" + "&".join(f"name=n{number}" for number in range(500))))
    check(member.get(service, path + "?%zz=%zz&=&&a"))


@pytest.mark.parametrize("service,path,names", OPERATOR_LISTS, ids=[path for _, path, _ in OPERATOR_LISTS])
def test_odd_queries_of_operators(admin, service, path, names):
    for name in names:
        for word in WORDS:
            check(admin.get(service, path, params={name: word}))


IDS = ["x", "%00", "%2e%2e%2f", "a%2fb", "%ff", "x" * 3000, "%20", "'", "0", "-1", "00000000-0000-0000-0000-000000000000", "%F0%9F%98%80", "{id}", "None"]
ITEMS = [
    ("network", "/networks/{}"), ("network", "/ports/{}"), ("network", "/floatingips/{}"), ("network", "/quotas/{}"), ("network", "/extensions/{}"),
    ("compute", "/servers/{}"), ("compute", "/flavors/{}"), ("compute", "/os-keypairs/{}"), ("compute", "/servers/{}/os-interface"), ("compute", "/os-quota-sets/{}"),
    ("volume", "/volumes/{}"), ("volume", "/snapshots/{}"), ("volume", "/types/{}"), ("volume", "/attachments/{}"), ("image", "/images/{}"), ("image", "/images/{}/file"),
    ("identity", "/users/{}"), ("identity", "/projects/{}"), ("placement", "/resource_providers/{}"), ("placement", "/allocations/{}"), ("placement", "/traits/{}"),
]


@pytest.mark.parametrize("service,path", ITEMS, ids=[path for _, path in ITEMS])
def test_odd_ids(admin, service, path):
    for text in IDS:
        for method in ("GET", "DELETE", "PUT", "PATCH"):
            check(admin.send(method, service, path.format(text), {}))


@pytest.fixture(scope="module")
def bodies(member, guest, nano, public):
    network = member.ok(member.post("network", "/networks", {"network": {"name": unique("odd")}}), 201)["network"]["id"]
    member.ok(member.post("network", "/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.99.0.0/24"}}), 201)
    group = member.ok(member.post("network", "/security-groups", {"security_group": {"name": unique("odd")}}), 201)["security_group"]["id"]
    return {
        "network": ("network", "/networks", {"network": {"name": "n", "description": "d", "admin_state_up": True, "mtu": 1400, "port_security_enabled": True, "availability_zone_hints": []}}),
        "subnet": ("network", "/subnets", {"subnet": {
            "network_id": network, "ip_version": 4, "cidr": "10.98.0.0/24", "name": "n", "gateway_ip": "10.98.0.1", "enable_dhcp": True, "dns_nameservers": ["1.1.1.1"],
            "allocation_pools": [{"start": "10.98.0.5", "end": "10.98.0.9"}], "host_routes": [{"destination": "10.1.0.0/16", "nexthop": "10.98.0.2"}], "service_types": []}}),
        "port": ("network", "/ports", {"port": {
            "network_id": network, "name": "n", "fixed_ips": [{"ip_address": "10.99.0.77"}], "security_groups": [group], "allowed_address_pairs": [{"ip_address": "10.99.0.78"}],
            "mac_address": "fa:16:3e:00:00:01", "device_id": "d", "device_owner": "o", "extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": "1400"}], "binding:vnic_type": "normal"}}),
        "router": ("network", "/routers", {"router": {"name": "n", "admin_state_up": True, "external_gateway_info": {"network_id": public, "enable_snat": True}}}),
        "floatingip": ("network", "/floatingips", {"floatingip": {"floating_network_id": public, "description": "d", "port_id": None, "fixed_ip_address": None}}),
        "security_group_rule": ("network", "/security-group-rules", {"security_group_rule": {
            "security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "port_range_min": 5, "port_range_max": 6, "remote_ip_prefix": "10.0.0.0/8"}}),
        "server_group": ("compute", "/os-server-groups", {"server_group": {"name": "n", "policy": "anti-affinity", "rules": {"max_server_per_host": 2}}}),
        "keypair": ("compute", "/os-keypairs", {"keypair": {"name": "n", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMgZ0p2ZmFrZWtleWZha2VrZXlmYWtla2V5ZmFrZWtl t", "type": "ssh"}}),
        "server": ("compute", "/servers", {"server": {
            "name": "n", "imageRef": guest, "flavorRef": nano, "networks": [{"uuid": network, "fixed_ip": "10.99.0.80", "tag": "t"}], "metadata": {"k": "v"}, "tags": ["t"], "security_groups": [{"name": group}],
            "user_data": "aGVsbG8=", "availability_zone": "nova", "config_drive": True, "min_count": 1, "max_count": 1, "description": "d", "OS-DCF:diskConfig": "AUTO", "accessIPv4": "1.2.3.4",
            "hostname": "h", "block_device_mapping_v2": [{"boot_index": 0, "uuid": guest, "source_type": "image", "destination_type": "local"}]}, "os:scheduler_hints": {"group": "x"}}),
        "volume": ("volume", "/volumes", {"volume": {
            "name": "n", "size": 1, "description": "d", "metadata": {"k": "v"}, "volume_type": None, "imageRef": None, "snapshot_id": None, "source_volid": None, "availability_zone": None, "multiattach": False},
            "OS-SCH-HNT:scheduler_hints": {}}),
        "snapshot": ("volume", "/snapshots", {"snapshot": {"volume_id": "x", "name": "n", "force": True, "metadata": {}}}),
        "image": ("image", "/images", {
            "name": "n", "disk_format": "raw", "container_format": "bare", "visibility": "private", "min_disk": 0, "min_ram": 0, "protected": False, "tags": ["t"], "os_hidden": False, "custom": "c"}),
        "token": ("identity", "/auth/tokens", {"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": "n", "password": "p", "domain": {"id": "default", "name": "Default"}}}, "token": {"id": "x"},
                         "application_credential": {"id": "a", "secret": "s"}}, "scope": {"project": {"id": "x", "name": "n", "domain": {"id": "default"}}}}}),
        "application_credential": ("identity", f"/users/{member.user_id}/application_credentials", {"application_credential": {
            "name": "n", "description": "d", "roles": [{"name": "member"}], "expires_at": "2030-01-01T00:00:00Z", "unrestricted": False, "secret": "s"}}),
    }


def places(value, path=()):
    """The paths of all values in a document, including the root."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def replaced(value, path, new):
    if not path:
        return new
    value = copy.deepcopy(value)
    target = value
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = new
    return value


KINDS = [
    "network", "subnet", "port", "router", "floatingip", "security_group_rule", "server_group", "keypair", "server", "volume", "snapshot", "image", "token", "application_credential",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_of_a_body_with_every_odd_value(member, bodies, kind):
    service, path, body = bodies[kind]
    made = []
    for place in places(body):
        for odd in ODD:
            answer = check(member.post(service, path, replaced(body, place, odd), token=kind != "token"))
            if answer.status_code < 300:
                made.append((service, path, answer.json()))
                discard(member, *made[-1])
    if kind == "server":
        wait("the servers are gone", lambda: not member.ok(member.get("compute", "/servers"))["servers"])


def discard(member, service, path, answer):
    """Deletes resources that were created unexpectedly."""
    objects = answer if "id" in answer else next(iter(answer.values()))
    if isinstance(objects, str):
        for server in member.ok(member.get("compute", "/servers"))["servers"]:
            member.delete("compute", f"/servers/{server['id']}")
        return
    for item in objects if isinstance(objects, list) else [objects]:
        one = item.get("id") or item.get("name")
        if service == "volume":
            wait("it can be deleted", lambda: member.delete(service, f"{path}/{one}").status_code in (202, 404), 30)
        elif service == "image":
            member.delete_image(one)
        elif not path.startswith("/auth"):
            member.delete(service, f"{path}/{item['name'] if path == '/os-keypairs' else one}")
