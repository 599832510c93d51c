"""Requests that must be refused: each with a 4xx in the service's format that names field, value and rule, and without any effect."""

import pytest

from contractapi import check_fault, message, unique

LONG = "x" * 300
NOWHERE = "deadbeef-0000-4000-8000-000000000000"

# service, method, path, body, status, words that the message must contain
CASES = [
    # Names and texts
    ("network", "POST", "/networks", {"network": {"name": LONG}}, 400, ["name", "255"]),
    ("network", "POST", "/routers", {"router": {"name": LONG}}, 400, ["name", "255"]),
    ("network", "POST", "/security-groups", {"security_group": {"name": LONG}}, 400, ["name", "255"]),
    ("network", "POST", "/networks", {"network": {"name": 5}}, 400, ["name", "5"]),
    ("network", "POST", "/networks", {"network": {"admin_state_up": "perhaps"}}, 400, ["admin_state_up", "perhaps"]),
    ("network", "POST", "/networks", {"network": {"nonsense": 1}}, 400, ["nonsense"]),
    ("network", "POST", "/networks", {"network": {"mtu": -1}}, 400, ["mtu", "-1"]),
    ("network", "POST", "/networks", {"networks": "x"}, 400, ["networks"]),
    ("network", "POST", "/networks", {}, 400, ["network"]),
    ("network", "POST", "/networks", [], 400, []),
    ("compute", "POST", "/os-server-groups", {"server_group": {"name": LONG, "policy": "affinity"}}, 400, ["name", "255"]),
    ("compute", "POST", "/os-server-groups", {"server_group": {"name": "g", "policy": "love"}}, 400, ["policy", "love"]),
    ("compute", "POST", "/os-server-groups", {"server_group": {"name": "g", "policy": "affinity", "nonsense": 1}}, 400, ["nonsense"]),
    ("compute", "POST", "/os-keypairs", {"keypair": {"name": LONG, "public_key": "ssh-rsa AAAA"}}, 400, ["name", "255"]),
    ("compute", "POST", "/os-keypairs", {"keypair": {"name": "k", "public_key": "no key"}}, 400, ["key"]),
    ("compute", "POST", "/os-keypairs", {"keypair": {"public_key": "no key"}}, 400, ["name"]),
    ("volume", "POST", "/volumes", {"volume": {"name": LONG, "size": 1}}, 400, ["name", "255"]),
    ("volume", "POST", "/volumes", {"volume": {"size": "much"}}, 400, ["size", "much"]),
    ("volume", "POST", "/volumes", {"volume": {"size": 0}}, 400, ["size", "0"]),
    ("volume", "POST", "/volumes", {"volume": {"size": -4}}, 400, ["size", "-4"]),
    ("volume", "POST", "/volumes", {"volume": {"name": "v"}}, 400, ["size"]),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "volume_type": "no-such-type"}}, 404, ["no-such-type"]),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "imageRef": NOWHERE}}, 400, [NOWHERE]),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "snapshot_id": NOWHERE}}, 404, [NOWHERE]),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "source_volid": NOWHERE}}, 404, [NOWHERE]),
    ("volume", "POST", "/snapshots", {"snapshot": {"volume_id": NOWHERE}}, 404, [NOWHERE]),
    ("image", "POST", "/images", {"name": LONG}, 400, ["name", "255"]),
    ("image", "POST", "/images", {"disk_format": "floppy"}, 400, ["disk_format", "floppy"]),
    ("image", "POST", "/images", {"container_format": "box"}, 400, ["container_format", "box"]),
    ("image", "POST", "/images", {"min_disk": -1}, 400, ["min_disk", "-1"]),
    ("image", "POST", "/images", {"visibility": "sideways"}, 400, ["visibility", "sideways"]),
    ("image", "POST", "/images", {"name": "i", "status": "active"}, 403, ["status"]),
    ("image", "POST", "/images", {"name": "i", "id": "no-uuid"}, 400, ["id"]),
    # Addresses
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.0.0.0/33"}}, 400, ["cidr", "10.0.0.0/33"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "300.0.0.0/24"}}, 400, ["cidr", "300.0.0.0/24"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "lan"}}, 400, ["cidr", "lan"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 6, "cidr": "10.9.0.0/24"}}, 400, ["ip_version"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 5, "cidr": "10.9.0.0/24"}}, 400, ["ip_version", "5"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": NOWHERE, "ip_version": 4, "cidr": "10.9.0.0/24"}}, 404, [NOWHERE]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.66.0.128/25"}}, 400, ["10.66.0.128/25", "overlap"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.9.0.0/24", "gateway_ip": "10.9.0.0"}}, 400, ["10.9.0.0"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.9.0.0/24", "gateway_ip": "router"}}, 400, ["gateway_ip", "router"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.9.0.0/24", "allocation_pools": [{"start": "10.9.0.20", "end": "10.9.0.10"}]}}, 400, ["10.9.0.20"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.9.0.0/24", "allocation_pools": [{"start": "10.8.0.2", "end": "10.8.0.9"}]}}, 400, ["10.8.0.2"]),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "NET", "ip_version": 4, "cidr": "10.9.0.0/24", "dns_nameservers": ["dns"]}}, 400, ["dns"]),
    ("network", "POST", "/ports", {"port": {"network_id": NOWHERE}}, 404, [NOWHERE]),
    ("network", "POST", "/ports", {"port": {"network_id": "NET", "mac_address": "aa:bb"}}, 400, ["mac_address", "aa:bb"]),
    ("network", "POST", "/ports", {"port": {"network_id": "NET", "fixed_ips": [{"ip_address": "10.66.9.9"}]}}, 400, ["10.66.9.9"]),
    ("network", "POST", "/ports", {"port": {"network_id": "NET", "fixed_ips": [{"ip_address": "10.66.0.1"}]}}, 409, ["10.66.0.1"]),
    ("network", "POST", "/ports", {"port": {"network_id": "NET", "security_groups": [NOWHERE]}}, 404, [NOWHERE]),
    ("network", "POST", "/ports", {"port": {"network_id": "NET", "binding:host_id": "elsewhere"}}, 403, []),
    ("network", "POST", "/networks", {"network": {"name": "n", "router:external": True}}, 403, []),
    ("network", "POST", "/networks", {"network": {"name": "n", "shared": True}}, 403, []),
    ("network", "POST", "/networks", {"network": {"name": "n", "provider:network_type": "vlan"}}, 403, []),
    # Rules
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": NOWHERE, "direction": "ingress"}}, 404, [NOWHERE]),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "GROUP", "direction": "sideways"}}, 400, ["direction", "sideways"]),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "protocol": "smoke"}}, 400, ["protocol", "smoke"]),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "protocol": "tcp", "port_range_min": 90, "port_range_max": 80}}, 400, ["port_range_m"]),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "protocol": "tcp", "port_range_min": 1, "port_range_max": 70000}}, 400, ["70000"]),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "port_range_min": 1, "port_range_max": 2}}, 400, ["protocol"]),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "remote_ip_prefix": "10.0.0.0/40"}}, 400, ["remote_ip_prefix", "10.0.0.0/40"]),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "ethertype": "IPv6", "remote_ip_prefix": "10.0.0.0/8"}}, 400, ["10.0.0.0/8"]),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "GROUP", "direction": "ingress", "remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "GROUP"}}, 400, ["remote"]),
    # Routers and floating IPs
    ("network", "POST", "/routers", {"router": {"external_gateway_info": {"network_id": NOWHERE}}}, 404, [NOWHERE]),
    ("network", "POST", "/routers", {"router": {"external_gateway_info": {"network_id": "NET"}}}, 400, ["external"]),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": NOWHERE}}, 404, [NOWHERE]),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": "NET"}}, 400, ["external"]),
    ("network", "POST", "/floatingips", {"floatingip": {}}, 400, ["floating_network_id"]),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": "PUBLIC", "port_id": NOWHERE}}, 404, [NOWHERE]),
    # Servers
    ("compute", "POST", "/servers", {"server": {"name": LONG, "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none"}}, 400, ["name", "255"]),
    ("compute", "POST", "/servers", {"server": {"name": "", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none"}}, 400, ["name"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "networks": "none"}}, 400, ["flavorRef"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": NOWHERE, "flavorRef": "NANO", "networks": "none"}}, 400, [NOWHERE]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "no-such-flavor", "networks": "none"}}, 400, ["no-such-flavor"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO"}}, 400, ["networks"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": [{"uuid": NOWHERE}]}}, 400, [NOWHERE]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": [{"port": NOWHERE}]}}, 400, [NOWHERE]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": [{"uuid": "NET", "fixed_ip": "10.1.1.1"}]}}, 400, ["10.1.1.1"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none", "key_name": "no-such-key"}}, 400, ["no-such-key"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": [{"uuid": "NET"}], "security_groups": [{"name": "no-such-group"}]}}, 400, ["no-such-group"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none", "metadata": {"k": LONG}}}, 400, ["metadata"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none", "user_data": "not base64!"}}, 400, ["user_data"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none", "nonsense": 1}}, 400, ["nonsense"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none", "min_count": 0}}, 400, ["min_count"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none", "min_count": 3, "max_count": 2}}, 400, ["min_count"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none", "availability_zone": "atlantis"}}, 400, ["atlantis"]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "imageRef": "IMAGE", "flavorRef": "NANO", "networks": "none"}, "os:scheduler_hints": {"group": NOWHERE}}, 400, [NOWHERE]),
    ("compute", "POST", "/servers", {"server": {"name": "s", "flavorRef": "NANO", "networks": "none"}}, 400, []),
    ("compute", "POST", f"/servers/{NOWHERE}/action", {"os-start": None}, 404, [NOWHERE]),
    ("compute", "GET", f"/servers/{NOWHERE}", None, 404, [NOWHERE]),
    ("compute", "GET", "/servers/not-a-uuid", None, 404, ["not-a-uuid"]),
    ("compute", "POST", "/flavors", {"flavor": {"name": "f", "ram": 64, "vcpus": 1, "disk": 1}}, 403, []),
    ("network", "GET", "/networks/not-a-uuid", None, 404, ["not-a-uuid"]),
    ("volume", "GET", "/volumes/not-a-uuid", None, 404, ["not-a-uuid"]),
    ("image", "GET", "/images/not-a-uuid", None, 404, ["not-a-uuid"]),
    ("identity", "POST", "/auth/tokens", {"auth": {"identity": {"methods": ["password"]}}}, 400, ["password"]),
    ("identity", "POST", "/auth/tokens", {"auth": {}}, 400, ["identity"]),
    ("identity", "POST", "/auth/tokens", {"auth": {"identity": {"methods": ["magic"], "magic": {}}}}, 401, []),
]


@pytest.fixture(scope="module")
def names(member, guest, nano, public):
    """The values of the placeholders."""
    network = member.ok(member.post("network", "/networks", {"network": {"name": unique("bad")}}), 201)["network"]["id"]
    member.ok(member.post("network", "/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.66.0.0/24"}}), 201)
    router = member.ok(member.post("network", "/routers", {"router": {"name": unique("bad")}}), 201)["router"]["id"]
    subnet = member.ok(member.get("network", "/subnets", params={"network_id": network}))["subnets"][0]["id"]
    member.ok(member.put("network", f"/routers/{router}/add_router_interface", {"subnet_id": subnet}), 200)
    group = member.ok(member.post("network", "/security-groups", {"security_group": {"name": unique("bad")}}), 201)["security_group"]["id"]
    return {"NET": network, "GROUP": group, "IMAGE": guest, "NANO": nano, "PUBLIC": public, "ROUTER": router}


def filled(value, names):
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}-{str(case[3])[:60]}")
def test_it_is_refused(member, names, unchanged, case):
    service, method, path, body, status, words = case
    with unchanged():
        answer = member.send(method, service, path, filled(body, names))
        check_fault(service, answer)
    assert answer.status_code == status, answer.text
    for word in words:
        assert word.lower() in message(answer).lower(), f"{word!r} is not named: {message(answer)}"


BODIES = ['{"network": ', "[1, 2", "\x00", '{"network": {"name": "a", "name": "b"}}', '{"a": NaN}', "nonsense"]
POSTS = [("network", "/networks"), ("compute", "/servers"), ("volume", "/volumes"), ("image", "/images"), ("identity", "/auth/tokens")]


@pytest.mark.parametrize("service,path", POSTS)
@pytest.mark.parametrize("data", BODIES)
def test_malformed_json(member, unchanged, service, path, data):
    with unchanged():
        answer = member.send("POST", service, path, data=data.encode(), headers={"Content-Type": "application/json"})
        check_fault(service, answer)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("service,path", POSTS)
def test_deep_json(member, unchanged, service, path):
    with unchanged():
        answer = member.send("POST", service, path, data=b"[" * 20000, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("service,path", POSTS[:4])
def test_a_body_that_is_too_large(member, unchanged, service, path):
    with unchanged():
        data = b'{"a": "' + b"x" * (64 << 20) + b'"}'
        try:
            answer = member.send("POST", service, path, data=data, headers={"Content-Type": "application/json"})
            assert answer.status_code in (400, 413), answer.text
        except OSError:
            pass  # The service closed the connection early.


def test_overlapping_subnets_on_one_router(member, names, unchanged):
    other = member.ok(member.post("network", "/networks", {"network": {"name": unique("bad")}}), 201)["network"]["id"]
    subnet = member.ok(member.post("network", "/subnets", {"subnet": {"network_id": other, "ip_version": 4, "cidr": "10.66.0.0/16"}}), 201)["subnet"]["id"]
    with unchanged():
        answer = member.put("network", f"/routers/{names['ROUTER']}/add_router_interface", {"subnet_id": subnet})
        check_fault("network", answer)
    assert answer.status_code == 400 and "10.66.0.0/16" in message(answer) and "10.66.0.0/24" in message(answer)
    member.ok(member.delete("network", f"/networks/{other}"), 204)


def test_a_network_in_use_stays(member, names, unchanged):
    with unchanged():
        answer = member.delete("network", f"/networks/{names['NET']}")
        check_fault("network", answer)
        assert answer.status_code == 409 and answer.json()["NeutronError"]["type"] == "NetworkInUse"
        router = member.delete("network", f"/routers/{names['ROUTER']}")
        assert router.status_code == 409 and router.json()["NeutronError"]["type"] == "RouterInUse"


def test_an_image_that_is_not_what_it_says(member):
    for disk_format, data in [("qcow2", b"not qcow2" * 100), ("qcow2", b"QFI\xfb" + b"\x00" * 600)]:
        image = member.ok(member.post("image", "/images", {"name": unique("bad"), "disk_format": disk_format, "container_format": "bare"}), 201)
        answer = member.put("image", f"/images/{image['id']}/file", data=data, headers={"Content-Type": "application/octet-stream"})
        assert answer.status_code in (400, 415), answer.text
        assert disk_format in message(answer)
        assert member.ok(member.get("image", f"/images/{image['id']}"))["status"] in ("queued", "killed")
        member.delete("image", f"/images/{image['id']}")


def test_a_qcow2_with_a_backing_file_is_refused(member):
    name = b"/etc/passwd"
    header = bytearray(b"QFI\xfb" + (3).to_bytes(4, "big") + (1024).to_bytes(8, "big") + len(name).to_bytes(4, "big"))
    header += (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big") + b"\x00" * 512
    header[96:104] = (0).to_bytes(4, "big") + (104).to_bytes(4, "big")
    header += b"\x00" * (1024 - len(header)) + name + b"\x00" * 65536
    image = member.ok(member.post("image", "/images", {"name": unique("bad"), "disk_format": "qcow2", "container_format": "bare"}), 201)
    answer = member.put("image", f"/images/{image['id']}/file", data=bytes(header), headers={"Content-Type": "application/octet-stream"})
    assert answer.status_code in (400, 415) and "backing" in message(answer).lower(), answer.text
    member.delete("image", f"/images/{image['id']}")
