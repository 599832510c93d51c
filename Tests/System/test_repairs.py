"""What somebody deletes or copies by hand, the plane finds and repairs by itself, and says what was wrong."""

import json
import re

from wolkecloud import run, wait


def allocations(cloud):
    return sorted(cloud.sql("SELECT consumer_id, resource_provider_id, resource_class, used FROM allocations"))


def nbctl(cloud, *words):
    return run("ovn-nbctl", f"--db=unix:{cloud.state}/ovn/run/nb.sock", *words)


def northbound(cloud):
    """The rows of switches' ports and port groups with their members, by name."""
    columns = {"Logical_Switch_Port": "name,addresses", "Port_Group": "name,ports,acls"}
    rows = []
    for table, names in columns.items():
        for row in json.loads(nbctl(cloud, "--format=json", f"--columns={names}", "list", table))["data"]:
            rows.append((table, row[0], *(len(cell[1]) if isinstance(cell, list) and cell[0] == "set" else 1 for cell in row[1:])))
    return sorted(rows)


def repairs(cloud, *options):
    return json.loads(cloud.osctl("doctor", "--json", *options).stdout)["repairs"]


def damage(cloud, server, port):
    """Allocations of one server gone and of the other doubled; a port and a group gone, and doubled."""
    cloud.sql(f"DELETE FROM allocations WHERE consumer_id = '{server}'")
    cloud.sql(
        "INSERT INTO allocations SELECT a.consumer_id, p.id, a.resource_class, a.used, now(), now() FROM allocations a"
        f" JOIN resource_providers p ON p.id <> a.resource_provider_id WHERE a.consumer_id <> '{server}'")
    switch = nbctl(cloud, "lsp-get-ls", port.id).split()[0]
    address = f"{port.mac_address} {port.fixed_ips[0]['ip_address']}"
    nbctl(cloud, "lsp-add", switch, "copy", "--", "set", "Logical_Switch_Port", "copy", f'addresses="{address}"')
    marks = nbctl(cloud, "get", "Logical_Switch_Port", port.id, "external_ids").strip()
    marks = [f'external_ids:{key}={value}' for key, value in re.findall(r'("[^"]+"|[\w-]+)=("[^"]*"|[^,}]+)', marks)]
    nbctl(cloud, "lsp-add", switch, "marked-copy", "--", "set", "Logical_Switch_Port", "marked-copy", *marks)
    nbctl(cloud, "lsp-del", port.id)
    group = next(row[1] for row in northbound(cloud) if row[0] == "Port_Group" and row[2])
    marks = nbctl(cloud, "get", "Port_Group", group, "external_ids").strip()
    marks = [f'external_ids:{key}={value}' for key, value in re.findall(r'("[^"]+"|[\w-]+)=("[^"]*"|[^,}]+)', marks)]
    nbctl(cloud, "destroy", "Port_Group", group)
    nbctl(cloud, "create", "Port_Group", "name=group_copy", *marks)


def test_what_hands_break_is_repaired(cloud, tenant):
    servers = [tenant.create_server(f"s{number}", wait_until_active=False) for number in range(2)]
    for server in servers:
        tenant.active(server)
    port = next(tenant.api.network.ports(device_id=servers[0].id))
    rows, taken = northbound(cloud), allocations(cloud)
    said = len(repairs(cloud))

    def whole():
        return northbound(cloud) == rows and allocations(cloud) == taken

    damage(cloud, servers[0].id, port)
    wait("everything is as before, by itself", whole, 60)
    words = "\n".join(entry["words"] for entry in repairs(cloud)[said:])
    for expected in (
        f"server {servers[0].id} does not hold its DISK_GB 1", f"server {servers[1].id} holds DISK_GB 1 on ",
        f"logical switch port {port.id}", "logical switch port copy", "logical switch port marked-copy", "port group",
    ):
        assert expected in words, (expected, words)
    assert tenant.api.network.get_port(port.id).status == "ACTIVE" or wait(
        "the port is up again", lambda: tenant.api.network.get_port(port.id).status == "ACTIVE", 30)


def test_the_doctor_has_it_repaired_at_once(cloud, tenant):
    server = tenant.create_server("patient")
    taken = allocations(cloud)
    cloud.sql(f"DELETE FROM allocations WHERE consumer_id = '{server.id}'")
    cloud.sql(f"UPDATE quota_usages SET used = 9 WHERE project_id = '{tenant.project.id}' AND resource = 'compute:instances'")
    answer = json.loads(cloud.osctl("doctor", "--repair", "--json").stdout)
    assert not answer["findings"] and not answer["silent"], answer
    # The service may have come before the doctor.
    words = "\n".join(entry["words"] for entry in repairs(cloud))
    assert f"server {server.id} does not hold" in words, words
    assert "the ledger has 9 compute:instances, there are 1" in words, words
    assert allocations(cloud) == taken
