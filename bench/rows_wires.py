"""Rows about the broker and OVN."""

import contextlib
import json
import os
import queue
import re
import signal
import statistics
import subprocess
import threading
import time

from cloud import commands
from load import call
from measure import Row, interleave, ratio_row


def round_trips(cloud, size) -> Row:
    url = re.search(r'^messaging:\n  url: "([^"]*)"', (cloud.state / "wolke.yaml").read_text(), re.MULTILINE).group(1)

    def rate(*arguments: str) -> float:
        program = [cloud.binaries / "wolke-bench", "round-trips", "--broker", url, "--seconds", str(size.seconds), *arguments]
        return json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)["round_trips_per_second"]

    ratio = interleave(rate, lambda: rate("--raw"), size.repetitions)
    row = ratio_row("M21", "command round trip over AMQP ÷ raw librabbitmq, equal durability", ratio, "0.5", "0.9", "per second")
    row.details += f"; 32 at once {rate('--concurrency', '32'):.0f} per second"
    return row


class Watch:
    """Watches ports arrive in OVN's northbound database."""

    def __init__(self, cloud):
        self.names: queue.Queue[tuple[str, float]] = queue.Queue()
        self.process = subprocess.Popen(
            [cloud.binaries / "wolke-bench", "watch-ports", "--northbound", northbound(cloud)], stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "watching\n":
            raise RuntimeError("OVN's northbound database cannot be watched")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.names.put((line.strip(), time.monotonic()))

    def wait(self, ports: set[str], seconds: float = 120) -> float:
        """When the last of these arrived."""
        left, last, end = set(ports), 0.0, time.monotonic() + seconds
        while left:
            name, at = self.names.get(timeout=max(0.1, end - time.monotonic()))
            if name in left:
                left.discard(name)
                last = max(last, at)
        return last


@contextlib.contextmanager
def watching(cloud):
    watch = Watch(cloud)
    try:
        yield watch
    finally:
        watch.process.kill()
        watch.process.wait()


def northbound(cloud) -> str:
    return f"unix:{cloud.state}/ovn/run/nb.sock"


class Tenant:
    """A network with room for many ports, without a limit on them."""

    BULK = 100

    def __init__(self, cloud):
        self.cloud = cloud
        self.headers = {"X-Auth-Token": cloud.token("admin")}
        self.url = cloud.url("network") + "/v2.0"
        token = call("GET", cloud.url("identity") + "/v3/auth/tokens", headers={**self.headers, "X-Subject-Token": self.headers["X-Auth-Token"]})
        project = token[2]["token"]["project"]["id"]
        call("PUT", f"{self.url}/quotas/{project}", {"quota": {"port": -1, "network": -1, "subnet": -1}}, headers=self.headers)
        self.network = call("POST", self.url + "/networks", {"network": {"name": "bench-ports"}}, headers=self.headers)[2]["network"]["id"]
        subnet = {"network_id": self.network, "cidr": "10.64.0.0/10", "ip_version": 4}
        call("POST", self.url + "/subnets", {"subnet": subnet}, headers=self.headers)

    def one(self) -> str:
        return call("POST", self.url + "/ports", {"port": {"network_id": self.network}}, headers=self.headers)[2]["port"]["id"]

    def fill(self, count: int) -> dict:
        """Adds ports in bulk from two connections; how long that took until the last was in OVN, and the rate."""
        program = [
            self.cloud.binaries / "wolke-bench", "port-creates", "--northbound", northbound(self.cloud), "--url", self.url,
            "--network", self.network, "--count", str(count), "--bulk", str(self.BULK)]
        environment = {**os.environ, "OS_TOKEN": self.headers["X-Auth-Token"]}
        result = subprocess.run(program, env=environment, capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"port-creates: {result.stderr[:1000]}")
        return json.loads(result.stdout)


def port_creates(cloud, size) -> Row:
    ratio = port_rates(cloud, size, size.repetitions, settle)
    row = ratio_row("M23", "port creates committed to OVN NB ÷ raw OVSDB batches", ratio, "0.4", "0.9", "per second")
    row.details += f"; bulk requests and batches of {Tenant.BULK}"
    return row


def port_creates_alone(cloud, size) -> Row:
    """The row above without ovn-northd, on which neither side depends, using the processor."""
    with without_northd(cloud):
        ratio = port_rates(cloud, size, min(size.repetitions, 3), lambda _: None)
    return ratio_row("M23b", "the same while ovn-northd is stopped, on both sides", ratio, "–", "–", "per second")


def port_rates(cloud, size, repetitions: int, settle):
    tenant, ports = Tenant(cloud), size.many(2000)
    took = tenant.fill(ports)["seconds"]

    def ours() -> float:
        nonlocal took
        settle(cloud)
        filled = tenant.fill(ports)
        took = filled["seconds"]
        return filled["ports_per_second"]

    # For the same time as ours: a burst would be over before ovn-northd starts processing it.
    def peer() -> float:
        settle(cloud)
        program = [
            cloud.binaries / "wolke-bench", "port-batches", "--northbound", northbound(cloud), "--seconds", str(took),
            "--keep", str(ports), "--batch", str(Tenant.BULK)]
        return json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)["ports_per_second"]

    return interleave(ours, peer, repetitions)


@contextlib.contextmanager
def without_northd(cloud):
    found = [process for process, arguments in commands() if f"--ovnnb-db={northbound(cloud)}" in arguments]
    if not found:
        raise RuntimeError("ovn-northd does not run")
    for process in found:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in found:
            os.kill(process, signal.SIGCONT)
        settle(cloud)


def settle(cloud) -> None:
    """Waits until ovn-northd has processed its backlog, which is not part of the cost of the next port."""
    subprocess.run(["ovn-nbctl", f"--db={northbound(cloud)}", "--timeout=300", "--wait=sb", "sync"], check=True)


def port_cost(cloud, size) -> Row:
    """From the POST of one port to its row in OVN, in one network."""
    tenant, few, many = Tenant(cloud), size.many(200), size.many(20_000)
    with watching(cloud) as watch:

        def median() -> float:
            settle(cloud)
            times = []
            for _ in range(max(5, size.many(60))):
                begun = time.monotonic()
                times.append(watch.wait({tenant.one()}) - begun)
            return statistics.median(times)

        tenant.fill(few)
        small = median()
        tenant.fill(many - few)
        large = median()
    return Row(
        "M24", f"cost of a port create at {many} ports ÷ at {few}", f"{large / small:.2f}", "1.5", "1.0",
        f"POST to OVN NB {large * 1000:.1f} ms and {small * 1000:.1f} ms")

