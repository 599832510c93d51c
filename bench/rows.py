"""The rows of the report. Each takes the cloud, seconds and repetitions, and returns what it measured."""

import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from cloud import SERVICES, Cloud, pss_kib
from load import call, pgbench, serving, wait_for, wrk
from measure import Ratio, Row, interleave

CONNECTIONS = 16


def ratio_row(name: str, meaning: str, ratio: Ratio, floor: str, goal: str, unit: str) -> Row:
    low, high = ratio.interval
    details = (
        f"95 % {low:.2f}–{high:.2f}; medians {statistics.median(ratio.ours):.0f} and "
        f"{statistics.median(ratio.peer):.0f} {unit}"
    )
    return Row(name, meaning, f"{ratio.value:.2f}", floor, goal, details)


def against_bare(cloud: Cloud, url: str, headers: dict[str, str], seconds: int, repetitions: int) -> Ratio:
    """Requests per second of a GET, and of the bare server with the same bytes."""
    _, body, _ = call("GET", url, headers=headers)
    with serving(cloud.binaries / "wolke-bench", 18080 + cloud.offset % 1000, body) as bare:
        return interleave(
            lambda: wrk(url, headers=headers, seconds=seconds, connections=CONNECTIONS),
            lambda: wrk(bare, headers=headers, seconds=seconds, connections=CONNECTIONS),
            repetitions,
        )


def token_validation(cloud: Cloud, seconds: int, repetitions: int) -> Row:
    token = cloud.token("admin")
    ratio = against_bare(
        cloud, cloud.url("identity") + "/v3/auth/tokens", {"X-Auth-Token": token, "X-Subject-Token": token}, seconds,
        repetitions)
    return ratio_row("M1", "token validation ÷ bare Hummingbird, same bytes", ratio, "0.5", "0.8", "requests/s")


def password_sign_on(cloud: Cloud, seconds: int, repetitions: int) -> Row:
    """The peer is crypt(3) with the stored hash's own cost, on all cores."""
    stored = cloud.sql("SELECT password_hash FROM users WHERE name = 'demo' AND domain_id = 'default'")[0]
    body = json.dumps(cloud.sign_on_body("demo"))
    script = f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [==[{body}]==]\n"
    hasher = [cloud.binaries / "wolke-bench", "hash", "--like", stored, "--seconds", str(seconds)]

    def hashes() -> float:
        output = subprocess.run(hasher, check=True, capture_output=True, text=True).stdout
        return json.loads(output)["hashes_per_second"]

    ratio = interleave(
        lambda: wrk(
            cloud.url("identity") + "/v3/auth/tokens", headers={}, seconds=seconds, connections=CONNECTIONS, script=script),
        hashes,
        repetitions,
    )
    return ratio_row("M3", "password sign-ons ÷ hashes at the same cost on all cores", ratio, "0.85", "0.98", "per second")


def idle_memory(cloud: Cloud, seconds: int, repetitions: int) -> Row:
    processes = cloud.processes()
    missing = [name for name in SERVICES if f"wolke-{name}" not in processes]
    if missing:
        raise RuntimeError(f"not running: {', '.join(missing)}")
    sizes = {name: sum(pss_kib(pid) for pid in pids) / 1024 for name, pids in sorted(processes.items())}
    details = ", ".join(f"{name.removeprefix('wolke-')} {size:.0f}" for name, size in sizes.items())
    return Row("M30", "resident memory (PSS) of all Wolke processes, idle", f"{sum(sizes.values()):.0f} MB", "300 MB", "150 MB", details)


def start_time(cloud: Cloud, seconds: int, repetitions: int) -> Row:
    """A second process of each service on a free port, exec to the first 200 of /readyz."""
    times = {}
    for index, name in enumerate(("identity", "placement", "image", "network", "block-storage", "compute")):
        port = 19100 + cloud.offset % 1000 + index
        key = f"WOLKE_ENDPOINTS_{name.replace('-', '_').upper()}_PORT"
        samples = []
        for _ in range(3):
            with tempfile.TemporaryFile() as log:
                started = time.monotonic()
                process = subprocess.Popen(
                    [cloud.binaries / f"wolke-{name}", "--config", cloud.state / "wolke.yaml"],
                    env={**os.environ, key: str(port)}, stdout=log, stderr=log)
                try:
                    wait_for(f"http://127.0.0.1:{port}/readyz")
                    samples.append((time.monotonic() - started) * 1000)
                finally:
                    process.terminate()
                    process.wait()
        times[name] = statistics.median(samples)
    details = ", ".join(f"{name} {value:.0f}" for name, value in times.items())
    return Row("M31", "start of a service, exec to ready", f"{max(times.values()):.0f} ms", "300 ms", "50 ms", details + " ms; the slowest counts")


def command_line(cloud: Cloud, seconds: int, repetitions: int) -> Row:
    """Wall time of listing servers with the stock client and with osctl."""
    environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(cloud.state / "clouds.yaml"), "OS_CLOUD": "wolke-demo"}
    stock = pathlib.Path(__file__).parent.parent / ".venv/bin/openstack"

    def wall(program: pathlib.Path) -> float:
        started = time.monotonic()
        subprocess.run([program, "server", "list"], env=environment, check=True, capture_output=True)
        return time.monotonic() - started

    wall(cloud.binaries / "osctl")
    ratio = interleave(lambda: wall(cloud.binaries / "osctl"), lambda: wall(stock), min(repetitions, 5))
    details = f"medians {statistics.median(ratio.ours) * 1000:.0f} ms and {statistics.median(ratio.peer) * 1000:.0f} ms"
    return Row("M33", "osctl server list ÷ openstack server list, wall", f"1/{1 / ratio.value:.0f}", "1/20", "1/60", details)


ALL = {
    "m1": token_validation,
    "m3": password_sign_on,
    "m30": idle_memory,
    "m31": start_time,
    "m33": command_line,
}
