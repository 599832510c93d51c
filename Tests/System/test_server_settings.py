"""What an operator's settings of Compute change, seen from inside the guests."""

from test_server_changes import flavor, read, settled, write  # noqa: F401 (a fixture)
from wolkecloud import wait


def test_a_deleted_server_is_restored_with_its_disk(cloud, tenant):
    compute = tenant.api.compute
    with cloud.configured("wolke-compute", "compute", reclaim_instance_intervals=[f"{tenant.project.id}=10m"]):
        server, other = tenant.create_server("kept"), tenant.create_server("gone")
        address, fixed = tenant.floating_address(server), tenant.fixed_address(server)
        tenant.reachable(address)
        write(tenant, address, "kept")
        for each in (server, other):
            compute.delete_server(each.id)
        # Tenants do not see it any more, administrators do.
        wait("the list is empty", lambda: not list(compute.servers()), 60)
        assert cloud.admin.compute.get_server(server.id).status == "SOFT_DELETED"
        running = {domain for second in (False, True) for domain in cloud.domains_of(second)}
        assert server.id not in running, "a deleted server is off"
        usage = compute.get("/limits").json()["limits"]["absolute"]
        assert usage["totalInstancesUsed"] == 0, "its quota is free, and taken again when it is restored"
        cloud.osctl("server", "restore", "--os-cloud", "wolke-admin", server.id, "--wait")
        settled(tenant, server, "ACTIVE")
        tenant.reachable(address)
        assert read(tenant, address) == "kept" and tenant.fixed_address(server) == fixed
        # The other one goes at once when its owner wants it.
        cloud.osctl("server", "force-delete", "--os-cloud", "wolke-admin", other.id)
        wait("it has no guest any more", lambda: other.id not in cloud.libvirt_domains(), 60)
    # Intervals that were shortened apply to servers that are deleted from then on.
    with cloud.configured("wolke-compute", "compute", reclaim_instance_intervals=[f"{tenant.project.id}=1s"]):
        compute.delete_server(server.id)
        wait("it is reclaimed", lambda: server.id not in cloud.libvirt_domains(), 60)
        wait("its port is free", lambda: not list(tenant.api.network.ports(device_id=server.id)), 60)


def test_a_resize_is_confirmed_after_a_time(cloud, tenant, flavor):  # noqa: F811
    server = tenant.create_server("confirmed")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    write(tenant, address, "here")
    with cloud.configured("wolke-compute", "compute", resize_confirm_window="1s"):
        tenant.api.compute.resize_server(server.id, flavor.id)
        wait("the resize is confirmed", lambda: [
            migration.status for migration in cloud.admin.compute.migrations(server_id=server.id)] == ["confirmed"], 120)
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert tenant.ssh(address, "nproc").strip() == "2" and read(tenant, address) == "here"
    answer = tenant.api.compute.post(f"/servers/{server.id}/action", json={"revertResize": None})
    assert answer.status_code == 409, "nothing is left to revert to"
