"""ironic-python-agent as a process of the test's machine, with the hardware of a test.

    real_agent.py API_URL MAC_ADDRESS DISK PORT

The agent believes to run in a ramdisk. Therefore it has no hardware managers but the one below, whose disk is a file, and no program
of this machine: whatever it would execute fails.
"""

import pathlib
import sys

from oslo_concurrency import processutils


def refuse(*command, **options):
    raise processutils.ProcessExecutionError(cmd=" ".join(map(str, command)), exit_code=127, stderr="not on this machine")


# Before the agent's modules are loaded.
processutils.execute = refuse

from oslo_config import cfg  # noqa: E402
from oslo_log import log  # noqa: E402

from ironic_python_agent import agent, config, disk_utils, hardware, partition_utils, tls_utils, utils  # noqa: E402, F401
from ironic_python_agent.extensions import standby  # noqa: E402

API_URL, ADDRESS, DISK, PORT = sys.argv[1:5]
disk = pathlib.Path(DISK)


class TestHardware(hardware.HardwareManager):
    HARDWARE_MANAGER_NAME, HARDWARE_MANAGER_VERSION = "TestHardware", "1.0"

    def evaluate_hardware_support(self):
        return hardware.HardwareSupport.SERVICE_PROVIDER

    def initialize(self):
        pass

    def list_network_interfaces(self):
        return [hardware.NetworkInterface(name="eth0", mac_addr=ADDRESS, has_carrier=True)]

    def get_cpus(self):
        return hardware.CPU(model_name="Test", frequency=1000, count=6, architecture="x86_64")

    def get_memory(self):
        return hardware.Memory(total=8 << 30, physical_mb=8192)

    def list_block_devices(self, include_partitions=False, all_serial_and_wwn=False):
        return [hardware.BlockDevice(name=DISK, model="File", size=20 << 30, rotational=False, serial="S1")]

    def get_os_install_device(self, permit_refresh=False):
        # The hint of the node reached the agent.
        hints = (hardware.get_cached_node() or {}).get("properties", {}).get("root_device")
        if hints != {"serial": "S1"}:
            raise RuntimeError(f"hints: {hints}")
        return DISK

    def get_bmc_address(self):
        return None

    def get_bmc_v6address(self):
        return None

    def get_bmc_mac(self):
        return None

    def get_system_vendor_info(self):
        return hardware.SystemVendorInfo(product_name="Test", serial_number="1", manufacturer="Test")

    def get_boot_info(self):
        return hardware.BootInfo(current_boot_mode="uefi")

    def generate_tls_certificate(self, ip_address):
        return tls_utils.generate_tls_certificate(ip_address)

    def get_clean_steps(self, node, ports):
        step = {"interface": "deploy", "reboot_requested": False}
        return [{"step": "erase_devices", "priority": 10, **step}, {"step": "burnin_disk", "priority": 0, **step}]

    def erase_devices(self, node, ports):
        disk.write_bytes(bytes(disk.stat().st_size))

    def burnin_disk(self, node, ports, fails=False):
        if fails:
            raise RuntimeError("The disk burns.")

    def get_deploy_steps(self, node, ports):
        return []

    def get_service_steps(self, node, ports):
        return []

    def full_sync(self):
        pass


manager = TestHardware()
hardware._global_managers = [{"name": "TestHardware", "manager": manager, "support": hardware.HardwareSupport.SERVICE_PROVIDER}]

# What the agent does to partitions, of which a file has none.
disk_utils.fix_gpt_partition = lambda *arguments, **options: None
disk_utils.block_uuid = lambda *arguments, **options: "none"
disk_utils.get_disk_identifier = lambda *arguments, **options: "none"
standby._validate_partitioning = lambda *arguments, **options: None
partition_utils.create_config_drive_partition = lambda node, device, drive: disk.with_suffix(".drive").write_text(drive)
utils.sync_clock = lambda *arguments, **options: None

options = [
    "--api-url", API_URL, "--listen-host", "127.0.0.1", "--listen-port", PORT, "--advertise-host", "127.0.0.1", "--advertise-port", PORT,
    "--lookup-interval", "1", "--debug",
]
log.register_options(cfg.CONF)
cfg.CONF(args=options, default_config_files=[])
log.setup(cfg.CONF, "ironic-python-agent")
agent.IronicPythonAgent.from_config(cfg.CONF).run()
