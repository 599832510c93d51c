"""Devices, processors and firmware that a flavor and an image choose, seen from inside the guest."""

import pytest
from openstack import exceptions

from test_server_changes import settled
from wolkecloud import wait

SPECS = {
    "hw:cpu_sockets": "1", "hw:cpu_cores": "2", "hw:numa_nodes": "2", "hw:tpm_version": "2.0", "hw:tpm_model": "tpm-crb",
    "hw:serial_port_count": "2", "hw_rng:rate_bytes": "65536", "quota:disk_write_bytes_sec": "4194304",
}
PROPERTIES = {
    "hw_disk_bus": "scsi", "hw_scsi_model": "virtio-scsi", "hw_video_model": "vga", "hw_watchdog_action": "reset",
    "hw_vif_multiqueue_enabled": "true", "img_hide_hypervisor_id": "true", "hw_time_hpet": "false", "hw_machine_type": "q35",
    "hw_input_bus": "virtio", "hw_boot_menu": "false",
}


@pytest.fixture
def flavors(cloud):
    compute = cloud.admin.compute
    made = []

    def make(name, specs, vcpus=2, ram=256):
        flavor = compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=1)
        made.append(flavor)
        compute.create_flavor_extra_specs(flavor, specs)
        return flavor

    yield make
    for flavor in made:
        compute.delete_flavor(flavor.id)


@pytest.fixture
def images(tenant):
    api = tenant.api.image
    guest = api.find_image("guest", ignore_missing=False)
    content = api.download_image(guest.id).content
    made = []

    def make(name, properties):
        image = api.create_image(name=name, disk_format="qcow2", container_format="bare", data=content, wait=True, **properties)
        made.append(image)
        return image

    yield make
    tenant.delete_servers()
    for image in made:
        api.delete_image(image.id)


def start(tenant, name, image, flavor, **extra):
    return tenant.api.compute.create_server(
        name=name, flavor_id=flavor.id, image_id=image.id, key_name="key", networks=[{"uuid": tenant.network().id}],
        security_groups=[{"name": tenant.group().name}], **extra)


def test_a_guest_has_the_hardware_of_its_flavor_and_image(cloud, tenant, flavors, images):
    compute = tenant.api.compute
    flavor, image = flavors("hardware", SPECS), images("hardware", PROPERTIES)
    server = tenant.active(start(tenant, "hardware", image, flavor, config_drive=True))
    address = tenant.floating_address(server)
    tenant.reachable(address)

    def inside(command):
        return tenant.ssh(address, command).strip()

    assert inside("ls /sys/block | grep -E '^(vd|sd|sr)' | sort | tr '\\n' ' '").split() == ["sda", "sr0"]
    devices = inside("cat /sys/bus/pci/devices/*/uevent | grep PCI_ID | cut -d= -f2").split()
    # Intel's i6300ESB, QEMU's VGA; q35's bridge and not the older one.
    assert "8086:25AB" in devices and "1234:1111" in devices and "8086:29C0" in devices and "8086:1237" not in devices
    processors = inside("cat /proc/cpuinfo")
    assert processors.count("cpu cores\t: 2") == 2 and "hypervisor" not in processors
    assert inside("ls -d /sys/devices/system/node/node[0-9] | wc -l") == "2"
    assert inside("ls /sys/firmware/acpi/tables | grep -E '^(TPM2|HPET)$'") == "TPM2"
    assert inside("ls -d /sys/class/net/eth0/queues/rx-* | wc -l") == "2"
    assert inside("grep -c 16550 /proc/tty/driver/serial") == "2"
    # 12 MB at 4 MiB/s take longer than the burst of a second, regardless of the machine's load.
    seconds = float(inside(
        "s=$(cut -d' ' -f1 /proc/uptime); dd if=/dev/zero of=/dev/sda bs=1M seek=900 count=12 oflag=direct conv=notrunc 2>/dev/null;"
        " e=$(cut -d' ' -f1 /proc/uptime); awk \"BEGIN {print $e - $s}\""))
    assert seconds > 1.5, seconds

    # Volumes are attached on the same bus while the guest runs.
    storage = tenant.api.block_storage
    volume = storage.create_volume(size=1, name="data")
    wait("the volume is available", lambda: storage.get_volume(volume.id).status == "available", 60)
    compute.create_volume_attachment(server.id, volume_id=volume.id)
    wait("the volume is attached", lambda: storage.get_volume(volume.id).status == "in-use", 60)
    wait("the guest has the volume", lambda: inside("ls /sys/block | grep -c '^sd'") == "2", 60)
    compute.delete_volume_attachment(server.id, volume.id)
    wait("the guest has released the volume", lambda: inside("ls /sys/block | grep -c '^sd'") == "1", 60)

    nodes = cloud.admin.compute.get(f"/servers/{server.id}/topology", microversion="2.78").json()["nodes"]
    assert [(node["vcpu_set"], node["memory_mb"]) for node in nodes] == [([0], 128), ([1], 128)]

    # A rebuild applies the properties of the new image; the flavor's settings stay.
    plain = tenant.api.image.find_image("guest", ignore_missing=False)
    compute.rebuild_server(server.id, plain.id)
    settled(tenant, server, "ACTIVE")
    tenant.reachable(address)
    assert inside("ls /sys/block | grep -E '^(vda|sda)'") == "vda"
    assert inside("ls /sys/firmware/acpi/tables | grep TPM2") == "TPM2"
    assert "8086:25AB" not in inside("cat /sys/bus/pci/devices/*/uevent | grep PCI_ID")


def test_secure_boot_refuses_a_system_without_a_signature(tenant, flavors, images):
    compute = tenant.api.compute
    image = images("secure", {"hw_firmware_type": "uefi", "hw_disk_bus": "sata", "os_secure_boot": "required"})
    server = tenant.active(start(tenant, "secure", image, flavors("secure", {}, vcpus=1, ram=128)))
    # The small guest has no boot loader for this firmware, which prints a message about it.
    wait("the firmware writes to the console",
         lambda: "BdsDxe" in compute.get_server_console_output(server.id)["output"], 240)
    # Disks on SATA can only be attached and detached while the server is off.
    storage = tenant.api.block_storage
    volume = storage.create_volume(size=1, name="data")
    wait("the volume is available", lambda: storage.get_volume(volume.id).status == "available", 60)
    with pytest.raises(exceptions.ConflictException, match="hw_disk_bus"):
        compute.create_volume_attachment(server.id, volume_id=volume.id)


def test_what_no_host_has_is_refused_by_its_name(tenant, flavors, images):
    compute = tenant.api.compute
    image = images("refused", {"hw_disk_bus": "ide", "hw_machine_type": "q35"})
    plain = tenant.api.image.find_image("guest", ignore_missing=False)
    small = tenant.api.compute.find_flavor("m1.nano")
    with pytest.raises(exceptions.BadRequestException, match="hw_disk_bus.*hw_machine_type"):
        start(tenant, "refused", image, small)
    with pytest.raises(exceptions.BadRequestException, match="hw:numa_nodes"):
        start(tenant, "refused", plain, flavors("uneven", {"hw:numa_nodes": "2", "hw:numa_mem.0": "1"}))
    # The one-machine cloud has no control groups for its guests.
    server = start(tenant, "unscheduled", plain, flavors("rates", {"quota:cpu_shares": "512"}))
    settled(tenant, server, "ERROR")
    assert "CUSTOM_WOLKE_CPU_RATES" in compute.get_server(server.id).fault["message"]
