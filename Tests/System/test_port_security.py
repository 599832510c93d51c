"""A change of a running server's port takes effect at once, also on its host."""

import json

from wolkecloud import run, wait


def tap(cloud, port):
    """Whether the tap of a server's port drops router advertisements, according to `ip`."""
    for directory, namespace in ((cloud.state, []), (cloud.state / "host-2", ["ip", "netns", "exec", f"wolke{cloud.port_offset}-host-2"])):
        found = run("ovs-vsctl", f"--db=unix:{directory}/ovn/run/db.sock", "--timeout=10", "--bare", "--columns=name", "find",
                    "Interface", f"external_ids:iface-id={port.id}").strip()
        if found:
            return "router_guard" in run(*namespace, "ip", "-d", "link", "show", found)
    raise AssertionError(f"no host has the port {port.id}")


def test_s15_port_security_of_a_running_server(cloud, tenant):
    server = tenant.create_server("router")
    port = next(tenant.api.network.ports(device_id=server.id))
    before = cloud.sql(f"SELECT generation FROM servers WHERE id = '{server.id}'")
    assert tap(cloud, port)
    tenant.api.network.update_port(port.id, security_groups=[], port_security_enabled=False)
    wait("the guest may be a router", lambda: not tap(cloud, port), 10)
    tenant.api.network.update_port(port.id, port_security_enabled=True)
    wait("the guest is kept from being a router", lambda: tap(cloud, port), 10)
    assert cloud.sql(f"SELECT generation FROM servers WHERE id = '{server.id}'") == before
    assert tenant.api.compute.get_server(server.id).status == "ACTIVE"
    details = cloud.admin.network.get_port(port.id).binding_vif_details
    assert details["datapath_type"] == "netdev"


def test_s10_tunnels_end_at_their_own_address(cloud):
    """A guest cannot send tunnel packets to other addresses of the host, where a router takes it."""
    for directory, others in ((cloud.state, 1), (cloud.state / "host-2", 1)):
        found = run("ovs-vsctl", f"--db=unix:{directory}/ovn/run/db.sock", "--timeout=10", "--format=json", "--columns=options", "find",
                    "Interface", "type=geneve")
        tunnels = [dict(row[0][1]) for row in json.loads(found)["data"]]
        assert len(tunnels) == others and all(options.get("local_ip") for options in tunnels), tunnels
