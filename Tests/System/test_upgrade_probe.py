"""The requests of the probes of `make test-upgrade`. Needs no cloud."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "Upgrade"))

from upgrade import probed


def test_a_probe_requests_a_list_of_the_tenant():
    document = {"paths": {
        "/v3/extensions": {"get": {}}, "/v3/things/{id}": {"get": {}, "post": {}}, "/v3/secrets": {"get": {}, "post": {}},
        "/v3/{project_id}/volumes": {"get": {}, "post": {}}, "/v3/{project_id}/types": {"get": {}, "post": {}},
    }}
    asked = []

    def answers(path):
        asked.append(path)
        return path != "/v3/secrets"

    assert probed(document, "/v3", "p1", answers) == "/v3/p1/volumes"
    assert asked == ["/v3/secrets", "/v3/p1/volumes"]


def test_a_service_without_lists_for_tenants_is_asked_for_its_version():
    document = {"paths": {"/v3/users": {"get": {}, "post": {}}}}
    assert probed(document, "/v3", "p1", lambda path: False) == "/v3"
    assert probed(document, "", "p1", lambda path: False) == "/"
