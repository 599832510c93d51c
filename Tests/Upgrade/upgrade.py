"""make test-upgrade: upgrades a cloud of the previous release to this tree's under load; afterwards everything must be in order.

The previous release's supervisor runs database, broker, OVN, libvirt and its own services. Each service of this tree is
started next to its predecessor on another port, then the old one is stopped and a second new one takes over its port;
then the agents are replaced, host by host. With `--case machine` it is `osctl cloud upgrade` that replaces them. The load is that of `make chaos`: clients that know both addresses, as a
load balancer does, and repeat a request with its Idempotency-Key when a connection breaks.

WOLKE_UPGRADE_LOGS names a directory to which the logs are copied at the end.
"""

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Tests" / "System"), str(ROOT / "Tests" / "Chaos")]

import chaos  # noqa: E402
import servicelist  # noqa: E402
from wolkecloud import BUILD, Cloud, Tenant, wait  # noqa: E402

SERVICES = {name: service["port"] for name, service in servicelist.services().items() if not service["is_optional"]}
SECOND = 100  # added to the ports of the replicas beside the first ones
OPERATOR = 10_000


class Upgraded(Cloud):
    """A cloud whose supervisor and first services are the previous release's."""

    def __init__(self, state, port_offset, previous):
        super().__init__(state, port_offset)
        self.previous = Path(previous).resolve()  # The path, as it appears in the command lines of its processes.
        self.supervisor = self.previous

    def osctl(self, *arguments, check=True, limit=300):
        if arguments[0] != "cloud":
            return super().osctl(*arguments, check=check, limit=limit)
        result = subprocess.run(
            [self.supervisor / "osctl", *arguments], capture_output=True, text=True, timeout=limit, env={**os.environ, "STATE": str(self.state)})
        if check and result.returncode != 0:
            raise AssertionError(f"osctl {' '.join(map(str, arguments))}: {result.stdout}\n{result.stderr}")
        return result

    def replicas(self):
        return self.sql("SELECT service, release, count(*) FROM service_replicas GROUP BY 1, 2 ORDER BY 1, 2")


class Fleet:
    """The replicas of this tree's release, and the addresses of a load balancer."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.processes = {}
        self.ports = {name: [port + cloud.port_offset] for name, port in SERVICES.items()}
        self.turns = dict.fromkeys(SERVICES, 0)
        self.lock = threading.Lock()
        text = (cloud.state / "wolke.yaml").read_text()
        self.beside = cloud.state / "wolke-beside.yaml"
        self.beside.write_text(re.sub(
            r"^(  (?!agent)\w+_port: )(\d+)$", lambda found: f"{found[1]}{int(found[2]) + SECOND}", text, flags=re.M))
        self.beside.chmod(0o600)

    def base(self, service):
        """The next address in turn."""
        with self.lock:
            self.turns[service] += 1
            known = self.ports[service]
            return f"http://127.0.0.1:{known[self.turns[service] % len(known)]}"

    def launch(self, name, command, **extra):
        log = (self.cloud.state / "log" / f"{name}.log").open("a")
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/root"}
        self.processes[name] = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=subprocess.STDOUT, cwd=self.cloud.state, env=environment, start_new_session=True, **extra)

    def start(self, service, second):
        """Starts a replica and waits until it is ready; then it gets requests."""
        name = f"new-{service}{'-beside' if second else ''}"
        self.launch(name, [BUILD / f"wolke-{service}", "--config", self.beside if second else self.cloud.state / "wolke.yaml"])
        port = SERVICES[service] + self.cloud.port_offset + (SECOND if second else 0)
        wait(f"{name} is ready", lambda: self.problem(name, "127.0.0.1", port + OPERATOR) is None, 60, 0.05)
        if second:
            self.ports[service].append(port)

    def problem(self, name, host, port):
        """A description of why a replica is not ready."""
        if self.processes[name].poll() is not None:
            raise AssertionError(f"{name} ended with {self.processes[name].returncode}: {self.tail(name)}")
        try:
            answer = requests.get(f"http://{host}:{port}/readyz", timeout=5)
            return None if answer.status_code == 200 else f"{name}: {answer.text.strip()}"
        except requests.RequestException as error:
            return f"{name}: {error}"

    def tail(self, name):
        return " | ".join((self.cloud.state / "log" / f"{name}.log").read_text().splitlines()[-3:])

    def problems(self):
        found = [f"{name} ended: {self.tail(name)}" for name, process in self.processes.items() if process.poll() is not None]
        return found + [f"{name} is {part['health']}" for name, part in self.cloud.parts().items()
                        if part["health"] != "healthy" and (self.cloud.supervisor == BUILD or not name.startswith("wolke-"))]

    def stop(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


class Balanced(chaos.Client):
    """A client that uses the next replica if one does not answer."""

    fleet = None

    def url(self, service, path):
        return self.fleet.base(servicelist.service(service)["name"]) + servicelist.prefix(service, self.tenant.project.id) + path


class Uploads(threading.Thread):
    """Uploads slow images, one after the other."""

    def __init__(self, fleet, tenant, end):
        super().__init__(name="uploads")
        self.fleet, self.end = fleet, end
        self.client = Balanced(fleet.cloud, tenant, end)
        self.token = lambda: {"X-Auth-Token": tenant.api.auth_token}
        self.done = self.interrupted = 0
        self.problems = []

    def run(self):
        try:
            while not self.end.reached:
                self.one()
        except Exception as error:
            self.problems.append(f"{self.name}: {type(error).__name__}: {error}")

    def one(self):
        content = os.urandom(1 << 20)
        body = {"name": "slow", "disk_format": "raw", "container_format": "bare"}
        image = self.client.send("POST", "image", "/images", body).json()["id"]

        def pieces():
            for start in range(0, len(content), 1 << 15):
                time.sleep(0.1)
                yield content[start:start + (1 << 15)]

        try:
            answer = requests.put(
                self.client.url("image", f"/images/{image}/file"), data=pieces(), timeout=60,
                headers={**self.token(), "Content-Type": "application/octet-stream"})
            accepted = answer.status_code == 204
        except requests.RequestException:
            accepted = False
        if accepted:
            found = self.client.send("GET", "image", f"/images/{image}").json()
            if found["status"] != "active" or found["os_hash_value"] != hashlib.sha512(content).hexdigest():
                self.problems.append(f"the upload of image {image} was accepted and is {found['status']}")
            self.done += 1
        else:
            self.interrupted += 1
        answer = self.client.send("DELETE", "image", f"/images/{image}")
        if answer.status_code not in (204, 404):
            self.problems.append(f"image {image} cannot be deleted: {answer.status_code} {answer.text[:200]}")


def probed(document, version, project, answers):
    """The path of a service that probes request: the first collection of its OpenAPI document in which tenants can create and that answers
    the tenant; the version's document where there is none."""
    for template, operations in document["paths"].items():
        path = re.sub(r"\{\w*project\w*\}", project, template)
        if "{" not in path and {"get", "post"} <= operations.keys() and answers(path):
            return path
    return version or "/"


class Probe(threading.Thread):
    """Sends twenty requests a second to one service, to any replica; records the longest time without a response."""

    def __init__(self, fleet, tenant, service, end):
        super().__init__(name=f"probe-{service}", daemon=True)
        self.fleet, self.service, self.end = fleet, service, end
        self.token = tenant.api.auth_token
        operators = f"http://127.0.0.1:{SERVICES[service] + fleet.cloud.port_offset + OPERATOR}"
        self.path = probed(
            requests.get(f"{operators}/openapi.json", timeout=20).json(), servicelist.prefix(service), tenant.project.id,
            lambda path: requests.get(fleet.base(service) + path, headers={"X-Auth-Token": self.token}, timeout=20).status_code == 200)
        self.answers = self.broken = 0
        self.longest = self.slowest = 0.0
        self.failures = []
        self.last = time.monotonic()

    def report(self):
        """A report since the last one."""
        text = (f"{self.service} {self.answers} answers, {self.broken} connections refused or broken, longest without an answer "
                f"{self.longest * 1000:.0f} ms, slowest answer {self.slowest * 1000:.0f} ms")
        self.answers = self.broken = 0
        self.longest = self.slowest = 0.0
        self.last = time.monotonic()
        return text

    def run(self):
        session = requests.Session()
        while not self.end.reached:
            begun = time.monotonic()
            try:
                answer = session.get(self.fleet.base(self.service) + self.path, headers={"X-Auth-Token": self.token}, timeout=20)
            except requests.RequestException:
                self.broken += 1
                continue
            now = time.monotonic()
            if answer.status_code < 400:
                self.answers += 1
                self.longest, self.last = max(self.longest, now - self.last), now
                self.slowest = max(self.slowest, now - begun)
            elif answer.status_code != 503 or not answer.headers.get("Retry-After"):
                self.failures.append(f"{self.service}: {answer.status_code} {answer.text[:200]}")
            time.sleep(0.05)


def say(begun, text):
    print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)


def replace_agent(fleet, part, begun):
    """The new agent waits in the old one's namespaces until that has ended, and replaces it."""
    cloud = fleet.cloud
    old = cloud.parts()[part]["pid"]
    command = Path(f"/proc/{old}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    assert command[0] == str(cloud.previous / "wolke-compute-agent"), command
    name = f"new-{part.removeprefix('wolke-')}"
    fleet.launch(name, ["nsenter", "-t", old, "-m", "-n", "sh", "-c", 'while [ -e "/proc/$1/exe" ]; do sleep 0.05; done; shift; exec "$@"', "sh",
                        old, BUILD / "wolke-compute-agent", *command[1:]])
    cloud.stop(part)
    host = "127.0.0.1" if "@" not in part else cloud.parts()[part]["address"].split("/")[2].split(":")[0]
    wait(f"{name} is ready", lambda: fleet.problem(name, host, 8790 + cloud.port_offset) is None, 60, 0.05)
    say(begun, f"{part} is replaced")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--previous", required=True, help="directory with the previous release's executables")
    parser.add_argument("--case", choices=["replicas", "machine"], default="replicas")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15, help="load before the first and after the last step, and between steps a third of it")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--port-offset", type=int, default=1500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wolke-upgrade.", dir="/tmp") as state:
        os.chmod(state, 0o755)
        cloud = Upgraded(state, arguments.port_offset, arguments.previous)
        fleet = None
        try:
            sys.stdout.write(cloud.up())
            fleet = Fleet(cloud)
            return upgrade(cloud, fleet, arguments)
        finally:
            if fleet:
                fleet.stop()
            cloud.down()
            if os.environ.get("WOLKE_UPGRADE_LOGS"):
                shutil.copytree(Path(state) / "log", os.environ["WOLKE_UPGRADE_LOGS"], dirs_exist_ok=True)


def upgrade(cloud, fleet, arguments):
    begun = time.monotonic()
    tenant = Tenant(cloud, cloud.state)
    cloud.admin.set_volume_quotas(tenant.project.id, volumes=-1, gigabytes=-1)
    cloud.admin.set_compute_quotas(tenant.project.id, instances=-1, cores=-1, ram=-1)
    Balanced.fleet = fleet
    chaos.Client = Balanced
    chaos.Worker.verbs = tuple(verb for verb in chaos.Worker.verbs if verb not in ("live", "migrate", "resize"))
    end = chaos.End(3600)
    workers = [chaos.Worker(number, cloud, tenant, arguments.seed, end) for number in range(arguments.workers)]
    for worker in workers:
        worker.keeps = 2  # The two hosts have room for all of them, so that each create must succeed.
    uploads = Uploads(fleet, tenant, end)
    probes = [Probe(fleet, tenant, service, end) for service in SERVICES]
    for thread in [*workers, uploads, *probes]:
        thread.start()
    problems = []
    try:
        (machine if arguments.case == "machine" else steps)(cloud, fleet, arguments, begun, probes)
    except Exception as error:
        problems.append(f"the upgrade: {type(error).__name__}: {error}")
    end.now()
    for thread in [*workers, uploads, *probes]:
        thread.join()
    stopped = time.monotonic()

    def question():
        wrong = fleet.problems() + chaos.lost(cloud, workers) + chaos.doctor(cloud)
        wrong += [f"work is not finished: {line}" for line in cloud.sql("SELECT kind, step, last_error FROM workflows WHERE finished_at IS NULL")]
        return wrong + [f"a volume is {line}" for line in cloud.sql("SELECT status, id FROM volumes WHERE status NOT IN ('available', 'in-use')")]

    for worker in workers:
        for expected in worker.expected.values():
            expected.discard("ERROR")
    wrong = chaos.judge(question, stopped + 2 * chaos.CONVERGENCE)
    converged = time.monotonic() - stopped
    failed = cloud.sql("SELECT kind, step, last_error, count(*) FROM workflows WHERE state = 'failed' AND last_error <> 'interrupted by delete' GROUP BY 1, 2, 3")
    finished = cloud.sql("SELECT count(*) FROM workflows WHERE state = 'done'")[0]
    problems += [problem for thread in [*workers, uploads] for problem in thread.problems]
    problems += [failure for probe in probes for failure in probe.failures[:5]]
    refused = [text for worker in workers for text in worker.refused]
    left = False
    try:
        tenant.close()
        left = wait("nothing is left", lambda: not cloud.sql("SELECT consumer_id FROM allocations") and not cloud.libvirt_domains(), chaos.CONVERGENCE)
        wrong += chaos.doctor(cloud)
    except Exception as error:
        problems.append(f"at the end: {type(error).__name__}: {error}")
    print(
        f"seed {arguments.seed}: {sum(worker.accepted for worker in workers)} accepted requests, {sum(len(worker.expected) for worker in workers)} servers, "
        f"{finished} workflows finished, {len(failed)} kinds of failed ones; {uploads.done} slow uploads, {uploads.interrupted} interrupted; "
        f"converged {converged:.0f} s after the end; nothing left: {left}; {len(wrong) + len(problems) + len(failed)} violations")
    for probe in probes:
        print("  since then: " + probe.report())
    for title, lines in (("refused", refused), ("problem", problems), ("FAILED WORK", failed), ("VIOLATION", wrong)):
        for line in lines[:20]:
            print(f"{title}: {line}")
    return 1 if wrong or problems or failed else 0


def machine(cloud, fleet, arguments, begun, probes):
    """The one-machine cloud's own command."""
    time.sleep(arguments.seconds)
    before = {name: part["pid"] for name, part in cloud.parts().items()}
    guests = cloud.sql("SELECT count(*) FROM servers WHERE vm_state = 'active' AND NOT deleted")[0]
    say(begun, f"{guests} servers are active; before the upgrade:")
    for probe in probes:
        say(begun, "  " + probe.report())
    cloud.supervisor = BUILD
    say(begun, "osctl cloud upgrade: " + cloud.osctl("cloud", "upgrade").stdout.strip().splitlines()[-1])
    after = cloud.parts()
    for name, pid in before.items():
        if (after[name]["pid"] == pid) == name.startswith("wolke-"):
            raise AssertionError(f"{name} was process {pid} and is {after[name]['pid']}")
    time.sleep(arguments.seconds)
    say(begun, "during the upgrade:")
    for probe in probes:
        say(begun, "  " + probe.report())
    # Processes that the new supervisor did not start are watched too.
    for part in ("postgres", "ovn-northd"):
        cloud.kill(part)
        say(begun, f"{part} was killed and is back")
    say(begun, "contracting: " + cloud.osctl("db", "contract", "--config", str(cloud.state / "wolke.yaml")).stdout.strip())
    say(begun, "replicas: " + ", ".join(cloud.replicas()))
    time.sleep(arguments.seconds)


def steps(cloud, fleet, arguments, begun, probes):
    pause = arguments.seconds / 3
    config = str(cloud.state / "wolke.yaml")
    time.sleep(arguments.seconds)
    say(begun, "migrating: " + cloud.osctl("db", "migrate", "--config", config).stdout.strip())
    # Processes that crash now must restart as the previous release.
    for part in ("wolke-placement", "wolke-compute"):
        cloud.kill(part)
        say(begun, f"{part} of the previous release was killed and is back on the new schema")
    for service in SERVICES:
        fleet.start(service, second=True)
        say(begun, f"wolke-{service} of this release runs beside the old one")
    early = cloud.osctl("db", "contract", "--config", config, check=False)
    say(begun, "contracting too early: " + (early.stdout + early.stderr).strip().splitlines()[0])
    if early.returncode == 0 and not early.stdout.startswith("Nothing is pending"):
        raise AssertionError(f"the schema was contracted under running services: {early.stdout}")
    time.sleep(arguments.seconds)
    say(begun, "up to here, with two crashes of the only replica:")
    for probe in probes:
        say(begun, "  " + probe.report())
    for service in SERVICES:
        cloud.stop(f"wolke-{service}")
        stopped = time.monotonic()
        fleet.start(service, second=False)
        say(begun, f"the old wolke-{service} is stopped; a second new one took its port {time.monotonic() - stopped:.1f} s later")
        time.sleep(pause)
    for part in sorted(name for name in cloud.parts() if name.startswith("wolke-compute-agent")):
        replace_agent(fleet, part, begun)
        time.sleep(pause)
    say(begun, "contracting: " + cloud.osctl("db", "contract", "--config", config).stdout.strip())
    say(begun, "replicas: " + ", ".join(cloud.replicas()))
    time.sleep(arguments.seconds)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
