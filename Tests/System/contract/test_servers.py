"""Actions on a running server and their states, refusals, volumes, interfaces, addresses, metadata."""

import pytest

from contractapi import check_fault, message, unique, wait


@pytest.fixture(scope="module")
def place(member, public):
    """A network behind a router to the outside."""
    network = member.ok(member.post("network", "/networks", {"network": {"name": unique("net")}}), 201)["network"]["id"]
    subnet = member.ok(member.post("network", "/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.33.0.0/24"}}), 201)["subnet"]["id"]
    router = member.ok(member.post("network", "/routers", {"router": {"external_gateway_info": {"network_id": public}}}), 201)["router"]["id"]
    member.ok(member.put("network", f"/routers/{router}/add_router_interface", {"subnet_id": subnet}), 200)
    return {"network": network, "subnet": subnet, "router": router}


@pytest.fixture(scope="module")
def server(member, place, guest, nano):
    body = {"server": {"name": unique("srv"), "imageRef": guest, "flavorRef": nano, "networks": [{"uuid": place["network"]}], "metadata": {"a": "1"}, "tags": ["red"]}}
    made = member.ok(member.post("compute", "/servers", body), 202)["server"]
    return reach(member, made["id"], "ACTIVE")


def show(member, server_id):
    return member.ok(member.get("compute", f"/servers/{server_id}"))["server"]


def reach(member, server_id, status, limit=180):
    def arrived():
        server = show(member, server_id)
        assert server["status"] != "ERROR" or status == "ERROR", server.get("fault")
        return server if server["status"] == status and not server["OS-EXT-STS:task_state"] else None

    return wait(f"the server is {status}", arrived, limit)


def delete(member, server):
    """Deletes the server and waits until it is gone, so that the next test compares a project at rest."""
    member.ok(member.delete("compute", f"/servers/{server['id']}"), 204)
    wait("the server is gone", lambda: member.get("compute", f"/servers/{server['id']}").status_code == 404)


def act(member, server, body):
    return member.post("compute", f"/servers/{server['id']}/action", body)


def test_a_security_group_is_on_all_ports_or_none(member, place, guest, nano):
    network = [{"uuid": place["network"]}, {"uuid": place["network"]}]
    body = {"server": {"name": unique("two"), "imageRef": guest, "flavorRef": nano, "networks": network}}
    server = reach(member, member.ok(member.post("compute", "/servers", body), 202)["server"]["id"], "ACTIVE")

    def groups():
        ports = member.ok(member.get("network", "/ports", params={"device_id": server["id"]}))["ports"]
        return [set(port["security_groups"]) for port in ports]

    before = groups()
    group = member.ok(member.post("network", "/security-groups", {"security_group": {"name": unique("extra")}}), 201)["security_group"]["id"]
    assert act(member, server, {"addSecurityGroup": {"name": group}}).status_code == 202
    assert groups() == [one | {group} for one in before]
    assert act(member, server, {"removeSecurityGroup": {"name": group}}).status_code == 202
    assert groups() == before
    answer = member.put("network", "/wolke/port-security-groups", {"port_security_groups": {"ports": [place["network"]], "add": group}})
    assert answer.status_code == 403
    delete(member, server)


def test_a_flavor_without_a_disk_boots_volumes_only(admin, member, place, guest):
    flavor = {"name": unique("zero"), "ram": 64, "vcpus": 1, "disk": 0}
    flavor = admin.ok(admin.post("compute", "/flavors", {"flavor": flavor}))["flavor"]["id"]
    body = {"server": {"name": unique("z"), "imageRef": guest, "flavorRef": flavor, "networks": [{"uuid": place["network"]}]}}
    answer = member.post("compute", "/servers", body)
    assert answer.status_code == 403 and "zero disk" in message(answer)
    admin.ok(admin.delete("compute", f"/flavors/{flavor}"), 202)


# action, state afterwards, actions that must be refused then
ROUND = [
    ({"pause": None}, "PAUSED", [{"pause": None}, {"os-stop": None}, {"suspend": None}]),
    ({"unpause": None}, "ACTIVE", [{"unpause": None}, {"resume": None}, {"os-start": None}]),
    ({"suspend": None}, "SUSPENDED", [{"suspend": None}, {"pause": None}]),
    ({"resume": None}, "ACTIVE", []),
    ({"os-stop": None}, "SHUTOFF", [{"os-stop": None}, {"pause": None}, {"suspend": None}, {"reboot": {"type": "SOFT"}}]),
    ({"os-start": None}, "ACTIVE", [{"os-start": None}]),
    ({"reboot": {"type": "HARD"}}, "ACTIVE", []),
]


def test_state_transitions(member, server, unchanged):
    for action, status, refused in ROUND:
        answer = act(member, server, action)
        assert answer.status_code == 202 and not answer.content, f"{action}: {answer.status_code} {answer.text}"
        reach(member, server["id"], status)
        for other in refused:
            with unchanged():
                answer = act(member, server, other)
                check_fault("compute", answer)
            assert answer.status_code == 409, f"{other} when {status}: {answer.text}"
            assert server["id"] in message(answer)
            assert show(member, server["id"])["status"] == status


BAD_ACTIONS = [
    ({"reboot": {"type": "GENTLE"}}, "GENTLE"), ({"reboot": {}}, "type"), ({"reboot": None}, "reboot"), ({"fly": None}, "fly"), ({}, ""),
    ({"os-getConsoleOutput": {"length": "many"}}, "many"), ({"addSecurityGroup": {}}, "name"),
]


@pytest.mark.parametrize("body,word", BAD_ACTIONS, ids=[str(body) for body, _ in BAD_ACTIONS])
def test_bad_actions(member, server, unchanged, body, word):
    with unchanged():
        answer = act(member, server, body)
        check_fault("compute", answer)
    assert answer.status_code == 400 and word in message(answer), answer.text


def test_a_locked_server(member, server, admin):
    assert act(member, server, {"lock": {"locked_reason": "holiday"}}).status_code == 202
    shown = show(member, server["id"])
    assert shown["locked"] and shown["locked_reason"] == "holiday"
    for refused in ({"os-stop": None}, {"reboot": {"type": "SOFT"}}):
        answer = act(member, server, refused)
        assert answer.status_code == 409 and server["id"] in message(answer)
    assert member.delete("compute", f"/servers/{server['id']}").status_code == 409
    assert act(member, server, {"unlock": None}).status_code == 202
    assert not show(member, server["id"])["locked"]


def test_the_console(member, server):
    def text():
        return member.ok(act(member, server, {"os-getConsoleOutput": {"length": 20}}), 200)["output"]

    assert wait("the console says something", text, 60)
    assert len(text().splitlines()) <= 20


def test_metadata(member, server, unchanged):
    path = f"/servers/{server['id']}/metadata"
    assert member.ok(member.get("compute", path)) == {"metadata": {"a": "1"}}
    assert member.ok(member.post("compute", path, {"metadata": {"b": "2"}}), 200) == {"metadata": {"a": "1", "b": "2"}}
    assert member.ok(member.put("compute", path + "/a", {"meta": {"a": "3"}}), 200) == {"meta": {"a": "3"}}
    assert member.ok(member.get("compute", path + "/a"), 200) == {"meta": {"a": "3"}}
    assert member.delete("compute", path + "/b").status_code == 204
    assert member.get("compute", path + "/b").status_code == 404
    assert member.ok(member.put("compute", path, {"metadata": {"only": "x"}}), 200) == {"metadata": {"only": "x"}}
    for bad in ({"metadata": {"k": 5}}, {"metadata": {"k" * 300: "v"}}, {"metadata": {"k": "v" * 300}}, {}):
        answer = member.post("compute", path, bad)
        check_fault("compute", answer)
        assert answer.status_code == 400
    too_many = {"metadata": {f"k{number}": "v" for number in range(200)}}
    answer = member.post("compute", path, too_many)
    assert answer.status_code in (403, 413), answer.text
    assert member.ok(member.get("compute", path)) == {"metadata": {"only": "x"}}


def test_tags(member, server):
    path = f"/servers/{server['id']}/tags"
    assert member.ok(member.get("compute", path), 200) == {"tags": ["red"]}
    assert member.put("compute", path + "/blue").status_code in (201, 204)
    assert sorted(member.ok(member.get("compute", path))["tags"]) == ["blue", "red"]
    assert member.get("compute", path + "/blue").status_code == 204
    assert member.get("compute", path + "/green").status_code == 404
    for query, hits in ({"tags": "red,blue"}, 1), ({"tags": "green"}, 0), ({"tags-any": "green,red"}, 1), ({"not-tags": "red"}, 0):
        found = member.ok(member.get("compute", "/servers", params=query))["servers"]
        assert sum(row["id"] == server["id"] for row in found) == hits, query
    assert member.delete("compute", path + "/blue").status_code == 204
    assert member.put("compute", path, {"tags": ["x" * 100]}).status_code == 400


def test_rename(member, server):
    path = f"/servers/{server['id']}"
    changed = member.ok(member.put("compute", path, {"server": {"name": "new-name", "description": "text"}}), 200)["server"]
    assert changed["name"] == "new-name" and changed["description"] == "text"
    for bad, word in (({"server": {"name": ""}}, "name"), ({"server": {"nonsense": 1}}, "nonsense"), ({"server": {"accessIPv4": "here"}}, "accessIPv4")):
        answer = member.put("compute", path, bad)
        check_fault("compute", answer)
        assert answer.status_code == 400 and word in message(answer)


def test_a_volume_comes_and_goes(member, server, other_project, unchanged):
    volume = member.ok(member.post("volume", "/volumes", {"volume": {"name": unique("v"), "size": 1}}), 202)["volume"]["id"]

    def status(wanted):
        wait(f"the volume is {wanted}", lambda: member.ok(member.get("volume", f"/volumes/{volume}"))["volume"]["status"] == wanted)

    status("available")
    path = f"/servers/{server['id']}/os-volume_attachments"
    attached = member.ok(member.post("compute", path, {"volumeAttachment": {"volumeId": volume, "device": None}}), 200)["volumeAttachment"]
    assert attached["volumeId"] == volume and attached["serverId"] == server["id"] and attached["device"].startswith("/dev/")
    status("in-use")
    shown = member.ok(member.get("volume", f"/volumes/{volume}"))["volume"]["attachments"]
    assert shown[0]["server_id"] == server["id"] and shown[0]["device"] == attached["device"]
    assert [row["volumeId"] for row in member.ok(member.get("compute", path))["volumeAttachments"]] == [volume]
    assert volume in [row["id"] for row in show(member, server["id"])["os-extended-volumes:volumes_attached"]]
    for refused in (
        member.post("compute", path, {"volumeAttachment": {"volumeId": volume}}),
        member.delete("volume", f"/volumes/{volume}"),
        member.post("compute", path, {"volumeAttachment": {"volumeId": "deadbeef-0000-4000-8000-000000000000"}}),
        other_project.post("compute", path, {"volumeAttachment": {"volumeId": volume}}),
        other_project.delete("compute", f"{path}/{volume}"),
    ):
        assert 400 <= refused.status_code < 500, refused.text
    assert member.delete("compute", f"{path}/{volume}").status_code == 202
    status("available")
    wait("the attachment is gone", lambda: not member.ok(member.get("compute", path))["volumeAttachments"])
    assert member.delete("compute", f"{path}/{volume}").status_code == 404
    member.ok(member.delete("volume", f"/volumes/{volume}"), 202)
    wait("the volume is gone", lambda: member.get("volume", f"/volumes/{volume}").status_code == 404)


def test_an_interface_comes_and_goes(member, server, place, unchanged):
    path = f"/servers/{server['id']}/os-interface"
    first = member.ok(member.get("compute", path))["interfaceAttachments"]
    assert len(first) == 1 and first[0]["net_id"] == place["network"]
    assert set(first[0]) >= {"port_id", "net_id", "mac_addr", "port_state", "fixed_ips"}
    with unchanged():
        added = member.ok(member.post("compute", path, {"interfaceAttachment": {"net_id": place["network"]}}), 200)["interfaceAttachment"]
        port = member.ok(member.get("network", f"/ports/{added['port_id']}"))["port"]
        assert port["device_id"] == server["id"] and port["device_owner"].startswith("compute:")
        assert member.delete("compute", f"{path}/{added['port_id']}").status_code == 202
        wait("the port is gone", lambda: member.get("network", f"/ports/{added['port_id']}").status_code == 404)
    with unchanged():
        for bad in ({"net_id": "deadbeef-0000-4000-8000-000000000000"}, {"port_id": "deadbeef-0000-4000-8000-000000000000"}, {"nonsense": 1}, {"port_id": first[0]["port_id"]}):
            answer = member.post("compute", path, {"interfaceAttachment": bad})
            check_fault("compute", answer)
        assert member.delete("compute", f"{path}/deadbeef-0000-4000-8000-000000000000").status_code == 404


def test_a_floating_ip_comes_and_goes(member, server, public, unchanged):
    port = member.ok(member.get("network", "/ports", params={"device_id": server["id"]}))["ports"][0]
    with unchanged():
        made = member.ok(member.post("network", "/floatingips", {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}), 201)["floatingip"]
        assert made["fixed_ip_address"] == port["fixed_ips"][0]["ip_address"]
        addresses = next(iter(show(member, server["id"])["addresses"].values()))
        assert {entry["OS-EXT-IPS:type"]: entry["addr"] for entry in addresses}["floating"] == made["floating_ip_address"]
        again = member.post("network", "/floatingips", {"floatingip": {"floating_network_id": public, "port_id": port["id"]}})
        check_fault("network", again)
        assert again.status_code == 409
        loose = member.ok(member.put("network", f"/floatingips/{made['id']}", {"floatingip": {"port_id": None}}), 200)["floatingip"]
        assert loose["port_id"] is None and loose["fixed_ip_address"] is None
        member.ok(member.delete("network", f"/floatingips/{made['id']}"), 204)


def test_a_port_in_use_is_not_deleted_by_surprise(member, server, place):
    """Deleting the server's network, subnet or router is refused while the server exists."""
    assert member.delete("network", f"/networks/{place['network']}").status_code == 409
    assert member.delete("network", f"/subnets/{place['subnet']}").status_code == 409
    remove = member.put("network", f"/routers/{place['router']}/remove_router_interface", {"port_id": "deadbeef-0000-4000-8000-000000000000"})
    assert remove.status_code == 404


def test_ports_of_the_tenant_survive_its_server(member, place, guest, nano, unchanged):
    with unchanged():
        port = member.ok(member.post("network", "/ports", {"port": {"network_id": place["network"], "name": "mine"}}), 201)["port"]
        made = member.ok(member.post("compute", "/servers", {"server": {"name": "s", "imageRef": guest, "flavorRef": nano, "networks": [{"port": port["id"]}]}}), 202)["server"]
        reach(member, made["id"], "ACTIVE")
        delete(member, made)
        left = member.ok(member.get("network", f"/ports/{port['id']}"))["port"]
        assert left["device_id"] == "" and left["device_owner"] == ""
        member.ok(member.delete("network", f"/ports/{port['id']}"), 204)


def test_booting_from_a_volume(member, place, guest, nano, unchanged):
    with unchanged():
        disk = {"boot_index": 0, "uuid": guest, "source_type": "image", "destination_type": "volume", "volume_size": 1, "delete_on_termination": True}
        body = {"server": {"name": "bfv", "flavorRef": nano, "networks": [{"uuid": place["network"]}], "block_device_mapping_v2": [disk]}}
        made = member.ok(member.post("compute", "/servers", body), 202)["server"]
        shown = reach(member, made["id"], "ACTIVE")
        assert shown["image"] == "" and len(shown["os-extended-volumes:volumes_attached"]) == 1
        delete(member, made)
        wait("its volume is gone", lambda: not member.ok(member.get("volume", "/volumes"))["volumes"])


def test_deleting_while_it_is_being_made(member, place, guest, nano, unchanged):
    with unchanged():
        made = member.ok(member.post("compute", "/servers", {"server": {"name": "s", "imageRef": guest, "flavorRef": nano, "networks": [{"uuid": place["network"]}]}}), 202)["server"]
        delete(member, made)


def test_several_at_once(member, place, guest, nano, unchanged):
    with unchanged():
        body = {"server": {"name": "many", "imageRef": guest, "flavorRef": nano, "networks": [{"uuid": place["network"]}], "min_count": 2, "max_count": 2, "return_reservation_id": True}}
        assert member.ok(member.post("compute", "/servers", body), 202)["reservation_id"]
        rows = member.ok(member.get("compute", "/servers", params={"name": "many"}))["servers"]
        assert sorted(row["name"] for row in rows) == ["many-1", "many-2"]
        for row in rows:
            reach(member, row["id"], "ACTIVE")
        for row in rows:
            member.ok(member.delete("compute", f"/servers/{row['id']}"), 204)
        wait("they are gone", lambda: not member.ok(member.get("compute", "/servers", params={"name": "many"}))["servers"])
