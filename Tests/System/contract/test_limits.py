"""Quotas, exhausted pools, flavors that fit on no host, and repeated requests."""

import threading

import pytest

from contractapi import check_fault, message, unique, wait


@pytest.fixture
def small(admin, member):
    """Sets limits of the member's project; resets them afterwards."""

    def limits(service, **values):
        if service == "network":
            admin.ok(admin.put("network", f"/quotas/{member.project_id}", {"quota": values}), 200)
        elif service == "volume":
            answer = admin.send("PUT", "volume", f"/v3/{admin.project_id}/os-quota-sets/{member.project_id}", {"quota_set": values}, root=True)
            admin.ok(answer, 200)
        else:
            admin.ok(admin.put("compute", f"/os-quota-sets/{member.project_id}", {"quota_set": values}), 200)

    yield limits
    admin.delete("network", f"/quotas/{member.project_id}")
    admin.delete("compute", f"/os-quota-sets/{member.project_id}")
    admin.send("DELETE", "volume", f"/v3/{admin.project_id}/os-quota-sets/{member.project_id}", root=True)


NETWORK_QUOTAS = [
    ("network", "/networks", {"network": {"name": "q"}}), ("router", "/routers", {"router": {"name": "q"}}),
    ("security_group", "/security-groups", {"security_group": {"name": "q"}}),
]


@pytest.mark.parametrize("resource,path,body", NETWORK_QUOTAS)
def test_a_network_quota_holds_exactly(member, small, resource, path, body):
    used = member.usage()["network " + resource]
    small("network", **{resource: used + 2})
    made, refused = [], []

    def create():
        answer = member.post("network", path, body)
        (made if answer.status_code == 201 else refused).append(answer)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2, [answer.text for answer in made + refused]
    for answer in refused:
        check_fault("network", answer)
        assert answer.status_code == 409 and answer.json()["NeutronError"]["type"] == "OverQuota" and resource in message(answer)
    assert member.usage()["network " + resource] == used + 2
    for answer in made:
        member.ok(member.delete("network", f"{path}/{answer.json()[resource]['id']}"), 204)
    assert member.usage()["network " + resource] == used


def test_a_volume_quota(member, small, unchanged):
    used = member.usage()
    small("volume", volumes=used["volume volumes"])
    with unchanged():
        answer = member.post("volume", "/volumes", {"volume": {"size": 1}})
        check_fault("volume", answer)
    assert answer.status_code == 413 and "volume" in message(answer).lower()
    small("volume", volumes=used["volume volumes"] + 1, gigabytes=used["volume gigabytes"] + 1)
    with unchanged():
        answer = member.post("volume", "/volumes", {"volume": {"size": 2}})
        check_fault("volume", answer)
    assert answer.status_code == 413 and "gigabyte" in message(answer).lower()


@pytest.mark.parametrize("limit", ["instances", "cores", "ram"])
def test_a_server_quota(member, small, unchanged, guest, nano, limit):
    small("compute", **{limit: 0})
    with unchanged():
        answer = member.post("compute", "/servers", {"server": {"name": "s", "imageRef": guest, "flavorRef": nano, "networks": "none"}})
        check_fault("compute", answer)
    assert answer.status_code == 403 and "Quota exceeded for " + limit in message(answer), answer.text


def test_a_keypair_quota(member, small, unchanged):
    small("compute", key_pairs=0)
    with unchanged():
        answer = member.post("compute", "/os-keypairs", {"keypair": {"name": "k"}}, version="2.10")
        check_fault("compute", answer)
    assert answer.status_code == 403


def test_quotas_refuse_nonsense(admin, member):
    for body in ({"cores": -2}, {"cores": "many"}, {"nonsense": 1}):
        answer = admin.put("compute", f"/os-quota-sets/{member.project_id}", {"quota_set": body})
        check_fault("compute", answer)
        assert answer.status_code == 400 and next(iter(body)) in message(answer)
    answer = admin.put("network", f"/quotas/{member.project_id}", {"quota": {"network": "many"}})
    assert answer.status_code == 400 and "many" in message(answer)


def test_an_exhausted_pool(member, unchanged):
    network = member.ok(member.post("network", "/networks", {"network": {"name": unique("full")}}), 201)["network"]["id"]
    pool = [{"start": "10.44.0.10", "end": "10.44.0.12"}]
    member.ok(member.post("network", "/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.44.0.0/24", "allocation_pools": pool, "enable_dhcp": False}}), 201)
    ports = [member.ok(member.post("network", "/ports", {"port": {"network_id": network}}), 201)["port"] for _ in range(3)]
    assert sorted(port["fixed_ips"][0]["ip_address"] for port in ports) == ["10.44.0.10", "10.44.0.11", "10.44.0.12"]
    with unchanged():
        answer = member.post("network", "/ports", {"port": {"network_id": network}})
        check_fault("network", answer)
    assert answer.status_code == 409 and answer.json()["NeutronError"]["type"] == "IpAddressGenerationFailure"
    assert network in message(answer)
    taken = member.post("network", "/ports", {"port": {"network_id": network, "fixed_ips": [{"ip_address": "10.44.0.10"}]}})
    assert taken.status_code == 409 and "10.44.0.10" in message(taken)
    member.ok(member.delete("network", f"/ports/{ports[0]['id']}"), 204)
    again = member.ok(member.post("network", "/ports", {"port": {"network_id": network}}), 201)["port"]
    assert again["fixed_ips"] == ports[0]["fixed_ips"]
    for port in [again, *ports[1:]]:
        member.ok(member.delete("network", f"/ports/{port['id']}"), 204)
    member.ok(member.delete("network", f"/networks/{network}"), 204)


def test_a_flavor_larger_than_any_host(admin, member, guest):
    flavor = admin.ok(admin.post("compute", "/flavors", {"flavor": {"name": unique("huge"), "ram": 16 << 20, "vcpus": 1, "disk": 1}}))["flavor"]["id"]
    before = member.usage()
    hosts = {row["hypervisor_hostname"] for row in admin.ok(admin.get("compute", "/os-hypervisors"))["hypervisors"]}
    admin.ok(admin.put("compute", f"/os-quota-sets/{member.project_id}", {"quota_set": {"ram": -1}}), 200)
    try:
        made = member.ok(member.post("compute", "/servers", {"server": {"name": unique("huge"), "imageRef": guest, "flavorRef": flavor, "networks": "none"}}), 202)["server"]
        one = f"/servers/{made['id']}"

        def failed():
            server = member.ok(member.get("compute", one))["server"]
            return server if server["status"] == "ERROR" else None

        fault = wait("the server fails", failed, 60)["fault"]
        text = fault["message"] + fault.get("details", "")
        assert "No valid host" in text and any(character.isdigit() for character in text), text
        assert not any(host in text for host in hosts), text
        seen = admin.ok(admin.get("compute", one))["server"]
        assert seen["fault"]["code"] == 500
        assert not admin.ok(admin.get("placement", f"/allocations/{made['id']}"))["allocations"]
        member.ok(member.delete("compute", one), 204)
        wait("the server is gone", lambda: member.get("compute", one).status_code == 404)
    finally:
        admin.delete("compute", f"/os-quota-sets/{member.project_id}")
        admin.delete("compute", f"/flavors/{flavor}")
    assert member.usage() == before


KEYED = [
    ("network", "/networks", {"network": {"name": "twice"}}, lambda body: body["network"]["id"]),
    ("volume", "/volumes", {"volume": {"name": "twice", "size": 1}}, lambda body: body["volume"]["id"]),
    ("image", "/images", {"name": "twice", "disk_format": "raw", "container_format": "bare"}, lambda body: body["id"]),
    ("compute", "/os-server-groups", {"server_group": {"name": "twice", "policy": "affinity"}}, lambda body: body["server_group"]["id"]),
]


@pytest.mark.parametrize("service,path,body,identify", KEYED, ids=[case[0] for case in KEYED])
def test_the_same_request_twice(member, other_project, service, path, body, identify):
    key = {"Idempotency-Key": unique("key")}
    answers, threads = [], []
    for _ in range(5):
        threads.append(threading.Thread(target=lambda: answers.append(member.post(service, path, body, headers=key))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [answer for answer in answers if answer.status_code < 300]
    # A copy that arrives while the first request is processed may be told to retry.
    assert good and all(answer.status_code in (409, 425, 503) for answer in answers if answer not in good), [answer.text for answer in answers]
    again = member.post(service, path, body, headers=key)
    assert {identify(answer.json()) for answer in [*good, again]} == {identify(good[0].json())}
    assert again.status_code == good[0].status_code
    other = member.post(service, path, {**body, "name": "another"} if service == "image" else {k: {**v, "name": "another"} for k, v in body.items()}, headers=key)
    assert other.status_code in (409, 422), other.text
    theirs = other_project.post(service, path, body, headers=key)
    assert theirs.status_code < 300 and identify(theirs.json()) != identify(good[0].json())
