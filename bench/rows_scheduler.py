"""Rows about the scheduler and the workflow engine."""

import json
import re
import statistics
import subprocess

from capture import capture, pgbench_script, transaction
from load import call, latency, pgbench
from measure import Row, interleave, ratio_row
from scratch import scratch

CANDIDATES = """
INSERT INTO resource_providers (id, name, root_id, generation, created_at, updated_at)
SELECT g, 'bench-' || n, g, 1, now(), now() FROM (SELECT n, md5('bench' || n)::uuid g FROM generate_series(1, {providers}) n) s;
INSERT INTO inventories (resource_provider_id, resource_class, total, reserved, min_unit, max_unit, step_size, allocation_ratio,
    created_at, updated_at)
SELECT p.id, c, t, 0, 1, t, 1, 1, now(), now() FROM resource_providers p,
    (VALUES ('VCPU', 64), ('MEMORY_MB', 262144), ('DISK_GB', 2000)) v (c, t) WHERE p.name LIKE 'bench-%';
INSERT INTO consumers (id, project_id, user_id, consumer_type, generation, created_at, updated_at)
SELECT md5('bench consumer' || n)::uuid, 'bench', 'bench', 'INSTANCE', 1, now(), now() FROM generate_series(1, {consumers}) n;
INSERT INTO allocations (consumer_id, resource_provider_id, resource_class, used, created_at, updated_at)
SELECT md5('bench consumer' || n)::uuid, md5('bench' || (n - 1) % {providers} + 1)::uuid, c, u, now(), now()
FROM generate_series(1, {consumers}) n, (VALUES ('VCPU', 4), ('MEMORY_MB', 15728), ('DISK_GB', 120)) v (c, u);
ANALYZE resource_providers; ANALYZE inventories; ANALYZE allocations; ANALYZE consumers;
"""

FORGET_CANDIDATES = """
DELETE FROM allocations WHERE consumer_id IN (SELECT id FROM consumers WHERE project_id = 'bench');
DELETE FROM consumers WHERE project_id = 'bench';
DELETE FROM inventories WHERE resource_provider_id IN (SELECT id FROM resource_providers WHERE name LIKE 'bench-%');
DELETE FROM resource_providers WHERE name LIKE 'bench-%';
"""


def allocation_candidates(cloud, size) -> Row:
    """Every provider has ten consumers that allocate 60 % of it."""
    providers = size.many(10_000)
    cloud.sql(CANDIDATES.format(providers=providers, consumers=providers * 10))
    try:
        headers = {"X-Auth-Token": cloud.token("admin"), "OpenStack-API-Version": "placement 1.39"}
        url = cloud.url("placement") + "/allocation_candidates?resources=VCPU:2,MEMORY_MB:4096,DISK_GB:20&limit=50"
        found = len(call("GET", url, headers=headers)[2]["allocation_requests"])
        if found != 50:
            raise RuntimeError(f"{found} candidates instead of 50")
        median = statistics.median(latency(url, headers, 20 + size.many(500)))
    finally:
        cloud.sql(FORGET_CANDIDATES)
    return Row(
        "M8", f"GET /allocation_candidates?limit=50, {providers} providers 60 % full: p50", f"{median * 1000:.1f} ms", "20 ms",
        "2 ms", "one connection")


def scheduler(cloud, size, *, mixed: bool) -> Row:
    hosts = size.many(10_000)
    program = [cloud.binaries / "wolke-bench", "scheduler", "--hosts", str(hosts), "--servers", str(10 * hosts), "--seconds", str(size.seconds)]
    runs = [
        json.loads(subprocess.run(program + (["--mixed"] if mixed else []), check=True, capture_output=True, text=True).stdout)
        for _ in range(min(size.repetitions, 3))
    ]
    rate = statistics.median(run["decisions_per_second"] for run in runs)
    scan = statistics.median(run["scans_per_second"] for run in runs)
    name, meaning = ("M11", "the same with anti-affinity, aggregates, traits") if mixed else (
        "M10", f"scheduler decisions in memory, {hosts} hosts with {10 * hosts} servers, one core")
    floor, goal = ("2 000/s", "10 000/s") if mixed else ("20 000/s", "100 000/s")
    explained = statistics.median(run["explained_per_second"] for run in runs)
    details = (
        f"a bare scan of all hosts {scan:.0f}/s; with the counts that explain the decision {explained:.0f}/s; "
        f"{runs[0]['placed']:.0%} placed")
    return Row(name, meaning, f"{rate:.0f}/s", floor, goal, details)


def claims(cloud, size) -> Row:
    """The peer has the transaction of one claim as PostgreSQL logged it, on a random host like the scheduler's."""
    with scratch(cloud, "wolke_bench_claims") as database:
        hosts = size.many(1000)
        database.fill(hosts)
        statements = transaction(capture(cloud, lambda: database.measure("claims", "--claims", "5"), "INSERT INTO allocations"), "INSERT INTO allocations")
        script = claim_script(statements, hosts)
        ratio = interleave(
            lambda: database.measure("claims", "--seconds", str(size.seconds))["claims_per_second"],
            lambda: pgbench(database.database, script, seconds=size.seconds, clients=32),
            size.repetitions)
        taken = database.sql("SELECT count(*) FROM consumers c WHERE (SELECT count(*) FROM allocations a WHERE a.consumer_id = c.id) <> 3")
        if taken != ["0"]:
            raise RuntimeError(f"{taken[0]} claims are not whole")
    row = ratio_row("M12", "committed claims, 32 concurrent ÷ pgbench with the same SQL", ratio, "0.5", "0.9", "per second")
    row.details += f"; {len(statements) - 2} statements in the transaction"
    return row


def claim_script(statements: list[str], hosts: int) -> str:
    text = "\n".join(statements)
    host = re.search(r"'bench-(\d+)'", text).group(1)
    provider = f"{int(host):032x}"
    provider = "-".join((provider[:8], provider[8:12], provider[12:16], provider[16:20], provider[20:]))
    found = re.findall(r"'([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})'", text)
    fresh = [value for value in dict.fromkeys(found) if value != provider]
    # The values are now of type uuid where the statement had a text.
    statements = [re.sub(r"hashtextextended\(('[^']*')", r"hashtextextended(\1::text", text) for text in statements]
    # Outside of literals that hold more than the name, such as the answer's JSON.
    chosen = [
        statement.replace(f"'{provider}'", "(lpad(to_hex(:host::bigint), 32, '0')::uuid)").replace(
            f"'bench-{host}'", "('bench-' || :host::bigint)")
        for statement in statements
    ]
    return f"\\set host random(1, {hosts})\n" + pgbench_script(chosen, fresh)


def workflow_engine(cloud, size) -> Row:
    many = size.many(100_000)
    with scratch(cloud, "wolke_bench_steps") as database:

        def steps(ready: int) -> float:
            return database.measure("steps", "--ready", str(ready), "--seconds", str(size.seconds))["steps_per_second"]

        ratio = interleave(lambda: steps(many), lambda: steps(100), min(size.repetitions, 5))
    return ratio_row("engine", f"workflow steps with {many} ready rows ÷ with 100", ratio, "0.8", "1.0", "steps/s")


ROWS = {
    "m8": allocation_candidates,
    "m10": lambda cloud, size: scheduler(cloud, size, mixed=False),
    "m11": lambda cloud, size: scheduler(cloud, size, mixed=True),
    "m12": claims,
    "engine": workflow_engine,
}
