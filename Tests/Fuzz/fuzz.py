#!/usr/bin/env python3
"""Sends a running cloud requests made from its services' own OpenAPI documents: valid, mutated and malformed ones.

    make fuzz SEED=7 SECONDS=600

No answer may be a 5xx (503 and 501 excepted), every 4xx must be in the service's form with a message, nothing that was
deleted may be found again, no process may end, and no log may gain a record of the level error. A request is a function of
seed and number, and of the ids that the cloud gave out before; failures are written with all their bytes, so that
`--replay FILE` sends exactly them again.
"""

import argparse
import http.client
import importlib.util
import json
import os
import random
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "System" / "contract"))
sys.path.insert(0, str(Path(__file__).parent))

_specification = importlib.util.spec_from_file_location("contract_callers", Path(__file__).parents[1] / "System" / "contract" / "conftest.py")
contract = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(contract)

import servicelist  # noqa: E402
from contractapi import API, check_fault, unique  # noqa: E402
from values import HOSTILE_NUMBERS, HOSTILE_TEXT, Pool, encoded, fitting, hostile, mutated  # noqa: E402

SERVICES = {name: servicelist.service(name)["section"] for name in servicelist.names()}
# Parameters of other operations and services, and of none: they must be ignored or refused.
QUERY_NAMES = [
    "limit", "marker", "sort", "sort_key", "sort_dir", "name", "name~", "id", "fields", "status", "all_tenants", "changes-since", "changes-before",
    "page_reverse", "project_id", "tenant_id", "tags", "not-tags", "metadata", "with_count", "offset", "ip", "host", "member_of", "required",
    "resources", "in_tree", "fixed_ips", "domain_id", "include_names", "member_status", "visibility", "created_at", "updated_at", "shared", "nocatalog",
]
METHODS_WITH_BODY = ("POST", "PUT", "PATCH")
# Requests with which an operator affects the whole cloud: the cloud is shared with other tests.
NOT_FOR_ADMIN = ("os-quota-class-sets", "os-services", "os-agents", "/limits", "/registered_limits", "/domains", "os-hosts", "os-hypervisors", "/config")
ANSWER_LIMIT = 30


class Cloud:
    """Where things are, from the state directory."""

    def __init__(self, state):
        self.state = Path(state)
        self.settings = yaml.safe_load((self.state / "wolke.yaml").read_text())["endpoints"]
        self.auth = yaml.safe_load((self.state / "clouds.yaml").read_text())["clouds"]["wolke-admin"]["auth"]

    def operator(self, service, path):
        """A response of the service's operators' port."""
        connection = http.client.HTTPConnection(
            self.settings["operator_bind"], self.settings[f"{SERVICES[service]}_operator_port"], timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def processes(self):
        parts = json.loads((self.state / "run" / "parts.json").read_text())
        parts = parts["parts"] if isinstance(parts, dict) else parts
        return {part["name"]: part.get("process", {}).get("pid") if isinstance(part.get("process"),
            dict) else part.get("pid") for part in parts if part["name"].startswith("wolke-")}

    def log_sizes(self):
        return {log: log.stat().st_size for log in (self.state / "log").glob("wolke-*.log")}

    def errors_since(self, sizes):
        """Records of level error or above, and lines that are not records, beyond these sizes of the logs."""
        found = []
        for log in (self.state / "log").glob("wolke-*.log"):
            with open(log, "rb") as file:
                file.seek(sizes.get(log, 0))
                for line in file.read().splitlines():
                    try:
                        level = json.loads(line)["level"]
                    except (ValueError, KeyError, TypeError):
                        level = "no record"
                    if level in ("error", "critical", "no record"):
                        found.append(f"{log.name}: {line[:600].decode(errors='replace')}")
        return found


def query_text(value):
    """A value of a schema as it is written in a query."""
    if isinstance(value, (bool, dict, list)) or value is None:
        return json.dumps(value)
    return str(value)


class Operation:
    """One method and path of one service."""

    def __init__(self, service, path, method, document):
        self.service, self.path, self.method = service, path, method
        content = document.get("requestBody", {}).get("content", {})
        self.schema = content.get("application/json", {}).get("schema")
        self.streams = "application/octet-stream" in content
        self.parameters = [segment[1:-1] for segment in path.split("/") if segment.startswith("{")]
        self.queries = [(item["name"], item.get("schema", {})) for item in document.get("parameters", []) if item["in"] == "query"]

    @property
    def kind(self):
        """The kind of resource whose id a POST to this path returns: `volume` for `/v3/{project_id}/volumes`."""
        last = [segment for segment in self.path.split("/") if segment and not segment.startswith("{")][-1]
        return last.replace("-", "_").removeprefix("os_").removesuffix("s")

    def is_for(self, caller, is_shared):
        if self.streams:
            return False
        if is_shared and caller == "admin" and self.method not in ("GET", "HEAD"):
            return False
        if caller != "admin" or self.method in ("GET", "HEAD"):
            return True
        # Without an id created by the fuzzer in the path, a change may affect resources of others.
        return not any(word in self.path for word in NOT_FOR_ADMIN) and (self.method == "POST" or bool(self.parameters))


class Fuzzer:
    def __init__(self, state, seed, log=print, is_shared=False):
        """`is_shared`: others use the cloud too, so that the administrator's requests only read."""
        self.cloud, self.seed, self.log, self.is_shared = Cloud(state), seed, log, is_shared
        self.counts, self.failures, self.created = {}, [], []
        self.lock = threading.Lock()
        self.number = 0
        auth = self.cloud.auth
        self.admin = API(auth["auth_url"], auth["username"], auth["password"], auth["project_name"])
        self.operations = self._operations()
        self.pool = Pool()
        self.member = self._member()
        self.callers = {"admin": self.admin, "member": self.member}

    def _operations(self):
        found = []
        for service in SERVICES:
            document = json.loads(self.cloud.operator(service, "/openapi.json"))
            for path, item in document["paths"].items():
                for method, operation in item.items():
                    found.append(Operation(service, path, method.upper(), operation))
        assert len(found) > 300, len(found)
        # A fuzzer that does not know the parameters of lists would test none of their filters.
        assert sum(bool(o.queries) for o in found) > 30, [o.path for o in found if o.queries]
        return sorted(found, key=lambda o: (o.service, o.path, o.method))

    def _member(self):
        """A member of a project whose quotas allow no servers: servers are too expensive for this test."""
        admin, name = self.admin, unique("fuzz")
        project = admin.ok(admin.post("identity", "/projects", {"project": {"name": name, "domain_id": "default"}}), 201)["project"]
        user = admin.ok(admin.post("identity", "/users", {"user": {"name": name, "password": name, "domain_id": "default"}}), 201)["user"]
        role = admin.ok(admin.get("identity", "/roles", params={"name": "member"}))["roles"][0]
        admin.ok(admin.put("identity", f"/projects/{project['id']}/users/{user['id']}/roles/{role['id']}"), 204)
        admin.ok(admin.put("compute", f"/os-quota-sets/{project['id']}", {"quota_set": {"instances": 0}}))
        admin.ok(admin.put("volume", f"/os-quota-sets/{project['id']}", {"quota_set": {"gigabytes": 4, "volumes": 4}}))
        member = API(admin.auth_url, name, name, name)
        network = member.ok(member.post("network", "/networks", {"network": {"name": name}}), 201)["network"]
        subnet = member.ok(member.post("network", "/subnets", {"subnet": {"network_id": network["id"], "cidr": "10.77.0.0/24", "ip_version": 4}}),
            201)["subnet"]
        port = member.ok(member.post("network", "/ports", {"port": {"network_id": network["id"]}}), 201)["port"]
        router = member.ok(member.post("network", "/routers", {"router": {"name": name}}), 201)["router"]
        volume = member.ok(member.post("volume", "/volumes", {"volume": {"size": 1, "name": name}}), 202)["volume"]
        image = member.ok(member.post("image", "/images", {"name": name, "disk_format": "raw", "container_format": "bare"}), 201)
        # Requests name another project, because some of them delete or disable it.
        other = admin.ok(admin.post("identity", "/projects", {"project": {"name": name + "-other", "domain_id": "default"}}), 201)["project"]
        self.created.append(("identity", f"/v3/projects/{other['id']}"))
        for kind, thing in (
            ("network", network), ("subnet", subnet), ("port", port), ("router", router), ("volume", volume), ("image", image),
            ("project", other), ("tenant", other),
        ):
            self.pool.add(kind, thing["id"])
        for group in member.ok(member.get("network", "/security-groups", params={"project_id": project["id"]}))["security_groups"]:
            self.pool.add("security_group", group["id"])
            self.pool.add("security_group_rule", group["security_group_rules"][0]["id"])
        return member

    # Requests

    def request(self, number):
        """Caller, method, service, target, headers and body of a request."""
        rng = random.Random(f"{self.seed}:{number}")
        caller = rng.choice(("member", "member", "admin"))
        operation = rng.choice([o for o in self.operations if o.is_for(caller, self.is_shared)])
        method, path = operation.method, self._path(operation, rng)
        if rng.random() < 0.02:
            method = rng.choice(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]) if caller == "member" else "OPTIONS"
        target = path + self._query(operation, rng)
        headers = self._headers(operation, caller, rng)
        body = None
        if operation.schema is not None or method in METHODS_WITH_BODY:
            document = fitting(operation.schema or {}, rng, self.pool)
            if rng.random() < 0.7:
                document = mutated(document, rng, self.pool)
            body = encoded(document, rng)
            headers.setdefault("Content-Type", "application/json")
        return caller, operation, method, target, headers, body

    def _path(self, operation, rng):
        segments = []
        for segment in operation.path.split("/"):
            if segment.startswith("{"):
                name = segment[1:-1]
                value = self.pool.id_for(name, rng) if rng.random() < 0.85 else str(rng.choice(HOSTILE_TEXT[:60] + [hostile(rng, self.pool)]))
                if name == "project_id" and operation.service == "volume" and rng.random() < 0.9:
                    value = self.member.project_id
                segment = urllib.parse.quote(value.encode("utf-8", "surrogatepass"), safe="")[:6000]
                if rng.random() < 0.01:
                    segment = rng.choice(["%", "%zz", "%ff%fe", "%c0%80", "%2e%2e", "%2f", "%e2%80%a8", "a;b=c", "~"])
            segments.append(segment)
        return "/".join(segments)

    def _query(self, operation, rng):
        """Mostly parameters that the operation's document has, with values of their schema or hostile ones."""
        if rng.random() < (0.4 if operation.queries else 0.8):
            return ""
        pairs = []
        for _ in range(rng.randint(1, 3)):
            if operation.queries and rng.random() < 0.8:
                name, schema = rng.choice(operation.queries)
                value = fitting(schema, rng, self.pool, name) if rng.random() < 0.6 else self._any_value(rng)
            else:
                name, value = rng.choice(QUERY_NAMES), self._any_value(rng)
            pairs.append((name, query_text(value)[:3000]))
        if rng.random() < 0.1:
            pairs.append(rng.choice(pairs))
        query = urllib.parse.urlencode(pairs,
            errors="surrogatepass") if rng.random() < 0.9 else rng.choice(["&&&", "=", "limit", "limit=%", "a=%ff", "limit=1&limit=2", "?" * 50])
        return "?" + query[:12_000]

    def _any_value(self, rng):
        return rng.choice([rng.choice(HOSTILE_TEXT), str(rng.choice(HOSTILE_NUMBERS)), self.pool.any_id(rng), "asc", "id", "id:desc", "1"])

    def _headers(self, operation, caller, rng):
        headers = {"X-Auth-Token": self.callers[caller].token, "Accept": "application/json"}
        word = None
        if microversions := servicelist.service(operation.service)["microversions"]:
            word = microversions["name"]
            major, low = map(int, microversions["minimum"].split("."))
            high = int(microversions["maximum"].split(".")[1])
            headers["OpenStack-API-Version"] = f"{word} {major}.{rng.choice([high, high, rng.randint(low, high)])}"
            if rng.random() < 0.02:
                headers["OpenStack-API-Version"] = rng.choice([word, f"{word} latest", f"{word} 9.9", f"{word} 2", "x 1.1", f"{word} 2.-1",
                    f"{word} {'9' * 400}.1", ""])
        if rng.random() < 0.05:
            name = rng.choice([
                "X-Auth-Token", "X-Subject-Token", "Idempotency-Key", "Accept", "Content-Type", "X-Forwarded-Host", "Forwarded", "Range", "If-Match",
                "X-OpenStack-Request-ID", "Content-Encoding", "Accept-Language", "X-Roles", "X-Project-Id", "X-Service-Token", "Cookie", "Expect",
            ])
            value = rng.choice(["", "x", "a" * 4000, "bytes=9-1", "100-continue" if name == "Expect" else "gzip", "*/*;q=x", "ä", "revision_number=x", "\"",
                ",,,"])
            headers[name] = value
        return headers

    # Sending and checking

    def send(self, operation, method, target, headers, body):
        base = urllib.parse.urlsplit(self.admin.base(operation.service))
        connection = http.client.HTTPConnection(base.hostname, base.port, timeout=ANSWER_LIMIT)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value.encode("utf-8"))
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            answer.data = answer.read()
            return answer
        finally:
            connection.close()

    def judge(self, operation, method, answer, accept="application/json"):
        """The problem with a response; None if there is none."""
        status = answer.status
        if status >= 500 and status not in (501, 503):
            return f"answered {status}"
        if status == 503 and not answer.getheader("Retry-After"):
            return "answered 503 without Retry-After"
        # Image uses other formats unless JSON is requested.
        if 400 <= status < 500 and method != "HEAD" and (operation.service != "image" or accept == "application/json"):
            try:
                # Without a token every service answers in Identity's format.
                check_fault("identity" if status == 401 else operation.service, Answer(answer, method))
            except (AssertionError, ValueError, KeyError, TypeError, IndexError) as problem:
                return f"a {status} that is not in the service's form: {type(problem).__name__} {str(problem)[:300]}"
        return None

    def step(self, number):
        caller, operation, method, target, headers, body = self.request(number)
        record = {"number": number, "caller": caller, "service": operation.service, "method": method, "target": target, "headers": headers, "body": body}
        begun = time.monotonic()
        try:
            answer = self.send(operation, method, target, headers, body)
        except (OSError, http.client.HTTPException) as problem:
            self.fail(record, f"no answer: {type(problem).__name__} {problem}")
            return
        took = time.monotonic() - begun
        problem = self.judge(operation, method, answer, headers.get("Accept", ""))
        if problem is None and took > 10:
            problem = f"took {took:.1f} s"
        if problem:
            self.fail(record, problem, answer.data[:1000].decode(errors="replace"))
        with self.lock:
            self.counts[answer.status] = self.counts.get(answer.status, 0) + 1
        if answer.status < 300:
            self.learn(operation, method, target, answer)
        if answer.status == 401 and not target.startswith("/v3/auth"):
            self._sign_on(caller)

    def _sign_on(self, caller):
        """A request may have revoked the token."""
        with self.lock:
            api = self.callers[caller]
            if api.get("identity", "/auth/tokens", headers={"X-Subject-Token": api.token}).status_code == 401:
                api.sign_on()

    def learn(self, operation, method, target, answer):
        """Uses ids of created resources later; deleted resources must be gone."""
        path = target.split("?")[0]
        if method in ("POST", "PUT") and answer.status in (200, 201, 202):
            try:
                document = json.loads(answer.data or b"null")
            except ValueError:
                return
            thing = next((value for value in document.values() if isinstance(value, dict)), document) if isinstance(document,
                dict) and "id" not in document else document
            if method == "POST" and isinstance(thing, dict) and isinstance(thing.get("id"), str) and "action" not in path:
                with self.lock:
                    self.pool.add(operation.kind, thing["id"])
                    self.created.append((operation.service, path.rstrip("/") + "/" + urllib.parse.quote(thing["id"], safe="")))
            elif method == "PUT" and answer.status == 201:
                with self.lock:
                    self.created.append((operation.service, path))
        elif method == "DELETE":
            with self.lock:
                self.pool.remove(urllib.parse.unquote(path.rsplit("/", 1)[-1]))
            # Resources that are deleted at once; a deleted quota is reset to the default.
            if not servicelist.service(operation.service)["has_workflows"] and operation.path.endswith("}") and operation.path.count("{") == 1 \
                    and "quota" not in path and any(o.path == operation.path and o.method == "GET" for o in self.operations):
                again = self.send(operation, "GET", path, {"X-Auth-Token": self.admin.token, "OpenStack-API-Version": "placement 1.39"}, None)
                if again.status not in (400, 404):
                    self.fail({"service": operation.service, "method": "GET", "target": path, "headers": {}, "body": None},
                        f"deleted, and still answers {again.status}")

    def fail(self, record, problem, answer=""):
        body = record["body"]
        shown = {**record, "headers": {k: v for k, v in record["headers"].items() if k != "X-Auth-Token"}, "problem": problem, "answer": answer,
                 "body": None if body is None else body.decode("latin-1")}
        with self.lock:
            self.failures.append(shown)
            if len(self.failures) <= 20:
                self.log(f"#{record.get('number')} {record['method']} {record['service']} {record['target'][:200]}: {problem}\n    body {str(shown['body'])[:300]}\n    answer {answer[:300]}")

    # Running

    def run(self, seconds=None, requests=None, threads=4):
        """Until the time is over or the requests are sent. Returns the failures."""
        processes, sizes = self.cloud.processes(), self.cloud.log_sizes()
        end = time.monotonic() + (seconds or 10**9)

        def work():
            while time.monotonic() < end and len(self.failures) < 100:
                with self.lock:
                    number, self.number = self.number, self.number + 1
                if requests and number >= requests:
                    return
                try:
                    self.step(number)
                except Exception as problem:  # The worker must not end, because the remaining operations would not be tested.
                    self.fail({"number": number, "service": "", "method": "", "target": "", "headers": {}, "body": None},
                        f"not judged: {type(problem).__name__} {problem}")

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        now = self.cloud.processes()
        for name, pid in processes.items():
            if now.get(name) != pid:
                self.failures.append({"problem": f"{name} has another process: {pid}, now {now.get(name)}"})
        for line in self.cloud.errors_since(sizes):
            self.failures.append({"problem": "an error in the log", "answer": line})
        return self.failures

    def replay(self, records):
        """Sends the bytes of earlier failures again, with fresh tokens."""
        for record in records:
            if "method" not in record:
                continue
            operation = Operation(record["service"], record["target"], record["method"], {})
            body = None if record["body"] is None else record["body"].encode("latin-1")
            headers = {"X-Auth-Token": self.callers[record.get("caller", "member")].token, **record["headers"]}
            answer = self.send(operation, record["method"], record["target"], headers, body)
            self.log(f"{record['method']} {record['target'][:200]}: {answer.status}, {self.judge(operation, record['method'], answer) or 'good'}; was: {record['problem']}")

    def close(self):
        """Deletes the created resources in reverse order, because one may depend on another; then the member and its project."""
        for _ in range(2):
            for service, path in reversed(self.created):
                for api in (self.member, self.admin):
                    operation = Operation(service, path, "DELETE", {})
                    try:
                        if self.send(operation, "DELETE", path,
                            {"X-Auth-Token": api.token,
                            "OpenStack-API-Version": (servicelist.service(service)["microversions"] or {"name": "x"})["name"] + " " + API.VERSIONS.get(service, "1.1")}, None).status in (202, 204, 404):
                            break
                    except OSError:
                        pass
        self._sign_on("member")
        contract.clean(self.member)
        self.admin.delete("identity", f"/users/{self.member.user_id}")
        self.admin.delete("identity", f"/projects/{self.member.project_id}")


class Answer:
    """The parts of an `http.client` response that `check_fault` checks."""

    class Request:
        def __init__(self, method):
            self.method = method

    def __init__(self, answer, method):
        self.status_code, self.content, self.text = answer.status, answer.data, answer.data.decode(errors="replace")
        self.headers = {"X-Openstack-Request-Id": answer.getheader("X-Openstack-Request-Id", ""), "Content-Type": answer.getheader("Content-Type", "")}
        self.request, self.url = Answer.Request(method), ""

    def json(self):
        return json.loads(self.content)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--state", default=os.environ.get("STATE", ".state"), help="state directory of a running cloud")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--replay", help="a file of failures: send exactly these again")
    arguments = parser.parse_args()
    if not (Path(arguments.state) / "wolke.yaml").exists():
        sys.exit(f"No cloud in {arguments.state}: `make up` starts one.")
    fuzzer = Fuzzer(arguments.state, arguments.seed)
    try:
        if arguments.replay:
            fuzzer.replay(json.loads(Path(arguments.replay).read_text()))
            return
        seconds = arguments.seconds or (None if arguments.requests else 60)
        print(f"seed {arguments.seed}, {len(fuzzer.operations)} operations", flush=True)
        failures = fuzzer.run(seconds, arguments.requests, arguments.threads)
    finally:
        fuzzer.close()
    print(f"{sum(fuzzer.counts.values())} requests, by status: {dict(sorted(fuzzer.counts.items()))}")
    if failures:
        report = Path(arguments.state) / "log" / f"fuzz-{arguments.seed}.json"
        report.write_text(json.dumps(failures, indent=1))
        for failure in failures:
            if "method" not in failure:
                print(failure["problem"], failure.get("answer", ""))
        sys.exit(f"{len(failures)} failures with seed {arguments.seed}: {report} (send them again: --replay {report})")


if __name__ == "__main__":
    main()
