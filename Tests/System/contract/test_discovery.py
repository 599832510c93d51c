"""Version documents, which clients read first, and the headers of every response."""

import pytest
import requests

import servicelist
from contractapi import check_fault

ROOTS = [(service, "/") for service in servicelist.names()]


def versions(document):
    found = document["versions"]
    return found["values"] if isinstance(found, dict) else found


@pytest.mark.parametrize("service,path", ROOTS)
def test_the_root_lists_versions_without_a_token(admin, service, path):
    answer = admin.send("GET", service, path, token=None, version=None, root=True)
    assert answer.status_code in (200, 300)
    for version in versions(answer.json()):
        assert version["id"].startswith("v")
        assert version["status"] in ("CURRENT", "SUPPORTED", "stable", "DEPRECATED")
        link = next(link["href"] for link in version["links"] if link["rel"] == "self")
        # Placement's documented document has an empty link.
        assert link.startswith("http") or service == "placement" and link == ""
    assert sum(version["status"] in ("CURRENT", "stable") for version in versions(answer.json())) >= 1


@pytest.mark.parametrize(
    "service,path", [("identity", "/v3/"), ("identity", "/v3"), ("compute", "/v2.1/"), ("compute", "/v2.1"), ("network", "/v2.0/"), ("volume", "/v3/")])
def test_a_version_describes_itself(admin, service, path):
    answer = admin.send("GET", service, path, version=None, root=True)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("service,low,high", [("compute", "2.1", "2.104"), ("volume", "3.0", "3.60"), ("placement", "1.0", "1.30")])
def test_microversions_are_advertised(admin, service, low, high):
    document = admin.send("GET", service, "/", token=None, version=None, root=True).json()
    current = max(versions(document), key=lambda version: version["id"])
    assert current["min_version"] == low
    newest = current.get("version") or current.get("max_version")
    assert tuple(map(int, newest.split("."))) >= tuple(map(int, high.split(".")))


MICROVERSIONED = [("compute", "/servers", "compute"), ("volume", "/volumes", "volume"), ("placement", "/resource_providers", "placement")]


@pytest.mark.parametrize("service,path,word", MICROVERSIONED)
def test_microversions_are_negotiated(admin, service, path, word):
    answer = admin.get(service, path, version="latest")
    assert answer.status_code == 200, answer.text
    assert answer.headers["OpenStack-API-Version"].startswith(word + " ")
    assert "openstack-api-version" in answer.headers.get("Vary", "").lower()
    too_new = admin.get(service, path, version={"compute": "2.999", "volume": "3.999", "placement": "1.999"}[service])
    assert too_new.status_code == 406, too_new.text
    malformed = admin.get(service, path, version="two")
    assert malformed.status_code in (400, 406), malformed.text


@pytest.mark.parametrize("service", servicelist.names())
def test_every_answer_has_a_request_id(admin, service):
    answer = admin.get(service, "/no-such-thing")
    assert answer.status_code == 404
    assert answer.headers["X-Openstack-Request-Id"].startswith("req-")


METHODS = [
    ("compute", "/servers", "PUT"), ("network", "/networks", "PATCH"), ("image", "/images", "DELETE"), ("volume", "/volumes", "PATCH"),
    ("identity", "/users", "DELETE"), ("placement", "/resource_providers", "DELETE"),
]


@pytest.mark.parametrize("service,path,method", METHODS)
def test_a_wrong_method_names_the_right_ones(admin, service, path, method):
    answer = admin.send(method, service, path, {})
    assert answer.status_code == 405, answer.text
    assert "GET" in answer.headers["Allow"]


def test_the_catalog_has_every_service(member):
    kinds = {entry["type"] for entry in member.document["catalog"]}
    assert kinds >= {entry["type"] for service in servicelist.services().values() for entry in service["catalog"]}
    for entry in member.document["catalog"]:
        assert {endpoint["interface"] for endpoint in entry["endpoints"]} >= {"public"}
        assert all(endpoint["region"] == endpoint["region_id"] for endpoint in entry["endpoints"])


def test_extensions_that_clients_ask_for(member):
    extensions = {extension["alias"]: extension for extension in member.ok(member.get("network", "/extensions"))["extensions"]}
    for alias in ("router", "external-net", "security-group", "port-security", "quotas", "quota_details", "net-mtu", "ext-gw-mode", "allowed-address-pairs"):
        assert alias in extensions, sorted(extensions)
    assert set(extensions["router"]) >= {"alias", "name", "description", "links", "updated"}
    assert member.get("network", "/extensions/router").status_code == 200
    check_fault("network", member.get("network", "/extensions/nonsense"))


def test_health_is_open(admin):
    for service in servicelist.names():
        base = admin.base(service)
        assert requests.get(base + "/healthz", timeout=10).status_code == 200
        assert requests.get(base + "/readyz", timeout=10).status_code == 200
