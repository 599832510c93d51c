"""Rows with many simulated hosts: the whole control plane under load."""

import json
import statistics
import subprocess

from cloud import memory
from measure import Row


def simulate(cloud, *arguments: str) -> dict:
    """The report of `osctl simulate`; a run that violates an invariant or loses a server is not counted."""
    program = [cloud.binaries / "osctl", "simulate", "--state", cloud.state, "--json", "--timeout", "900", *arguments]
    result = subprocess.run(program, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"osctl simulate: {result.stdout[-2000:]} {result.stderr[-2000:]}")
    report = json.loads(result.stdout)
    if report["active"] != report["servers"] or report["broken_rules"]:
        raise RuntimeError(f"{report['active']} of {report['servers']} servers came up; {report['broken_rules'][:5]}")
    return report


def fleet(cloud, size) -> list[Row]:
    hosts, servers = size.many(1000), size.many(10_000)
    report = simulate(cloud, "--hosts", str(hosts), "--servers", str(servers))
    span = report["makespan_seconds"]
    total, details = memory(cloud)
    return [
        Row(
            "M17", f"{servers} servers over {hosts} simulated hosts, first POST to last ACTIVE", f"{span:.1f} s", "120 s", "30 s",
            f"{report['active'] / span:.0f} per second; POST p50 {report['post_seconds']['p50'] * 1000:.0f} ms, "
            f"p99 {report['post_seconds']['p99'] * 1000:.0f} ms; all deleted afterwards, all rules hold"),
        Row("M30b", "resident memory (PSS) of all Wolke processes after M17", f"{total:.0f} MB", "600 MB", "300 MB", details),
    ]


def flatness(cloud, size) -> Row:
    """From the POST to ACTIVE; each of the 50 waits for its server before it requests the next one."""

    def median(concurrency: int, servers: int) -> float:
        report = simulate(
            cloud, "--hosts", "50", "--servers", str(servers), "--concurrency", str(concurrency), "--follow")
        return report["build_seconds"]["p50"]

    pairs = [(median(50, size.many(1000)), median(1, size.many(40))) for _ in range(min(size.repetitions, 3))]
    together, alone = (statistics.median(values) for values in zip(*pairs))
    return Row(
        "M18", "p50 of create, POST to ACTIVE, at 50 concurrent ÷ at 1", f"{together / alone:.2f}", "3", "1.2",
        f"{together * 1000:.0f} ms and {alone * 1000:.0f} ms, of which the simulated host takes 200 ms")


ROWS = {"m17": fleet, "m18": flatness}
