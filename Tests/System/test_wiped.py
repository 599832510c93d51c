"""Runs last: nothing that the other tests created is left anywhere."""

import re


def test_nothing_is_left(cloud):
    admin = cloud.admin
    assert not list(admin.compute.servers(all_projects=True))
    assert not list(admin.block_storage.volumes(all_projects=True))
    assert not list(admin.network.routers())
    assert not list(admin.network.ips())
    assert [network.name for network in admin.network.networks()] == ["public"]
    assert [image.name for image in admin.image.images()] == ["guest"]
    assert not cloud.libvirt_domains()


def test_nothing_is_left_in_ovn(cloud):
    text = cloud.northbound()
    tables = {name: body for name, body in re.findall(r"^(\w+) table\n(.*?)(?=^\w+ table|\Z)", text, re.M | re.S)}
    assert "192.168." not in text, "tenants' addresses are left in the northbound database"
    for table in ("Logical_Router", "Logical_Router_Port", "NAT", "Gateway_Chassis"):
        lines = [line for line in tables.get(table, "").splitlines() if re.match(r"[0-9a-f]{8}-", line)]
        assert not lines, f"{table}: {lines}"


def test_nothing_is_left_in_placement_and_quotas(cloud):
    assert cloud.sql("SELECT count(*) FROM allocations") == ["0"]
    # The operators' project has the external network; a default security group stays as long as its project.
    left = cloud.sql(
        "SELECT project_id, resource, used FROM quota_usages WHERE used <> 0 AND resource NOT LIKE '%security_group%'"
        " AND project_id NOT IN (SELECT id FROM projects WHERE name = 'admin')")
    assert not left, left


def test_no_workflow_is_stuck(cloud):
    assert cloud.sql("SELECT kind, step, last_error FROM workflows WHERE state NOT IN ('done', 'failed')") == []
