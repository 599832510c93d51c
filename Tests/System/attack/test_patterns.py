"""Catastrophic regular expressions, and requests whose client has disconnected."""

import itertools
import socket
import struct
import threading
import time
from urllib.parse import quote

import pytest

from test_fairness import Client

EVIL = [
    r"^(.+)(.+)(.+)\1\2\3$", r"(a+)+\1$", "(?=(a+)+$)", "(?!a)b", "((a{1,100}){1,100}){1,100}", "(.{1,250}){1,250}", "a{0,99999}",
    "(" * 200, "[" * 50, "\\", "a**", "***=x", "(?i)a", "x{1000}", "(a|b|c|d){250}",
]
# Accepted, and as slow as an accepted pattern can be.
HEAVY = ["(a*)*b", "(a|aa)+$", "(.*.*.*.*)x", "(a?){150}a{150}", "(.*a){50}", "^(.+)(.+)(.+)(.+)(.+)$"]
FILTERS = ["name", "ip", "ip6", "hostname", "description"]


@pytest.fixture
def compute(cloud, tenant):
    """The member's and an operator's connections; the project has servers whose names are as bad as the patterns."""
    for number in range(3):
        tenant.api.compute.create_server(
            name="a" * (250 + number), flavor_id=tenant.api.compute.find_flavor("m1.nano").id, networks="none",
            image_id=tenant.api.image.find_image("guest").id)
    port = 8774 + cloud.port_offset
    return Client(port, tenant.api.auth_token), Client(port, cloud.admin.auth_token)


def test_s18_evil_patterns_are_refused(compute, tally):
    counts = {}
    for pattern, name in itertools.product(EVIL, FILTERS):
        status = compute[1].get(f"/v2.1/servers?all_tenants=1&{name}={quote(pattern, safe='')}")
        assert status == 400, (name, pattern, status)
        counts[status] = counts.get(status, 0) + 1
    tally(requests=sum(counts.values()), refused=counts[400])


def test_s18_heavy_patterns_do_not_hold_the_database(cloud, compute, scale, tally):
    answered = 0
    for pattern, name in itertools.product(HEAVY * scale(1, 10), FILTERS[:3]):
        begin = time.monotonic()
        assert compute[0].get(f"/v2.1/servers?{name}={quote(pattern, safe='')}") == 200
        assert time.monotonic() - begin < 5, (name, pattern)
        answered += 1
    tally(requests=answered)


@pytest.mark.parametrize("resets", [True, False])
def test_s18_clients_that_leave_free_their_sessions(cloud, tenant, scale, tally, resets):
    """Many requests wait for one lock, and their clients disconnect at once: their sessions are free within a second.

    A client that only closes its connection may still be reading, as far as the service can see; it gets two seconds more.
    """
    port, token = 8774 + cloud.port_offset, tenant.api.auth_token
    busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'wolke' AND wait_event_type = 'Lock'"
    holder = threading.Thread(
        target=cloud.sql, args=("BEGIN; LOCK TABLE servers IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4); COMMIT",), daemon=True)
    holder.start()
    time.sleep(0.5)
    clients = []
    for _ in range(scale(20, 200)):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(f"GET /v2.1/servers HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n\r\n".encode())
        clients.append(client)
    time.sleep(0.7)
    waiting = int(cloud.sql(busy)[0])
    for client in clients:
        if resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    # Before the lock's holder ends.
    time.sleep(1 if resets else 2.6)
    # The control plane's own work may wait for the lock too.
    still = int(cloud.sql(busy + " AND query LIKE '%FROM servers t%LIMIT%'")[0])
    holder.join()
    assert still == 0, still
    assert Client(port, token).get("/v2.1/servers") == 200
    tally(clients=len(clients), waited=waiting, left=still)


def test_s18_the_database_user_has_no_rights_beyond_its_database(cloud, tally):
    """What a statement slipped into the services' session could do to PostgreSQL and the machine: nothing."""
    rights = cloud.sql("SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user")
    assert rights == ["f|f|f|f|f"]
    attempts = [
        "COPY users TO '/tmp/wolke-users'", "SELECT pg_read_file('/etc/passwd')", "COPY users FROM PROGRAM 'id'", "CREATE DATABASE mine",
        "CREATE ROLE mine SUPERUSER", "ALTER SYSTEM SET log_statement = 'all'", "SELECT * FROM pg_authid", "SET ROLE postgres",
        "SELECT pg_ls_dir('/')", "CREATE EXTENSION file_fdw",
    ]
    for statement in attempts:
        with pytest.raises(AssertionError, match="permission denied|must be superuser|must be owner|permission"):
            cloud.sql(statement)
    # A password is always required.
    from wolkecloud import run

    where = f"host={cloud.state}/postgres/run port={15432 + cloud.port_offset} dbname=wolke passfile=/nowhere"
    for user in ("wolke",):
        with pytest.raises(AssertionError, match="no password supplied|password"):
            run("env", "-u", "PGPASSFILE", "/usr/lib/postgresql/15/bin/psql", "-w", "-X", "-d", f"{where} user={user}", "-c", "SELECT 1")
    with pytest.raises(AssertionError):
        run(
            "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "/usr/lib/postgresql/15/bin/psql", "-w", "-X", "-d",
            f"host=127.0.0.1 port={15432 + cloud.port_offset} dbname=wolke user=postgres", "-c", "SELECT 1")
    tally(attempts=len(attempts) + 2, refused=len(attempts) + 2)
