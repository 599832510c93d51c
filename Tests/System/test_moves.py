"""Servers that move between hosts: while they run, and from a host that is down."""

import re
import subprocess

import pytest

import diskformats
from test_guest_hardware import flavors, images  # noqa: F401 (fixtures)
from test_server_changes import flavor, read, settled, size, write  # noqa: F401 (a fixture)
from wolkecloud import wait

# Far above what is measured on an idle machine (0.3 s), because other work can hold the machine's two processors.
GAP_MAX = 10.0


class Ping:
    """Pings an address every 50 ms, and says how long it was without an answer."""

    def __init__(self, address):
        self.process = subprocess.Popen(
            ["ping", "-n", "-D", "-i", "0.05", "-W", "1", address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def longest_gap(self):
        self.process.send_signal(2)
        output, _ = self.process.communicate(timeout=30)
        times = [float(t) for t in re.findall(r"^\[(\d+\.\d+)\] \d+ bytes from", output, re.M)]
        assert len(times) > 20, output[-500:]
        return max(after - before for before, after in zip(times, times[1:]))


def host(cloud, server):
    return cloud.admin.compute.get_server(server.id).hypervisor_hostname


def other(cloud, name):
    return next(each for each in cloud.hosts() if each != name)


def wait_for_migration(cloud, server, target, status="completed"):
    def ended():
        now = cloud.admin.compute.get_server(server.id)
        assert now.status != "ERROR", now.fault
        return now.task_state is None

    wait("the migration has ended", ended, 180)
    records = [m for m in cloud.admin.compute.migrations() if m.server_id == server.id]
    newest = max(records, key=lambda m: int(m.id))
    assert newest.status == status, newest
    assert host(cloud, server) == target


def on_volume(tenant, name):
    storage = tenant.api.block_storage
    image = tenant.api.image.find_image("guest", ignore_missing=False)
    volume = storage.create_volume(size=1, name="root", image_id=image.id)
    wait("the volume is made from the image", lambda: storage.get_volume(volume.id).status == "available", 90)
    return tenant.create_server(
        name, image=False, block_device_mapping=[
            {"boot_index": 0, "uuid": volume.id, "source_type": "volume", "destination_type": "volume", "delete_on_termination": True}])


@pytest.mark.parametrize("disk", ["volume", "local"])
def test_a_guest_runs_on_while_it_moves(cloud, tenant, disk):
    server = on_volume(tenant, "runs-on") if disk == "volume" else tenant.create_server("runs-on")
    address, fixed = tenant.floating_address(server), tenant.fixed_address(server)
    tenant.reachable(address)
    write(tenant, address, "data")
    boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
    # Only in the guest's memory.
    tenant.ssh(address, "mkdir -p /run/mark && echo alive > /run/mark/word && sync")
    first = host(cloud, server)
    second = other(cloud, first)
    for source, target in ((first, second), (second, first)):
        ping = Ping(address)
        cloud.admin.compute.live_migrate_server(server.id, host=None, block_migration="auto")
        wait_for_migration(cloud, server, target)
        gap = ping.longest_gap()
        print(f"{disk}: {source} to {target}: {gap * 1000:.0f} ms without an answer")
        assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot
        assert tenant.ssh(address, "cat /run/mark/word").strip() == "alive"
        assert read(tenant, address) == "data"
        assert gap < GAP_MAX
    write(tenant, address, "more")
    assert read(tenant, address) == "more" and tenant.fixed_address(server) == fixed
    cloud.osctl("doctor")


def test_a_paused_server_moves_and_stays_paused(cloud, tenant):
    server = tenant.create_server("stays")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
    here = host(cloud, server)
    compute = cloud.admin.compute
    with pytest.raises(Exception, match="to current host"):
        compute.live_migrate_server(server.id, host=here, block_migration="auto")
    compute.pause_server(server.id)
    settled(tenant, server, "PAUSED")
    compute.live_migrate_server(server.id, host=None, block_migration="auto")
    wait_for_migration(cloud, server, other(cloud, here))
    assert compute.get_server(server.id).status == "PAUSED"
    compute.unpause_server(server.id)
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot


@pytest.mark.parametrize("victim", ["wolke-compute", "source agent", "target agent"])
def test_a_crash_in_a_move_leaves_one_guest(cloud, tenant, victim):
    server = on_volume(tenant, "crash")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
    first = host(cloud, server)
    second = other(cloud, first)
    cloud.admin.compute.live_migrate_server(server.id, host=None, block_migration="auto")
    name = {"wolke-compute": "wolke-compute", "source agent": first, "target agent": second}[victim]
    if victim != "wolke-compute":
        name = "wolke-compute-agent" + ("@host-2" if name == "host-2" else "")
    cloud.kill(name)
    wait("the migration has ended", lambda: cloud.admin.compute.get_server(server.id).task_state is None, 240)
    now = cloud.admin.compute.get_server(server.id)
    assert now.status == "ACTIVE"
    tenant.reachable(address)
    assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot


@pytest.mark.parametrize("disk", ["volume", "local"])
def test_a_server_of_a_host_that_is_down_starts_elsewhere(cloud, tenant, disk):
    server = on_volume(tenant, "evacuated") if disk == "volume" else tenant.create_server("evacuated")
    address, fixed = tenant.floating_address(server), tenant.fixed_address(server)
    tenant.reachable(address)
    write(tenant, address, "data")
    first = host(cloud, server)
    compute = cloud.admin.compute
    with pytest.raises(Exception, match="is still in use"):
        compute.evacuate_server(server.id)
    service = next(s for s in compute.services() if s.host == first and s.binary == "nova-compute")
    try:
        compute.update_service_forced_down(service, first, "nova-compute", True)
        cloud.osctl("server", "evacuate", "--os-cloud", "wolke-admin", server.id, "--wait")
        assert host(cloud, server) == other(cloud, first) and tenant.fixed_address(server) == fixed
        # Microversions from 2.95 on leave an evacuated server off.
        if compute.get_server(server.id).status == "SHUTOFF":
            compute.start_server(server.id)
        settled(tenant, server, "ACTIVE")
        tenant.reachable(address)
        assert read(tenant, address) == ("data" if disk == "volume" else "")
    finally:
        compute.update_service_forced_down(service, first, "nova-compute", False)
    wait("the host has nothing of it left", lambda: server.id not in domains(cloud, first), 60)


def domains(cloud, name):
    state = cloud.state if name != "host-2" else cloud.state / name
    uri = f"qemu:///system?socket={state}/libvirt/run/libvirt-sock"
    return subprocess.run(["virsh", "-c", uri, "list", "--all", "--uuid"], capture_output=True, text=True, check=True).stdout


def test_osctl_shows_the_way(cloud, tenant):
    server = tenant.create_server("shown")
    target = other(cloud, host(cloud, server))
    result = cloud.osctl("server", "migrate", "--os-cloud", "wolke-admin", "--live", "--wait", "--host", target, server.id)
    assert f"on {target}" in result.stdout
    assert "server shown: " in result.stderr
    nothing = cloud.osctl("server", "migrate", "--os-cloud", "wolke-admin", "--abort", server.id, check=False)
    assert nothing.returncode != 0 and "no live migration" in nothing.stderr


def slowly(cloud, name, server, mib):
    """Limits the rate at which the server's memory leaves its host, in MiB/s."""
    state = cloud.state if name != "host-2" else cloud.state / name
    uri = f"qemu:///system?socket={state}/libvirt/run/libvirt-sock"
    subprocess.run(["virsh", "-c", uri, "migrate-setspeed", server.id, str(mib)], check=True, capture_output=True, timeout=30)


def test_a_migration_is_aborted_or_forced_to_complete(cloud, tenant):
    """The guest changes its memory faster than it can leave: the migration only ends when an operator says so."""
    server = on_volume(tenant, "endless")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    tenant.ssh(address, "mkdir -p /run/noise && (while :; do dd if=/dev/urandom of=/run/noise/a bs=1M count=8; done) >/dev/null 2>&1 &")
    boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
    first = host(cloud, server)
    second = other(cloud, first)
    slowly(cloud, first, server, 1)

    def begin():
        cloud.admin.compute.live_migrate_server(server.id, host=None, block_migration="auto")

        def sent():
            running = cloud.admin.compute.get(
                f"/servers/{server.id}/migrations", microversion="2.96").json()["migrations"]
            return running and running[0]["status"] == "running" and (running[0]["memory_processed_bytes"] or 0) > 0

        wait("memory is being sent", sent, 90)

    begin()
    cloud.osctl("server", "migrate", "--os-cloud", "wolke-admin", "--abort", server.id)
    wait_for_migration(cloud, server, first, status="cancelled")
    assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot
    assert server.id not in cloud.domains_of(second == "host-2", "--all"), "the target has nothing of it"
    begin()
    cloud.osctl("server", "migrate", "--os-cloud", "wolke-admin", "--complete", server.id)
    slowly(cloud, first, server, 1000)
    wait_for_migration(cloud, server, second)
    tenant.reachable(address)
    assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot
    cloud.osctl("doctor")


def local(cloud, name, server):
    """The directory of a server's files on a host."""
    return (cloud.state if name != "host-2" else cloud.state / name) / "agent" / "servers" / server.id


# The command TPM2_PCR_Extend for register 16 with 32 bytes of 'w'.
EXTEND = bytes.fromhex("8002 00000041 00000182 00000010 00000009 40000009 0000 00 0000 00000001 000b") + b"w" * 32


def test_a_trusted_platform_module_moves_with_a_guest(cloud, tenant, flavors):  # noqa: F811
    flavor = flavors("module", {"hw:tpm_version": "2.0", "hw:tpm_model": "tpm-crb"}, vcpus=1, ram=256)  # noqa: F811
    server = tenant.create_server("module", flavor=flavor.id)
    address = tenant.floating_address(server)
    tenant.reachable(address)
    octal = "".join(f"\\{byte:03o}" for byte in EXTEND)
    register = "cat /sys/class/tpm/tpm0/pcr-sha256/16"
    before = tenant.ssh(address, register).strip()
    # The answer must be read from the same descriptor.
    tenant.ssh(address, f"exec 3<>/dev/tpm0; printf '{octal}' >&3; dd bs=4096 count=1 <&3 >/dev/null 2>&1")
    extended = tenant.ssh(address, register).strip()
    assert extended != before
    first = host(cloud, server)
    second = other(cloud, first)
    for target in (second, first):
        cloud.admin.compute.live_migrate_server(server.id, host=None, block_migration="auto")
        wait_for_migration(cloud, server, target)
        assert tenant.ssh(address, register).strip() == extended, "the state in the module's memory has moved"
        assert list((local(cloud, target, server) / "tpm").rglob("*permall")), "and what it keeps"
    wait("the other host has nothing left", lambda: not local(cloud, second, server).exists(), 60)
    # The guest starts with the module that has moved.
    cloud.admin.compute.reboot_server(server.id, "HARD")
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert tenant.ssh(address, register).strip() == before, "a start resets the register"


def test_the_firmwares_variables_move_with_a_guest(cloud, tenant, flavors, images):  # noqa: F811
    compute = tenant.api.compute
    image = images("firmware", {"hw_firmware_type": "uefi"})
    created = compute.create_server(
        name="firmware", flavor_id=flavors("firmware", {}, vcpus=1, ram=256).id, image_id=image.id,
        networks=[{"uuid": tenant.network().id}])
    server = tenant.active(created)
    # The small guest has no boot loader for this firmware, which prints a message about it and has written its variables then.
    wait("the firmware writes to the console",
         lambda: "BdsDxe" in compute.get_server_console_output(server.id)["output"], 240)
    first = host(cloud, server)
    second = other(cloud, first)
    variables = (local(cloud, first, server) / "nvram.fd").read_bytes()
    cloud.admin.compute.live_migrate_server(server.id, host=None, block_migration="auto")
    wait_for_migration(cloud, server, second)
    moved = (local(cloud, second, server) / "nvram.fd").read_bytes()
    template = open("/usr/share/OVMF/OVMF_VARS_4M.fd", "rb").read()
    assert moved == variables != template
    assert any("-incoming" in line for line in diskformats.check(cloud.state))


def files(cloud, name, server):
    state = cloud.state if name != "host-2" else cloud.state / name
    return sorted(path.name for path in (state / "agent" / "servers" / server.id).glob("*.qcow2"))


def test_local_disks_move_while_the_server_is_off(cloud, tenant):
    compute = cloud.admin.compute
    made = compute.create_flavor(name="with-disks", vcpus=1, ram=128, disk=1, ephemeral=1, swap=64)
    try:
        server = tenant.create_server("cold", flavor=made.id)
        address, fixed = tenant.floating_address(server), tenant.fixed_address(server)
        tenant.reachable(address)
        write(tenant, address, "root")
        write(tenant, address, "data", disk="vdb")
        first = host(cloud, server)
        second = other(cloud, first)

        def move():
            cloud.osctl("server", "migrate", "--os-cloud", "wolke-admin", server.id, "--wait")
            assert host(cloud, server) == second and tenant.fixed_address(server) == fixed
            tenant.reachable(address)
            assert read(tenant, address) == "root" and read(tenant, address, disk="vdb") == "data"
            assert files(cloud, first, server), "the first host keeps its disks"

        move()
        # Only data that was written there is lost with the revert.
        write(tenant, address, "lost")
        compute.revert_server_resize(server.id)
        settled(tenant, server, "ACTIVE")
        assert host(cloud, server) == first
        tenant.reachable(address)
        assert read(tenant, address) == "root" and read(tenant, address, disk="vdb") == "data"
        assert files(cloud, second, server) == []
        move()
        compute.confirm_server_resize(server.id)
        settled(tenant, server, "ACTIVE")
        wait("the first host has nothing left", lambda: not files(cloud, first, server), 60)
        # A full-copy disk moves to the next host while the guest runs, and is complete after a restart.
        compute.live_migrate_server(server.id, host=None, block_migration="auto")
        wait_for_migration(cloud, server, first)
        compute.reboot_server(server.id, "HARD")
        settled(tenant, server, "ACTIVE")
        tenant.reachable(address)
        assert read(tenant, address) == "root" and read(tenant, address, disk="vdb") == "data"
        assert [image for image in cloud.admin.image.images(is_hidden=True) if "cold" in (image.name or "")] == []
        listed = cloud.osctl("server", "migration", "list", "--os-cloud", "wolke-admin", server.id).stdout
        assert "confirmed" in listed and "reverted" in listed
        cloud.osctl("doctor")
    finally:
        tenant.api.compute.delete_server(server.id)
        tenant.api.compute.wait_for_delete(server)
        compute.delete_flavor(made.id)


def test_a_resize_grows_the_disk_on_another_host(cloud, tenant, flavor):  # noqa: F811
    compute = cloud.admin.compute
    server = tenant.create_server("grown")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    write(tenant, address, "kept")
    first = host(cloud, server)
    service = next(s for s in compute.services() if s.host == first and s.binary == "nova-compute")
    # Leaves the scheduler no capacity there for the new flavor.
    compute.disable_service(service, first, "nova-compute")
    try:
        tenant.api.compute.resize_server(server.id, flavor.id)
        settled(tenant, server, "VERIFY_RESIZE")
        assert host(cloud, server) == other(cloud, first)
        tenant.reachable(address)
        assert read(tenant, address) == "kept" and size(tenant, address) == 2 << 30
        tenant.api.compute.revert_server_resize(server.id)
        settled(tenant, server, "ACTIVE")
        tenant.reachable(address)
        assert host(cloud, server) == first and read(tenant, address) == "kept" and size(tenant, address) == 1 << 30
    finally:
        compute.enable_service(service, first, "nova-compute")


def test_hosts_of_an_aggregate_share_a_processor(cloud, tenant):
    compute = cloud.admin.compute
    aggregate = compute.create_aggregate(name="alike")
    try:
        for name in cloud.hosts():
            compute.add_host_to_aggregate(aggregate, name)
        compute.set_aggregate_metadata(aggregate, {"cpu_model": "baseline"})
        server = tenant.create_server("alike")
        address = tenant.floating_address(server)
        tenant.reachable(address)
        model = tenant.ssh(address, "grep -m1 '^model name' /proc/cpuinfo")
        assert "QEMU Virtual CPU" not in model, "the guest has the processor of the agent's setting"
        first = host(cloud, server)
        boot = tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
        compute.live_migrate_server(server.id, host=None, block_migration="auto")
        wait_for_migration(cloud, server, other(cloud, first))
        assert tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") == boot
        assert tenant.ssh(address, "grep -m1 '^model name' /proc/cpuinfo") == model
    finally:
        for name in cloud.hosts():
            compute.remove_host_from_aggregate(aggregate, name)
        compute.delete_aggregate(aggregate)
