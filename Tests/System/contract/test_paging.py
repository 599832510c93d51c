"""Lists in pages: limit, marker, links, order."""

import pytest

from contractapi import check_fault, unique


@pytest.fixture(scope="module")
def crowd(admin, member):
    """Three resources of each kind."""
    for number in range(3):
        member.ok(member.post("network", "/networks", {"network": {"name": f"crowd-{number}"}}), 201)
        member.ok(member.post("network", "/security-groups", {"security_group": {"name": f"crowd-{number}"}}), 201)
        member.ok(member.post("network", "/routers", {"router": {"name": f"crowd-{number}"}}), 201)
        member.ok(member.post("image", "/images", {"name": f"crowd-{number}", "disk_format": "raw", "container_format": "bare"}), 201)
        member.ok(member.post("volume", "/volumes", {"volume": {"name": f"crowd-{number}", "size": 1}}), 202)
        key = f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMgZ0p2ZmFrZWtleWZha2VrZXlmYWtla2V5ZmFrZWt{number} test"
        member.ok(member.post("compute", "/os-keypairs", {"keypair": {"name": f"crowd-{number}", "public_key": key}}))
    return member


LISTS = [
    ("network", "/networks", "networks"), ("network", "/security-groups", "security_groups"), ("network", "/routers", "routers"),
    ("network", "/security-group-rules", "security_group_rules"), ("image", "/images", "images"), ("volume", "/volumes", "volumes"),
    ("volume", "/volumes/detail", "volumes"), ("compute", "/os-keypairs", "keypairs"), ("compute", "/flavors", "flavors"),
    ("compute", "/flavors/detail", "flavors"),
]


def identify(row):
    return row["keypair"]["name"] if "keypair" in row else row["id"]


def next_page(body, key):
    if "next" in body:
        return body["next"]
    for link in body.get(key + "_links", []):
        if link["rel"] == "next":
            return link["href"]
    return None


@pytest.mark.parametrize("service,path,key", LISTS)
def test_pages_add_up_to_the_list(crowd, service, path, key):
    whole = [identify(row) for row in crowd.ok(crowd.get(service, path))[key]]
    assert len(whole) >= 3
    collected, marker = [], None
    for _ in range(len(whole) + 1):
        params = {"limit": 2, **({"marker": marker} if marker else {})}
        body = crowd.ok(crowd.get(service, path, params=params))
        page = [identify(row) for row in body[key]]
        assert len(page) <= 2
        collected += page
        if len(collected) < len(whole):
            following = next_page(body, key)
            assert following and f"marker={page[-1]}" in following and "limit=2" in following, body
        if len(page) < 2:
            break
        marker = page[-1]
    assert sorted(collected) == sorted(whole) and len(set(collected)) == len(collected)


@pytest.mark.parametrize("service,path,key", LISTS)
@pytest.mark.parametrize("limit", ["-1", "x"])
def test_a_bad_limit_is_refused(crowd, service, path, key, limit):
    answer = crowd.get(service, path, params={"limit": limit})
    check_fault(service, answer)
    assert answer.status_code == 400 and "limit" in answer.text and limit in answer.text


@pytest.mark.parametrize("service,path,key", LISTS)
def test_a_bad_marker_is_refused(crowd, service, path, key):
    answer = crowd.get(service, path, params={"marker": "00000000-0000-4000-8000-000000000000", "limit": 1})
    check_fault(service, answer)
    assert answer.status_code in (400, 404)
    assert "00000000-0000-4000-8000-000000000000" in answer.text or "marker" in answer.text


@pytest.mark.parametrize("service,path,key,sort", [
    ("network", "/networks", "networks", {"sort_key": "name", "sort_dir": "desc"}),
    ("image", "/images", "images", {"sort": "name:desc"}),
    ("volume", "/volumes", "volumes", {"sort": "name:desc"}),
])
def test_lists_are_sorted(crowd, service, path, key, sort):
    names = [row["name"] for row in crowd.ok(crowd.get(service, path, params=sort))[key] if str(row["name"]).startswith("crowd-")]
    assert names == ["crowd-2", "crowd-1", "crowd-0"]


def test_fields_narrow_a_network(crowd):
    rows = crowd.ok(crowd.get("network", "/networks", params=[("fields", "id"), ("fields", "name")]))["networks"]
    assert all(set(row) == {"id", "name"} for row in rows)


def test_filters_repeat(crowd):
    rows = crowd.ok(crowd.get("network", "/networks", params=[("name", "crowd-0"), ("name", "crowd-2")]))["networks"]
    assert sorted(row["name"] for row in rows) == ["crowd-0", "crowd-2"]


def test_users_in_pages(admin):
    whole = [row["id"] for row in admin.ok(admin.get("identity", "/users"))["users"]]
    body = admin.ok(admin.get("identity", "/users", params={"limit": 1}))
    assert len(body["users"]) == 1 and body["links"]["next"]
    assert body["users"][0]["id"] in whole


def test_an_unknown_filter_of_networks_is_refused_or_ignored(crowd):
    answer = crowd.get("network", "/networks", params={"nonsense": unique()})
    assert answer.status_code in (200, 400)
