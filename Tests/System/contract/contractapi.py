"""Raw requests to a cloud's services: contract tests check details that the stock clients hide."""

import sys
import time
import uuid
from pathlib import Path

import requests

sys.path.append(str(Path(__file__).resolve().parents[1]))

import servicelist  # noqa: E402

LIMIT = 60


class API:
    """One caller: a token with its catalog. Requests are not retried, responses not interpreted."""

    # The microversions for which the tests are written; a service may have newer ones.
    VERSIONS = {"compute": "2.96", "volume": "3.60", "placement": "1.39"}

    def __init__(self, auth_url, user, password, project, system=False):
        self.auth_url = auth_url.rstrip("/")
        if not self.auth_url.endswith("/v3"):
            self.auth_url += "/v3"
        self.user, self.password, self.project = user, password, project
        scope = {"system": {"all": True}} if system else {"project": {"name": project, "domain": {"id": "default"}}}
        self.scope = scope
        self.sign_on()

    def sign_on(self):
        answer = requests.post(self.auth_url + "/auth/tokens", json=self.sign_on_body(), timeout=LIMIT)
        assert answer.status_code == 201, answer.text
        self.token = answer.headers["X-Subject-Token"]
        self.document = answer.json()["token"]
        self.project_id = self.document.get("project", {}).get("id")
        self.user_id = self.document["user"]["id"]
        return self.token

    def sign_on_body(self):
        user = {"name": self.user, "password": self.password, "domain": {"id": "default"}}
        return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": self.scope}}

    def base(self, service):
        """The endpoint's root, without version and project."""
        for kind in servicelist.service(service)["types"]:
            for entry in self.document["catalog"]:
                if entry["type"] == kind:
                    url = next(e["url"] for e in entry["endpoints"] if e["interface"] == "public")
                    for mark in ("/v2.1", "/v2.0", "/v3", "/v2"):
                        if mark in url:
                            url = url[: url.index(mark)]
                    return url.rstrip("/")
        raise AssertionError(f"no {service} in the catalog")

    def prefix(self, service):
        return servicelist.prefix(service, self.project_id)

    def send(self, method, service, path, body=None, *, token=True, version=True, headers=None, data=None, params=None, root=False):
        """`version`: True for the newest one known to the tests, a string for another, None for no header."""
        all_headers = {"Accept": "application/json", **(headers or {})}
        if token:
            all_headers["X-Auth-Token"] = self.token if token is True else token
        microversions = servicelist.service(service)["microversions"]
        if version and microversions:
            wanted = self.VERSIONS.get(service, microversions["maximum"]) if version is True else version
            all_headers["OpenStack-API-Version"] = f"{microversions['name']} {wanted}"
        url = self.base(service) + ("" if root else self.prefix(service)) + path
        return requests.request(
            method, url, json=body, data=data, headers=all_headers, params=params, timeout=LIMIT, allow_redirects=False)

    def get(self, service, path, **options):
        return self.send("GET", service, path, **options)

    def post(self, service, path, body=None, **options):
        return self.send("POST", service, path, body, **options)

    def put(self, service, path, body=None, **options):
        return self.send("PUT", service, path, body, **options)

    def patch(self, service, path, body=None, **options):
        return self.send("PATCH", service, path, body, **options)

    def delete(self, service, path, **options):
        return self.send("DELETE", service, path, **options)

    def delete_image(self, image):
        """Deletes an image, also a protected one."""
        self.patch(
            "image", f"/images/{image}", [{"op": "replace", "path": "/protected", "value": False}],
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"})
        return self.delete("image", f"/images/{image}")

    def ok(self, answer, *statuses):
        assert answer.status_code in (statuses or (200, 201, 202, 204)), f"{answer.request.method} {answer.url}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content and "json" in answer.headers.get("Content-Type", "") else None

    # Existing resources

    COLLECTIONS = [
        ("network", "/networks", "networks"), ("network", "/subnets", "subnets"), ("network", "/ports", "ports"),
        ("network", "/routers", "routers"), ("network", "/floatingips", "floatingips"),
        ("network", "/security-groups", "security_groups"), ("network", "/security-group-rules", "security_group_rules"),
        ("compute", "/servers", "servers"), ("compute", "/os-keypairs", "keypairs"), ("compute", "/os-server-groups", "server_groups"),
        ("volume", "/volumes", "volumes"), ("volume", "/snapshots", "snapshots"), ("image", "/images", "images"),
    ]

    def inventory(self):
        """The ids of all visible resources."""
        found = {}
        for service, path, key in self.COLLECTIONS:
            rows = self.ok(self.get(service, path))[key]
            found[key] = sorted(row["keypair"]["name"] if key == "keypairs" else row["id"] for row in rows)
        return found

    def usage(self):
        """The quota usage in all services."""
        counts = {}
        compute = self.ok(self.get("compute", f"/os-quota-sets/{self.project_id}/detail"))["quota_set"]
        counts.update({"compute " + k: v["in_use"] + v["reserved"] for k, v in compute.items() if isinstance(v, dict)})
        network = self.ok(self.get("network", f"/quotas/{self.project_id}/details"))["quota"]
        counts.update({"network " + k: v["used"] for k, v in network.items() if isinstance(v, dict)})
        volume = self.ok(self.get("volume", f"/os-quota-sets/{self.project_id}", params={"usage": "True"}))["quota_set"]
        counts.update({"volume " + k: v["in_use"] + v["reserved"] for k, v in volume.items() if isinstance(v, dict)})
        return counts


def unique(prefix="c"):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def wait(what, condition, limit=120, pause=0.25):
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {limit} s"
        time.sleep(pause)


def message(answer):
    """The text of a fault in any service's format."""
    try:
        body = answer.json()
    except ValueError:
        return answer.text
    if "NeutronError" in body:
        return str(body["NeutronError"].get("message")) + " " + str(body["NeutronError"].get("detail"))
    if "errors" in body:
        return " ".join(str(error.get("detail")) for error in body["errors"])
    if "error" in body and isinstance(body["error"], dict):
        return str(body["error"].get("message"))
    if isinstance(body.get("message"), str):
        return body["message"]
    for value in body.values():
        if isinstance(value, dict) and "message" in value:
            return str(value["message"])
    return answer.text


def check_fault(service, answer):
    """A 4xx response has the service's fault format and a request id."""
    status = answer.status_code
    assert 400 <= status < 500, f"{answer.request.method} {answer.url}: {status} {answer.text}"
    assert answer.headers.get("X-Openstack-Request-Id", "").startswith("req-"), answer.headers
    body = answer.json()
    if service in ("compute", "volume"):
        assert len(body) == 1, body
        fault = next(iter(body.values()))
        assert fault["code"] == status and fault["message"], body
    elif service == "network":
        assert set(body["NeutronError"]) >= {"type", "message", "detail"}, body
    elif service == "identity":
        assert body["error"]["code"] == status and body["error"]["title"] and body["error"]["message"], body
    elif service == "placement":
        error = body["errors"][0]
        assert error["status"] == status and error["title"] and error["detail"] and error["request_id"], body
    elif service == "image":
        assert message(answer), body
