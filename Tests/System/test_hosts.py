"""Two hosts: servers are placed on both, tenant networks span them, tenants are isolated, affinity holds."""

from wolkecloud import wait


def two_servers_apart(tenant, **first):
    """Two servers that an anti-affinity group puts on different hosts."""
    group = tenant.api.compute.create_server_group(name="apart", policy="anti-affinity")
    hints = {"scheduler_hints": {"group": group.id}}
    servers = [tenant.create_server(name, wait_until_active=False, **hints) for name in ("one", "two")]
    return [tenant.active(server) for server in servers]


def host_of(cloud, server):
    return cloud.admin.compute.get_server(server.id).hypervisor_hostname


def test_guests_reach_each_other_across_the_tunnel(cloud, tenant, other_tenant):
    one, two = two_servers_apart(tenant)
    assert {host_of(cloud, one), host_of(cloud, two)} == set(cloud.hosts())
    addresses = {server.id: tenant.floating_address(server) for server in (one, two)}
    for address in addresses.values():
        tenant.reachable(address)
    for here, there in ((one, two), (two, one)):
        target = tenant.fixed_address(there)
        # Large packets, and TCP: the sizes and checksums in tunnels are correct.
        out = tenant.ssh(addresses[here.id], f"ping -c 3 -W 2 -s 1400 {target}")
        assert "3 packets received" in out, out
        assert "SSH-2.0" in tenant.ssh(addresses[here.id], f"timeout 3 nc {target} 22 < /dev/null | head -n 1", check=False)

    # Another project with the same range cannot reach them.
    other_server = other_tenant.create_server("other-server")
    outside = other_tenant.floating_address(other_server)
    other_tenant.reachable(outside)
    taken = {other_tenant.fixed_address(other_server)}
    for server in (one, two):
        target = tenant.fixed_address(server)
        if target not in taken:
            out = other_tenant.ssh(outside, f"ping -c 2 -W 1 {target}", check=False)
            assert "2 packets received" not in out and " 0 packets received" in out, out


def test_an_agents_crash_changes_nothing(cloud, tenant):
    server = tenant.create_server("guarded")
    host = host_of(cloud, server)
    address = tenant.floating_address(server)
    tenant.reachable(address)
    agent = "wolke-compute-agent" + ("@host-2" if host == "host-2" else "")
    started = float(tenant.ssh(address, "cut -d' ' -f1 /proc/uptime"))
    cloud.kill(agent)
    assert float(tenant.ssh(address, "cut -d' ' -f1 /proc/uptime")) > started
    wait("the service is up again", lambda: all(
        service.state == "up" for service in cloud.admin.compute.services() if service.host == host), 60)
    assert tenant.api.compute.get_server(server.id).status == "ACTIVE"
    # Metadata is served again after the agent's restart.
    out = tenant.ssh(address, "curl -sf -m 10 http://169.254.169.254/openstack/latest/meta_data.json")
    assert server.id in out
