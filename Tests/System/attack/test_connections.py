"""Idle, slow and excessive connections: the services and the metadata of other networks keep answering."""

import ctypes
import json
import os
import resource
import select
import socket
import statistics
import time
import urllib.parse
from pathlib import Path

import pytest
import requests

import servicelist

# A request during the attack may take twice as long as without it, plus this tolerance of a short measurement.
SLACK = 0.25
# Allowed growth of a process during an attack, in MiB.
GROWTH = 120


def endpoint(cloud, service):
    url = urllib.parse.urlsplit(cloud.admin.endpoint_for(service))
    return url.hostname, url.port


def settings(cloud):
    import yaml

    return yaml.safe_load((Path(cloud.state) / "wolke.yaml").read_text())["endpoints"]


def services(cloud):
    return {name: part for name, part in cloud.parts().items() if name.startswith("wolke-") and "agent" not in name}


def memory(pid):
    """Resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no process {pid}")


def more_files():
    """Raises the descriptor limit of this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Silent:
    """Open connections that send nothing but `first`."""

    def __init__(self, address, count, first=b"", source=None):
        self.sockets, self.refused = [], 0
        for _ in range(count):
            try:
                connection = socket.create_connection(address, timeout=5, source_address=source)
            except OSError:
                self.refused += 1
                continue
            connection.setblocking(False)
            if first:
                try:
                    connection.send(first)
                except OSError:
                    pass
            self.sockets.append(connection)

    def open(self):
        """The number of connections that the other side has not closed."""
        poll, count = select.poll(), len(self.sockets)
        known = {connection.fileno(): connection for connection in self.sockets}
        for descriptor in known:
            poll.register(descriptor, select.POLLIN | select.POLLRDHUP)
        for descriptor, events in poll.poll(0):
            if events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR):
                count -= 1
        return count

    def settled(self, most):
        """`open`, when it is at most `most`, or after 10 s: the other side closes a little later than it accepts."""
        end = time.monotonic() + 10
        while (count := self.open()) > most and time.monotonic() < end:
            time.sleep(0.05)
        return count

    def close(self):
        for connection in self.sockets:
            connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def times(url, headers, count):
    """Durations of requests, each on a new connection."""
    taken = []
    for _ in range(count):
        begun = time.monotonic()
        answer = requests.get(url, headers={**headers, "Connection": "close"}, timeout=30)
        taken.append(time.monotonic() - begun)
        assert answer.status_code in (200, 300), answer.text
    return taken


def middle(taken):
    return statistics.median(taken)


@pytest.fixture
def unharmed(cloud):
    """No service process exits, grows without limit, or logs errors."""
    before = services(cloud)
    grown = {name: memory(part["pid"]) for name, part in before.items()}
    logs = {log: log.stat().st_size for log in (Path(cloud.state) / "log").glob("wolke-*.log")}
    yield
    after = services(cloud)
    assert {name: part["pid"] for name, part in after.items()} == {name: part["pid"] for name, part in before.items()}
    for name, part in after.items():
        assert memory(part["pid"]) < grown[name] + GROWTH, name
    for log, size in logs.items():
        with open(log, "rb") as file:
            file.seek(size)
            errors = [line for line in file.read().splitlines() if b'"level":"error"' in line or b"Fatal" in line]
        assert not errors, errors[:3]


@pytest.fixture
def headers(cloud):
    return {"X-Auth-Token": cloud.admin.auth_token}


def test_s18_silent_connections(cloud, unharmed, headers, scale, tally):
    """More idle connections from one address than a process may open files."""
    hard = more_files()
    count = min(scale(1500, 20_000), hard - 500)
    asked = cloud.admin.endpoint_for("network") + "/v2.0/networks?limit=1"
    calm = middle(times(asked, headers, 20))
    host, port = endpoint(cloud, "network")
    with Silent((host, port), count) as silent:
        beside = middle(times(asked, headers, 20))
        left = silent.settled(1024)
    tally(connections=count, still_open=left, refused_by_kernel=silent.refused, calm_ms=round(calm * 1000), beside_ms=round(beside * 1000))
    assert left <= 1024
    assert beside < 2 * calm + SLACK


@pytest.mark.parametrize("service", [name for name in servicelist.services() if name != "network"])
def test_s18_silent_connections_to_every_service(cloud, unharmed, scale, tally, service):
    """The same against the other services, with an overflow of the kernel's queue."""
    more_files()
    host, port = endpoint(cloud, service)
    with Silent((host, port), scale(1200, 5000)) as silent:
        assert requests.get(f"http://{host}:{port}/healthz", timeout=30).status_code == 200
        left = silent.settled(1024)
    tally(connections=len(silent.sockets), still_open=left)
    assert left <= 1024


def test_s18_slow_heads(cloud, unharmed, headers, scale, tally):
    """Heads that grow by a byte a second end with 408 after ten seconds."""
    host, port = endpoint(cloud, "compute")
    count = scale(200, 900)
    first = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "
    asked = cloud.admin.endpoint_for("compute") + "/flavors?limit=1"
    calm = middle(times(asked, headers, 10))
    with Silent((host, port), count, first) as slow:
        begun, beside = time.monotonic(), []
        while slow.open() and time.monotonic() < begun + 20:
            for connection in slow.sockets:
                try:
                    connection.send(b"a")
                except OSError:
                    pass
            beside += times(asked, headers, 3)
            time.sleep(1)
        took = time.monotonic() - begun
        answers = sum(connection.recv(100).startswith(b"HTTP/1.1 408") for connection in slow.sockets)
        left = slow.open()
    tally(connections=count, answered_408=answers, seconds=round(took), calm_ms=round(calm * 1000), beside_ms=round(middle(beside) * 1000))
    assert left == 0 and took < 16
    assert answers > 0.9 * count
    assert middle(beside) < 2 * calm + SLACK


def test_s18_held_bodies_cost_no_memory(cloud, unharmed, scale, tally):
    """Sign-ons of a mebibyte that stop before their end are refused at once; smaller ones that trickle end with 408."""
    host, port = endpoint(cloud, "identity")
    pid = services(cloud)["wolke-identity"]["pid"]
    before = memory(pid)
    count = scale(100, 300)
    head = "POST /v3/auth/tokens HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    large = (head % (1 << 20)).encode() + b'{"auth": "' + b"x" * 900_000
    refused = 0
    held = []
    for _ in range(count):
        connection = socket.create_connection((host, port), timeout=10)
        connection.settimeout(10)
        try:
            connection.sendall(large)
        except OSError:
            pass
        try:
            refused += connection.recv(100).startswith(b"HTTP/1.1 413")
        except OSError:
            pass
        held.append(connection)
        # Each of them takes ten seconds without a response, so a few are sufficient.
        if len(held) == 3 and refused == 0:
            break
    large_growth = memory(pid) - before
    small = (head % 60_000).encode() + b'{"auth": "' + b"x" * 50_000
    with Silent((host, port), count, small) as slow:
        assert requests.get(f"http://{host}:{port}/v3", timeout=10).status_code == 200
        small_growth = memory(pid) - before
        begun = time.monotonic()
        while slow.open() and time.monotonic() < begun + 45:
            time.sleep(0.5)
        left = slow.open()
    for connection in held:
        connection.close()
    tally(bodies=2 * count, answered_413=refused, growth_mib=round(max(large_growth, small_growth)), left=left)
    assert refused > 0.9 * count
    assert large_growth < 60 and small_growth < 90
    assert left == 0


def test_s18_operators_are_answered_during_an_attack(cloud, unharmed, scale, tally):
    """The operators' port has its own connection limit."""
    place = settings(cloud)
    host, port = endpoint(cloud, "compute")
    more_files()
    with Silent((host, port), scale(1200, 5000)):
        for name in (service["section"] for service in servicelist.services().values()):
            base = f"http://{place['operator_bind']}:{place[name + '_operator_port']}"
            assert requests.get(base + "/readyz", timeout=10).text == "ready\n"
            assert 'wolke_http_connections{listener="api"}' in requests.get(base + "/metrics", timeout=10).text
            public = f"http://{host}:{place[name + '_port']}"
            for path in ("/metrics", "/openapi.json"):
                assert requests.get(public + path, timeout=10).status_code in (401, 404), path
    tally(services=len(servicelist.services()))


def test_s6_forwarded_fields_of_anybody_are_ignored(cloud, tally):
    count = 0
    for service in servicelist.services():
        host, port = endpoint(cloud, service)
        for header in ("X-Forwarded-Host", "X-Forwarded-Server", "Forwarded"):
            answer = requests.get(
                f"http://{host}:{port}/", headers={header: "host=evil.example;proto=https" if header == "Forwarded" else "evil.example", "X-Forwarded-Proto": "https"},
                timeout=10)
            assert "evil.example" not in answer.text + str(answer.headers), (service, header)
            assert "https://" + host not in answer.text
            count += 1
    tally(requests=count)


def test_s18_metadata_survives_silent_guests(cloud, tenant, unharmed, scale, tally):
    """A guest's idle connections neither block its network's metadata service nor crash the agent."""
    agents = {name: part["pid"] for name, part in cloud.parts().items() if name.startswith("wolke-compute-agent")}
    tenant.create_server("guest")
    inside = [space for pid in agents.values() for space in metadata_namespaces(pid)]
    assert inside, "a network with a server has no metadata namespace on any host"
    opened = answered = 0
    for task in inside:
        counts = ask_inside(task, scale(400, 2000))
        assert counts["open"] <= 16, counts
        assert counts["answered"] == 10, counts
        opened, answered = opened + counts["opened"], answered + counts["answered"]
    tally(connections=opened, answered_beside=answered)
    assert agents == {name: part["pid"] for name, part in cloud.parts().items() if name in agents}


def metadata_namespaces(pid):
    """Threads of the agent that hold the network namespace of a metadata service."""
    own = os.readlink(f"/proc/{pid}/ns/net")
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            space = os.readlink(task / "ns" / "net")
        except OSError:
            continue
        if space != own:
            found[space] = task
    return list(found.values())


def ask_inside(task, count):
    """Attacks the metadata address from inside its namespace, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with open(task / "ns" / "net") as space:
                if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), 0):
                    raise OSError(ctypes.get_errno(), "setns")
            more_files()
            target = ("169.254.169.254", 80)
            with Silent(target, count) as silent:
                answered = 0
                for _ in range(10):
                    with socket.create_connection(target, timeout=5) as connection:
                        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        answered += connection.recv(100).startswith(b"HTTP/1.1 ")
                result = {"opened": len(silent.sockets), "open": silent.open(), "answered": answered}
            os.write(write, json.dumps(result).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    data = os.read(read, 65_536)
    os.close(read)
    return json.loads(data)
