"""make chaos: kills processes of a real cloud at random while tenants use it; afterwards everything must be in order.

Each worker owns one server at a time and takes it through its lifecycle. Every POST carries an Idempotency-Key and is
repeated with it until there is an answer, as a careful client does: what was answered with 2xx must then come true.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests" / "System"))

import servicelist  # noqa: E402
from wolkecloud import BUILD, Cloud, Tenant, wait  # noqa: E402

VICTIMS = (
    *servicelist.executables(), "postgres", "rabbitmq", "ovn-northbound", "ovn-southbound", "ovn-northd", "ovn-controller",
    "libvirtd", "wolke-compute-agent@host-2", "ovn-controller@host-2", "libvirtd@host-2", "qemu",
)
CONVERGENCE = 60


class End:
    """When the workload ends: after the given number of kills, or at the latest after the given number of seconds."""

    def __init__(self, seconds):
        self.at = time.monotonic() + seconds

    @property
    def reached(self):
        return time.monotonic() >= self.at

    def now(self):
        self.at = min(self.at, time.monotonic())

    @property
    def patience(self):
        """The time until which a request is repeated."""
        return self.at + 2 * CONVERGENCE


class Client:
    """Sends requests and repeats them until they are answered."""

    def __init__(self, cloud, tenant, end):
        self.offset, self.tenant, self.end = cloud.port_offset, tenant, end
        self.session = requests.Session()

    def url(self, service, path):
        port = servicelist.service(service)["port"] + self.offset
        return f"http://127.0.0.1:{port}{servicelist.prefix(service, self.tenant.project.id)}{path}"

    def send(self, method, service, path, body=None):
        key = str(uuid.uuid4())
        while True:
            try:
                headers = {"Idempotency-Key": key, "X-Auth-Token": self.tenant.api.auth_token, "OpenStack-API-Version": "compute 2.96"}
                answer = self.session.request(method, self.url(service, path), json=body, headers=headers, timeout=20)
                if answer.status_code == 401:
                    self.tenant.api.session.invalidate()
                elif answer.status_code < 500:
                    return answer
                elif answer.status_code != 503:
                    raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
            except (requests.RequestException, OSError) as error:
                self.last = error
            except Exception as error:  # exceptions of the SDK while Identity is unavailable
                if isinstance(error, AssertionError):
                    raise
                self.last = error
            if time.monotonic() > self.end.patience:
                raise AssertionError(f"{method} {path}: no answer until the end")
            time.sleep(0.3)


class Operator:
    """The administrator, as `Client` needs it."""

    def __init__(self, cloud):
        self.api = cloud.admin
        self.project = cloud.admin.identity.get_project(cloud.admin.current_project_id)


class Fence(threading.Thread):
    """Cuts host-2 off now and then, as an operator does with a host that has failed, and lets it return. Workers evacuate their
    servers meanwhile."""

    HOST = "host-2"
    PARTS = (f"libvirtd@{HOST}", f"ovn-controller@{HOST}", f"wolke-compute-agent@{HOST}")

    def __init__(self, cloud, seed, end, pause=25, outage=30):
        super().__init__(name="fence")
        self.cloud, self.end, self.pause, self.outage = cloud, end, pause, outage
        self.random = random.Random(seed)
        self.operator = Client(cloud, Operator(cloud), end)
        self.is_down = False
        self.outages = 0
        self.ended = time.monotonic()
        self.problems = []

    def run(self):
        try:
            while self.wait(self.random.uniform(0.5, 1.5) * self.pause):
                self.cut_off()
                self.wait(self.outage)
                self.lift()
        except Exception as error:
            self.problems.append(f"{self.name}: {type(error).__name__}: {error}")
        self.ended = time.monotonic()

    def wait(self, seconds):
        """Returns whether the run goes on."""
        until = time.monotonic() + seconds
        while not self.end.reached and time.monotonic() < until:
            time.sleep(0.5)
        return not self.end.reached

    def declare(self, is_down):
        services = self.operator.send("GET", "compute", f"/os-services?binary=nova-compute&host={self.HOST}").json()["services"]
        answer = self.operator.send("PUT", "compute", f"/os-services/{services[0]['id']}", {"forced_down": is_down})
        assert answer.ok, answer.text

    def cut_off(self):
        # No guest may run there when it is evacuated.
        for part in self.PARTS:
            self.cloud.stop(part)
        for process in guests(self.cloud.state / self.HOST):
            kill(process)
        self.declare(True)
        self.is_down = True
        self.outages += 1
        print(f"      cut off {self.HOST}", flush=True)

    def lift(self):
        self.is_down = False
        for part in self.PARTS:
            self.cloud.start(part)
        self.declare(False)


class Worker(threading.Thread):
    """Creates one server after the other and changes them at random."""

    # Maximum number of servers that it leaves undeleted.
    keeps = 1 << 30
    # Release 0.1.0 has no moves.
    verbs = ("power", "reboot", "interface", "volume", "floating", "group", "live", "migrate", "resize")

    def __init__(self, number, cloud, tenant, seed, end, fence=None):
        super().__init__(name=f"worker-{number}")
        self.fence = fence
        self.evacuations = 0
        self.random = random.Random(seed * 1000 + number)
        self.end = end
        self.client = Client(cloud, tenant, end)
        self.operator = Client(cloud, Operator(cloud), end)
        self.tenant = tenant
        self.accepted = 0
        self.refused = []
        self.problems = []
        self.expected = {}
        self.interfaces = {}
        self.volumes = []
        tenant_api = tenant.api
        self.image = tenant_api.image.find_image("guest").id
        self.flavor = tenant_api.compute.find_flavor("m1.nano").id
        self.larger = tenant_api.compute.find_flavor("m1.tiny").id
        self.network = tenant.network().id
        self.external = next(tenant_api.network.networks(is_router_external=True)).id

    def run(self):
        try:
            while not self.end.reached:
                self.life()
        except Exception as error:
            self.problems.append(f"{self.name}: {type(error).__name__}: {error}")

    def ask(self, method, service, path, body=None, client=None):
        answer = (client or self.client).send(method, service, path, body)
        if answer.ok:
            self.accepted += 1
        elif answer.status_code not in (404, 409):
            self.refused.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def settled(self, server):
        """The server when no task is in progress, or None at the end of the run."""
        while not self.end.reached:
            answer = self.client.send("GET", "compute", f"/servers/{server}")
            if answer.status_code == 404:
                return None
            found = answer.json()["server"]
            if found["status"] in ("ACTIVE", "SHUTOFF", "VERIFY_RESIZE", "ERROR") and not found["OS-EXT-STS:task_state"]:
                return found
            time.sleep(0.5)
        return None

    def life(self):
        body = {"server": {"name": "chaos", "imageRef": self.image, "flavorRef": self.flavor, "networks": [{"uuid": self.network}]}}
        answer = self.ask("POST", "compute", "/servers", body)
        if answer.status_code != 202:
            time.sleep(1)
            return
        server = answer.json()["server"]["id"]
        self.expected[server] = {"ACTIVE", "ERROR"}
        self.interfaces[server] = 1
        found = self.settled(server)
        for _ in range(self.random.randrange(4)):
            if not found or found["status"] == "ERROR":
                break
            self.change(server, found)
            found = self.settled(server)
        kept = sum(bool(expected) for expected in self.expected.values())
        if self.random.random() < 0.8 or kept > self.keeps:
            if self.ask("DELETE", "compute", f"/servers/{server}").ok:
                self.expected[server] = set()

    def change(self, server, found):
        verb = self.random.choice(self.verbs)
        action = f"/servers/{server}/action"
        if found["status"] == "VERIFY_RESIZE":
            verb = self.random.choice(["confirmResize", "revertResize"])
            if self.ask("POST", "compute", action, {verb: None}).ok:
                self.expected[server] -= {"RESIZED"}
        elif self.fence and self.fence.is_down and self.host(server) == self.fence.HOST:
            if self.ask("POST", "compute", action, {"evacuate": {}}, client=self.operator).ok:
                self.evacuations += 1
                # From 2.95 on it stays off.
                self.expected[server] |= {"SHUTOFF"}
        elif verb == "live" and found["status"] == "ACTIVE":
            body = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
            self.ask("POST", "compute", action, body, client=self.operator)
        elif verb in ("migrate", "resize"):
            body = {"migrate": None} if verb == "migrate" else {"resize": {"flavorRef": self.larger}}
            if self.ask("POST", "compute", action, body, client=self.operator if verb == "migrate" else None).ok:
                self.expected[server] |= {"RESIZED"}
        elif verb == "power":
            start = found["status"] == "SHUTOFF"
            if self.ask("POST", "compute", action, {"os-start" if start else "os-stop": None}).ok:
                self.expected[server] = {"ACTIVE" if start else "SHUTOFF", "ERROR"}
        elif verb == "reboot" and found["status"] == "ACTIVE":
            self.ask("POST", "compute", action, {"reboot": {"type": "HARD"}})
        elif verb == "interface":
            answer = self.ask("POST", "compute", f"/servers/{server}/os-interface", {"interfaceAttachment": {"net_id": self.network}})
            if answer.ok:
                self.interfaces[server] += 1
            if answer.ok and self.random.random() < 0.7:
                port = answer.json()["interfaceAttachment"]["port_id"]
                self.ask("DELETE", "compute", f"/servers/{server}/os-interface/{port}")
        elif verb == "volume":
            self.volume(server)
        elif verb == "floating":
            ports = self.client.send("GET", "network", f"/ports?device_id={server}").json().get("ports", [])
            if ports:
                body = {"floatingip": {"floating_network_id": self.external, "port_id": ports[0]["id"]}}
                answer = self.ask("POST", "network", "/floatingips", body)
                if answer.ok and self.random.random() < 0.7:
                    self.ask("DELETE", "network", f"/floatingips/{answer.json()['floatingip']['id']}")
        elif verb == "group":
            answer = self.ask("POST", "network", "/security-groups", {"security_group": {"name": "chaos"}})
            if answer.ok:
                self.ask("DELETE", "network", f"/security-groups/{answer.json()['security_group']['id']}")

    def host(self, server):
        answer = self.operator.send("GET", "compute", f"/servers/{server}")
        return answer.json()["server"]["OS-EXT-SRV-ATTR:host"] if answer.ok else None

    def volume(self, server):
        answer = self.ask("POST", "volume", "/volumes", {"volume": {"size": 1, "name": "chaos"}})
        if not answer.ok:
            return
        volume = answer.json()["volume"]["id"]
        while not self.end.reached:
            status = self.client.send("GET", "volume", f"/volumes/{volume}").json().get("volume", {}).get("status")
            if status in ("available", "error"):
                break
            time.sleep(0.3)
        self.ask("POST", "compute", f"/servers/{server}/os-volume_attachments", {"volumeAttachment": {"volumeId": volume}})
        if self.random.random() < 0.5:
            self.settled(server)
            self.ask("DELETE", "compute", f"/servers/{server}/os-volume_attachments/{volume}")
        self.volumes.append(volume)
        for old in self.volumes[:-2]:
            # Refused while it is attached to an existing server.
            if self.client.send("DELETE", "volume", f"/volumes/{old}").status_code in (202, 404):
                self.volumes.remove(old)


def kill_at_random(cloud, generator, end, kills, pause):
    """Kills processes until the end, one of each kind per round, in random order; returns the kills."""
    killed, turn = [], []
    while not end.reached and len(killed) < kills:
        time.sleep(generator.uniform(0.5, 2 * pause))
        turn = turn or generator.sample(VICTIMS, len(VICTIMS))
        victim = turn.pop()
        if victim == "qemu":
            running = guests(cloud.state)
            process = generator.choice(running) if running else None
        else:
            process = cloud.parts().get(victim, {}).get("pid")
        if process and kill(process):
            killed.append(victim)
            print(f"  {len(killed):3d} killed {victim}", flush=True)
    end.now()
    return killed


def guests(directory):
    """The processes of QEMU of a cloud or, in its directory, of host-2."""
    lines = {int(entry.name): read(entry / "cmdline") for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    return sorted(process for process, line in lines.items() if f"{directory}/".encode() in line and b"qemu-system" in line)


def kill(process):
    """Returns whether there was such a process."""
    try:
        os.kill(process, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def doctor(cloud):
    try:
        answer = cloud.osctl("doctor", "--json", check=False, limit=120)
        return [finding["words"] for finding in json.loads(answer.stdout)["findings"]]
    except (ValueError, KeyError):
        return [f"osctl doctor: {answer.stdout}{answer.stderr}"]
    except subprocess.TimeoutExpired as error:
        return [f"osctl doctor: {error}"]


def verdict(cloud, workers):
    """The current violations."""
    wrong = [f"{name} is {part['health']}" for name, part in cloud.parts().items() if part["health"] != "healthy"]
    return wrong + lost(cloud, workers) + doctor(cloud)


def lost(cloud, workers):
    """Accepted requests without the requested result."""
    wrong = []
    statuses = dict(line.split("|") for line in cloud.sql("SELECT id, coalesce(task_state, upper(vm_state)) FROM servers WHERE NOT deleted"))
    for worker in workers:
        for server, expected in worker.expected.items():
            state = {"STOPPED": "SHUTOFF"}.get(statuses.get(server), statuses.get(server))
            if not expected and state is not None:
                wrong.append(f"server {server} was deleted and is {state}")
            elif expected and state is None:
                wrong.append(f"server {server} was accepted and is gone")
            elif expected and state not in expected:
                wrong.append(f"server {server} is {state}, not {' or '.join(sorted(expected))}")
    ports = dict(line.split("|") for line in cloud.sql("SELECT server_id, count(*) FROM server_interfaces GROUP BY 1"))
    for worker in workers:
        wrong += [
            f"server {server} has {ports[server]} interfaces, {most} were accepted"
            for server, most in worker.interfaces.items() if int(ports.get(server, 0)) > most
        ]
    first, second = (cloud.domains_of(is_second, "--state-running") for is_second in (False, True))
    wrong += [f"server {domain} runs on two hosts" for domain in first & second]
    homes = dict(line.split("|") for line in cloud.sql("SELECT id, coalesce(host, '') FROM servers WHERE NOT deleted"))
    wrong += [f"server {domain} runs on host-2 and belongs to {homes[domain]}" for domain in second if homes.get(domain, "host-2") != "host-2"]
    wrong += [f"server {domain} runs on the first host and belongs to host-2" for domain in first if homes.get(domain) == "host-2"]
    known = set(statuses)
    wrong += [f"domain {domain} belongs to no server" for domain in cloud.libvirt_domains() - known]
    return wrong


def judge(question, until, pause=2):
    """Checks until there are no violations or the time is over; returns the violations.

    A question that nobody can answer yet counts as something wrong: the last process that was killed may be the
    database, which refuses everybody while it recovers.
    """
    while True:
        try:
            wrong = question()
        except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
            wrong = [f"no answer: {error}"]
        if not wrong or time.monotonic() >= until:
            return wrong
        time.sleep(pause)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=["random", "broker"], default="random")
    parser.add_argument("--kills", type=int, default=50, help="how many processes to kill")
    parser.add_argument("--minutes", type=float, default=8, help="at most so long, however few were killed")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--pause", type=float, default=4, help="seconds between kills, on average")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--port-offset", type=int, default=1500)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="wolke-chaos.", dir="/tmp") as state:
        os.chmod(state, 0o755)
        cloud = Cloud(state, arguments.port_offset)
        try:
            sys.stdout.write(cloud.up())
            return broker(cloud) if arguments.case == "broker" else run(cloud, arguments, state)
        finally:
            cloud.down()


def broker(cloud, servers=200, hosts=20):
    """200 creates are accepted while RabbitMQ is down; it returns without its data, and all servers become ACTIVE."""
    fleet = subprocess.Popen(
        [BUILD / "wolke-compute-agent", "simulate", "--config", cloud.state / "wolke.yaml", "--southbound",
         f"unix:{cloud.state}/ovn/run/sb.sock", "--hosts", str(hosts), "--prefix", "sim"],
        stdout=(cloud.state / "log" / "simulated-hosts.log").open("w"), stderr=subprocess.STDOUT)
    try:
        return lost_broker(cloud, servers, hosts)
    finally:
        fleet.terminate()
        fleet.wait()


def lost_broker(cloud, servers, hosts):
    admin = cloud.admin
    wait("simulated hosts", lambda: int(cloud.sql("SELECT count(*) FROM resource_providers WHERE host LIKE 'sim-%' AND enabled")[0]) == hosts)
    project = admin.current_project_id
    admin.set_compute_quotas(project, instances=-1, cores=-1, ram=-1)
    zone = admin.compute.create_aggregate(name="simulated", availability_zone="simulated")
    for host in cloud.sql("SELECT host FROM resource_providers WHERE host LIKE 'sim-%'"):
        admin.compute.add_host_to_aggregate(zone.id, host)
    body = {
        "name": "lost", "imageRef": admin.image.find_image("guest").id, "flavorRef": admin.compute.find_flavor("m1.nano").id,
        "networks": "none", "availability_zone": "simulated",
    }
    cloud.stop("rabbitmq")
    url = f"http://127.0.0.1:{servicelist.service('compute')['port'] + cloud.port_offset}/v2.1/servers"
    headers = {"X-Auth-Token": admin.auth_token, "OpenStack-API-Version": "compute 2.96"}
    session = requests.Session()
    answers = [session.post(url, json={"server": body}, headers=headers, timeout=20) for _ in range(servers)]
    accepted = sum(answer.status_code == 202 for answer in answers)
    shutil.rmtree(cloud.state / "rabbitmq" / "mnesia")
    cloud.start("rabbitmq")
    started = time.monotonic()

    def states():
        return dict(line.split("|") for line in cloud.sql("SELECT vm_state, count(*) FROM servers WHERE NOT deleted GROUP BY 1"))

    all_active = lambda: states() == {"active": str(accepted)}  # noqa: E731
    try:
        wait("all are active", all_active, 180)
    except AssertionError as error:
        print(f"VIOLATION: {error}: {states()}")
    took = time.monotonic() - started
    wrong = doctor(cloud)
    print(f"{accepted} of {servers} creates accepted without a broker; its data deleted; {states()} {took:.0f} s after its start; {len(wrong)} rules broken")
    for line in wrong[:20]:
        print(f"VIOLATION: {line}")
    return 1 if wrong or accepted != servers or not all_active() else 0


def run(cloud, arguments, state):
    tenant = Tenant(cloud, state)
    cloud.admin.set_volume_quotas(tenant.project.id, volumes=-1, gigabytes=-1)
    end = End(arguments.minutes * 60)
    fence = Fence(cloud, arguments.seed, end)
    workers = [Worker(number, cloud, tenant, arguments.seed, end, fence) for number in range(arguments.workers)]
    for thread in [fence, *workers]:
        thread.start()
    begun = time.monotonic()
    killed = kill_at_random(cloud, random.Random(arguments.seed), end, arguments.kills, arguments.pause)
    took = time.monotonic() - begun
    for thread in [fence, *workers]:
        thread.join()
    # Counted from the last kill, including requests in progress, or from the return of host-2.
    stopped = max(end.at, fence.ended)
    wrong = judge(lambda: verdict(cloud, workers), stopped + CONVERGENCE)
    converged = time.monotonic() - stopped
    problems = [problem for thread in [fence, *workers] for problem in thread.problems]
    faults, left = [], False
    refused = [text for worker in workers for text in worker.refused]
    accepted = sum(worker.accepted for worker in workers)
    # Services that did not recover in time may not answer here either; the report is printed in any case.
    try:
        faults = cloud.sql("SELECT coalesce(fault->>'message', '?'), count(*) FROM servers WHERE NOT deleted AND vm_state = 'error' GROUP BY 1")
        tenant.close()
        left = wait("nothing is left", lambda: not cloud.sql("SELECT consumer_id FROM allocations") and not cloud.libvirt_domains(), CONVERGENCE)
    except Exception as error:
        problems.append(f"at the end: {type(error).__name__}: {error}")
    wrong += doctor(cloud)
    print(
        f"seed {arguments.seed}: {len(killed)} kills of {len(set(killed))} kinds in {took:.0f} s, {accepted} accepted requests, "
        f"{fence.outages} outages of {fence.HOST}, {sum(worker.evacuations for worker in workers)} evacuations, "
        f"{sum(len(worker.expected) for worker in workers)} servers; converged {converged:.0f} s after the last kill; "
        f"nothing left: {left}; {len(wrong) + len(problems)} violations")
    for title, lines in (("refused", refused), ("ERROR", faults), ("problem", problems), ("VIOLATION", wrong)):
        for line in lines[:20]:
            print(f"{title}: {line}")
    return 1 if wrong or problems else 0


if __name__ == "__main__":
    sys.exit(main())
