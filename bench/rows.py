"""The rows of the report. Each takes the cloud and the size of the measurement, and returns its results."""

import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

from capture import capture, inserted, pgbench_script, transaction
from cloud import Cloud, memory
from load import call, pgbench, serving, wait_for, wrk
from measure import Ratio, Row, Size, interleave, ratio_row
import rows_fleet
import rows_images
import rows_scheduler
import rows_wires

CONNECTIONS = 16


def against_bare(cloud: Cloud, url: str, headers: dict[str, str], size: Size) -> Ratio:
    """Requests per second of a GET, and of the bare server with the same bytes."""
    _, body, _ = call("GET", url, headers=headers)
    with serving(cloud.binaries / "wolke-bench", 18080 + cloud.offset % 1000, body) as bare:
        return interleave(
            lambda: wrk(url, headers=headers, seconds=size.seconds, connections=CONNECTIONS),
            lambda: wrk(bare, headers=headers, seconds=size.seconds, connections=CONNECTIONS),
            size.repetitions,
        )


def token_validation(cloud: Cloud, size: Size) -> Row:
    token = cloud.token("admin")
    ratio = against_bare(
        cloud, cloud.url("identity") + "/v3/auth/tokens", {"X-Auth-Token": token, "X-Subject-Token": token}, size)
    return ratio_row("M1", "token validation ÷ bare Hummingbird, same bytes", ratio, "0.5", "0.8", "requests/s")


def password_sign_on(cloud: Cloud, size: Size) -> Row:
    """The peer is crypt(3) with the stored hash's own cost, on all cores."""
    stored = cloud.sql("SELECT password_hash FROM users WHERE name = 'demo' AND domain_id = 'default'")[0]
    body = json.dumps(cloud.sign_on_body("demo"))
    script = f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [==[{body}]==]\n"
    hasher = [cloud.binaries / "wolke-bench", "hash", "--like", stored, "--seconds", str(size.seconds)]

    def hashes() -> float:
        output = subprocess.run(hasher, check=True, capture_output=True, text=True).stdout
        return json.loads(output)["hashes_per_second"]

    ratio = interleave(
        lambda: wrk(
            cloud.url("identity") + "/v3/auth/tokens", headers={}, seconds=size.seconds, connections=CONNECTIONS, script=script),
        hashes,
        size.repetitions,
    )
    return ratio_row("M3", "password sign-ons ÷ hashes at the same cost on all cores", ratio, "0.85", "0.98", "per second")


def idle_memory(cloud: Cloud, size: Size) -> Row:
    total, details = memory(cloud)
    return Row("M30", "resident memory (PSS) of all Wolke processes, idle", f"{total:.0f} MB", "300 MB", "150 MB", details)


def start_time(cloud: Cloud, size: Size) -> Row:
    """A second process of each service on a free port, exec to the first 200 of /readyz."""
    times = {}
    for index, (name, service) in enumerate(cloud.services.items()):
        port = 19100 + cloud.offset % 1000 + index
        key = f"WOLKE_ENDPOINTS_{service['section'].upper()}_PORT"
        samples = []
        for _ in range(3):
            with tempfile.TemporaryFile() as log:
                started = time.monotonic()
                process = subprocess.Popen(
                    [cloud.binaries / service["executable"], "--config", cloud.state / "wolke.yaml"],
                    env={**os.environ, key: str(port), key.replace("_PORT", "_OPERATOR_PORT"): "0"}, stdout=log, stderr=log)
                try:
                    wait_for(f"http://127.0.0.1:{port}/readyz")
                    samples.append((time.monotonic() - started) * 1000)
                finally:
                    process.terminate()
                    process.wait()
        times[name] = statistics.median(samples)
    details = ", ".join(f"{name} {value:.0f}" for name, value in times.items())
    return Row("M31", "start of a service, exec to ready", f"{max(times.values()):.0f} ms", "300 ms", "50 ms", details + " ms; the slowest counts")


def servers_detail(cloud: Cloud, size: Size) -> Row:
    """1 000 servers with a port each, listed in one page; the peer fetches the same rows over libpq."""
    project, token, headers = listing(cloud)
    url = cloud.url("compute") + "/v2.1/servers/detail?limit=1000"
    _, body, document = call("GET", url, headers=headers)
    if len(document["servers"]) != 1000:
        raise RuntimeError(f"{len(document['servers'])} servers instead of 1000")
    page = r"FROM servers.*LIMIT '?1001'?"
    statements = capture(cloud, lambda: call("GET", url, headers=headers), f"(?s){page}")
    query = next(text for text in statements if re.search(page, text, re.DOTALL))
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(query)
        file.flush()
        fetcher = [
            cloud.binaries / "wolke-bench", "rows", "--database", cloud.database, "--query", file.name, "--connections", "2",
            "--seconds", str(size.seconds)]

        def fetches() -> float:
            return json.loads(subprocess.run(fetcher, check=True, capture_output=True, text=True).stdout)["fetches_per_second"]

        ratio = interleave(
            lambda: wrk(url, headers=headers, seconds=size.seconds, connections=4), fetches, size.repetitions)
    row = ratio_row("M5", "GET /servers/detail with 1 000 servers ÷ libpq fetching the same rows", ratio, "0.4", "0.8", "per second")
    row.details += f"; {len(body) // 1024} KiB per answer"
    return row


def servers_detail_bare(cloud: Cloud, size: Size) -> Row:
    _, _, headers = listing(cloud)
    url = cloud.url("compute") + "/v2.1/servers/detail?limit=1000"
    ratio = against_bare(cloud, url, headers, size)
    return ratio_row("M5b", "the same ÷ bare Hummingbird, same bytes", ratio, "–", "–", "requests/s")


COPIES = """
INSERT INTO servers
SELECT (jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid(), 'name', 'bench-' || n, 'host', NULL))).*
FROM servers s, generate_series(1, 999) n WHERE s.id = '{server}';
INSERT INTO ports
SELECT (jsonb_populate_record(p, jsonb_build_object('id', gen_random_uuid(), 'device_id', c.id::text, 'mac_address',
    'fa:16:3e:' || substr(lpad(to_hex(row_number() OVER ()), 6, '0'), 1, 2) || ':' ||
    substr(lpad(to_hex(row_number() OVER ()), 6, '0'), 3, 2) || ':' || substr(lpad(to_hex(row_number() OVER ()), 6, '0'), 5, 2)))).*
FROM ports p, servers c WHERE p.device_id = '{server}' AND c.name LIKE 'bench-%' AND c.project_id = '{project}';
INSERT INTO port_fixed_ips
SELECT (jsonb_populate_record(f, jsonb_build_object('port_id', p.id, 'ip_address',
    '10.99.' || (row_number() OVER () / 250 + 200) || '.' || (row_number() OVER () % 250 + 1)))).*
FROM port_fixed_ips f, ports p WHERE f.port_id = (SELECT id FROM ports WHERE device_id = '{server}')
AND p.device_id IN (SELECT id::text FROM servers WHERE name LIKE 'bench-%');
ANALYZE servers; ANALYZE ports; ANALYZE port_fixed_ips;
"""


def listing(cloud: Cloud):
    """The admin's project with 1 000 servers, of which one is real and 999 are copies of its rows on no host."""
    token = cloud.token("admin")
    headers = {"X-Auth-Token": token, "OpenStack-API-Version": "compute 2.96"}
    _, _, document = call("GET", cloud.url("identity") + "/v3/auth/tokens", headers={**headers, "X-Subject-Token": token})
    project = document["token"]["project"]["id"]
    if int(cloud.sql(f"SELECT count(*) FROM servers WHERE project_id = '{project}' AND NOT deleted")[0]) >= 1000:
        return project, token, headers
    network = call("POST", cloud.url("network") + "/v2.0/networks", {"network": {"name": "bench"}}, headers=headers)[2]["network"]["id"]
    subnet = {"network_id": network, "cidr": "10.99.0.0/16", "ip_version": 4}
    call("POST", cloud.url("network") + "/v2.0/subnets", {"subnet": subnet}, headers=headers)
    body = {"server": {**flavor_and_image(cloud, headers), "name": "original", "networks": [{"uuid": network}]}}
    server = call("POST", cloud.url("compute") + "/v2.1/servers", body, headers=headers)[2]["server"]["id"]
    end = time.monotonic() + 120
    while (status := call("GET", f"{cloud.url('compute')}/v2.1/servers/{server}", headers=headers)[2]["server"]["status"]) != "ACTIVE":
        if status == "ERROR" or time.monotonic() > end:
            raise RuntimeError(f"the first server is {status}")
        time.sleep(0.5)
    cloud.sql(COPIES.format(server=server, project=project))
    return project, token, headers


def flavor_and_image(cloud: Cloud, headers: dict[str, str]) -> dict[str, str]:
    images = call("GET", cloud.url("image") + "/v2/images?name=guest", headers=headers)[2]["images"]
    flavors = call("GET", cloud.url("compute") + "/v2.1/flavors", headers=headers)[2]["flavors"]
    return {"imageRef": images[0]["id"], "flavorRef": next(item["id"] for item in flavors if item["name"] == "m1.nano")}


def accepted_servers(cloud: Cloud, size: Size) -> Row:
    """Only the accepting transaction: Placement is stopped, so that nothing is built."""
    project, token, headers = listing(cloud)
    # The agent is not started again, because this cloud and its servers end with the run.
    subprocess.run([cloud.binaries / "osctl", "cloud", "stop", "wolke-placement", "--state", cloud.state], check=True, capture_output=True)
    unlimited = {"quota_set": {"instances": -1, "cores": -1, "ram": -1}}
    call("PUT", f"{cloud.url('compute')}/v2.1/os-quota-sets/{project}", unlimited, headers=headers)
    server = {**flavor_and_image(cloud, headers), "name": "bench", "networks": "none"}
    url = cloud.url("compute") + "/v2.1/servers"
    # The first run fills caches and prepared statements; the second one is recorded.
    call("POST", url, {"server": server}, headers=headers)
    statements = transaction(
        capture(cloud, lambda: call("POST", url, {"server": server}, headers=headers), "INSERT INTO servers"), "INSERT INTO servers")
    script = pgbench_script(statements, inserted(statements))
    body = json.dumps({"server": server})
    lua = f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [==[{body}]==]\n"
    ratio = interleave(
        lambda: wrk(url, headers=headers, seconds=size.seconds, connections=CONNECTIONS, script=lua),
        lambda: pgbench(cloud.database, script, seconds=size.seconds, clients=8),
        size.repetitions,
    )
    row = ratio_row("M7", "POST /servers accepted ÷ pgbench with the same SQL", ratio, "0.5", "0.9", "per second")
    row.details += f"; {len(statements) - 2} statements in the transaction"
    return row


def command_line(cloud: Cloud, size: Size) -> Row:
    """Wall time of listing servers with the stock client and with osctl."""
    environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(cloud.state / "clouds.yaml"), "OS_CLOUD": "wolke-demo"}
    stock = pathlib.Path(__file__).parent.parent / ".venv/bin/openstack"

    def wall(program: pathlib.Path) -> float:
        started = time.monotonic()
        subprocess.run([program, "server", "list"], env=environment, check=True, capture_output=True)
        return time.monotonic() - started

    wall(cloud.binaries / "osctl")
    ratio = interleave(lambda: wall(cloud.binaries / "osctl"), lambda: wall(stock), min(size.repetitions, 5))
    details = f"medians {statistics.median(ratio.ours) * 1000:.0f} ms and {statistics.median(ratio.peer) * 1000:.0f} ms"
    return Row("M33", "osctl server list ÷ openstack server list, wall", f"1/{1 / ratio.value:.0f}", "1/20", "1/60", details)


ALL = {
    # First, because the cloud has not processed requests yet.
    "m30": idle_memory,
    "m1": token_validation,
    "m3": password_sign_on,
    "m31": start_time,
    "m33": command_line,
    **rows_images.ROWS,
    **rows_fleet.ROWS,
    **rows_scheduler.ROWS,
    "m21": rows_wires.round_trips,
    "m5": servers_detail,
    "m5b": servers_detail_bare,
    # These leave ports behind, the last servers that were accepted and never built. M24 first: with tens of thousands of
    # ports elsewhere it would show how ovn-northd, which goes through all of them, competes for the processor.
    "m24": rows_wires.port_cost,
    "m23": rows_wires.port_creates,
    "m23b": rows_wires.port_creates_alone,
    "m7": accepted_servers,
}
