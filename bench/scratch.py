"""A private database of a row, on the cloud's server with the same schema."""

import contextlib
import json
import subprocess

HOSTS = 1000

# Hosts as Compute and Placement record them: enabled, with a heartbeat in the future, capacity for many.
FILL = """
INSERT INTO resource_providers (id, name, root_id, generation, host, enabled, created_at, updated_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'bench-' || n, lpad(to_hex(n), 32, '0')::uuid, 1, 'bench-' || n, true, now(), now()
FROM generate_series(1, {hosts}) n;
INSERT INTO inventories (resource_provider_id, resource_class, total, reserved, min_unit, max_unit, step_size, allocation_ratio,
    created_at, updated_at)
SELECT p.id, c, 10000000, 0, 1, 10000000, 1, 1, now(), now()
FROM resource_providers p, unnest(ARRAY['VCPU', 'MEMORY_MB', 'DISK_GB']) c;
ANALYZE;
"""


class Scratch:
    def __init__(self, cloud, name: str):
        self.cloud, self.name = cloud, name
        self.database = cloud.database.replace("dbname=wolke", f"dbname={name}")

    def sql(self, text: str) -> list[str]:
        return self.cloud.sql(text, database=self.database)

    def measure(self, command: str, *arguments: str) -> dict:
        """What a subcommand of wolke-bench prints."""
        program = [self.cloud.binaries / "wolke-bench", command, "--database", self.database, *arguments]
        result = subprocess.run(program, capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"wolke-bench {command}: {result.stderr}")
        return json.loads(result.stdout)

    def fill(self, hosts: int) -> None:
        self.sql(FILL.format(hosts=hosts))


@contextlib.contextmanager
def scratch(cloud, name: str):
    drop = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
    cloud.sql(drop, database=cloud.superuser)
    cloud.sql(f"CREATE DATABASE {name} OWNER wolke", database=cloud.superuser)
    try:
        database = Scratch(cloud, name)
        program = [cloud.binaries / "wolke-bench", "migrate", "--database", database.database]
        subprocess.run(program, check=True, capture_output=True)
        yield database
    finally:
        cloud.sql(drop, database=cloud.superuser)
