"""A crash of any of our processes is detected, the process is restarted, and running guests are not affected."""

import servicelist
from wolkecloud import PROCESS_LIMIT, wait

WOLKE = (*servicelist.executables(), "wolke-compute-agent@host-2")


def test_crashes_leave_guests_unharmed(cloud, tenant):
    server = tenant.create_server("steady")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    tenant.ssh(address, "echo same > /run/mark")
    for name in WOLKE:
        cloud.kill(name)
        assert tenant.ssh(address, "cat /run/mark").strip() == "same", f"after the crash of {name}"
    parts = cloud.parts()
    assert all(parts[name]["restarts"] >= 1 for name in WOLKE)
    assert tenant.api.compute.get_server(server.id).status == "ACTIVE"
    tenant.create_server("later")
    assert tenant.ssh(address, "cat /run/mark").strip() == "same"


def test_status_tells_all_parts(cloud):
    parts = cloud.parts()
    assert set(WOLKE) <= set(parts)
    for name in ("postgres", "rabbitmq", "ovn-northbound", "ovn-southbound", "ovs-vswitchd", "ovn-controller", "libvirtd", *WOLKE):
        assert parts[name]["health"] == "healthy", parts[name]
        assert parts[name]["memory_bytes"] > 0


def test_crashes_of_other_parts_leave_guests_running(cloud, tenant):
    server = tenant.create_server("steady")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    tenant.ssh(address, "echo same > /run/mark")
    for name in (
        "postgres", "ovn-northbound", "ovn-southbound", "ovn-northd", "ovn-controller", "ovsdb-switch", "ovs-vswitchd",
        "libvirtd", "virtlogd",
    ):
        cloud.kill(name)
        # The switch forwards packets, so they stop while it is down.
        tenant.reachable(address)
        assert tenant.ssh(address, "cat /run/mark").strip() == "same", f"after the crash of {name}"
    wait("all parts are well", lambda: all(part["health"] == "healthy" for part in cloud.parts().values()), PROCESS_LIMIT)
    later = tenant.create_server("later")
    tenant.reachable(tenant.floating_address(later))
