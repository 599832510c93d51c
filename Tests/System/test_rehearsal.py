"""Requests that change nothing: where a server would be placed, and which servers would move if a host failed."""

import json

import pytest


def ask(cloud, name, *arguments, check=True):
    result = cloud.osctl("--os-cloud", name, *arguments, "-o", "json", check=check)
    return result.returncode, json.loads(result.stdout)


@pytest.fixture
def simulated(cloud):
    """Three hosts that exist only on the broker, with six servers."""
    cloud.osctl("simulate", "--hosts", "3", "--servers", "6", "--keep")
    yield
    cloud.osctl("simulate", "end")
    for noun, field in (("compute-service", "host"), ("network-agent", "host"), ("aggregate", "name")):
        left = ask(cloud, "wolke-admin", noun, "list")[1]
        assert not [item for item in left if item[field].startswith("sim")], left


def test_a_host_that_would_fail(cloud, simulated):
    count = lambda: cloud.sql("SELECT count(*) FROM allocations")  # noqa: E731
    before = count()
    for host in ("sim-00001", "sim-00002", "sim-00003"):
        plan = json.loads(cloud.osctl("simulate", "host-failure", host, "-o", "json").stdout)
        assert all(server["host"] != host and server["host"].startswith("sim-") for server in plan["servers"])
        free = {side: plan["capacity"][side]["resources"]["MEMORY_MB"]["free"] for side in ("before", "after")}
        assert free["after"] < free["before"]
    assert count() == before


def test_a_dry_run_says_what_would_fit(cloud, simulated):
    create = ("server", "create", "x", "--image", "guest", "--no-network", "--dry-run")
    code, answer = ask(cloud, "wolke-admin", *create, "--flavor", "m1.nano", "--availability-zone", "simulation")
    assert (code, answer["result"]) == (0, "scheduled") and answer["host"].startswith("sim-") and answer["fits"] > 100
    code, answer = ask(
        cloud, "wolke-demo", *create, "--flavor", "m1.nano", "--availability-zone", "simulation", check=False)
    assert (code, answer["result"]) == (1, "rejected")
    assert answer["nearest"]["availability_zones"]["nova"] > 0
    assert "sim-" not in json.dumps(answer) and "operator" not in answer
