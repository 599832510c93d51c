"""Inspection, cleaning and deployment by OpenStack's ironic-python-agent, which plays the ramdisk of an emulated machine.

The agent is the real one, with a file for its disk (`real_agent.py`); the controller is sushy-tools over a QEMU machine.
"""

import base64
import gzip
import hashlib
import json
import os
import signal
import subprocess

import pytest

from test_controllers import PASSWORD, ROOT, USER, free_port, lab, operator, served, settings  # noqa: F401
from wolkecloud import wait

PYTHON = ROOT / ".venv-agent" / "bin" / "python"


class Ramdisk:
    """The agent of a machine, which starts and ends with its power."""

    def __init__(self, cloud, lab):
        self.lab, self.process = lab, None
        self.api = f"http://127.0.0.1:{6385 + cloud.port_offset}"
        self.disk = lab.directory / "agent-disk.raw"
        self.disk.write_bytes(os.urandom(1 << 20))
        self.log = lab.directory / "agent.log"

    def start(self):
        self.stop()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, ROOT / "Tests/System/controllers/real_agent.py", self.api, self.lab.mac, self.disk, str(free_port())],
                stdout=log, stderr=log, start_new_session=True)

    def stop(self):
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def says(self):
        return self.log.read_text(errors="replace")[-6000:]


@pytest.fixture
def ramdisk(cloud, lab):  # noqa: F811
    ramdisk = Ramdisk(cloud, lab)
    yield ramdisk
    ramdisk.stop()


def test_the_real_agent(cloud, lab, operator, ramdisk):  # noqa: F811
    address, ca = lab.redfish()
    (cloud.state / "controller-certificates" / "rack.pem").write_bytes(ca.read_bytes())
    web = lab.directory / "images"
    web.mkdir()
    (web / "ramdisk.iso").write_bytes(os.urandom(1 << 20))
    image = os.urandom(3 << 20)
    (web / "image.raw").write_bytes(image)
    node = "machine"

    def run(verb, waiting, ends, *arguments):
        """Asks for work, and plays the ramdisk when the machine has been started with it."""
        operator(verb, node, *arguments)

        def is_waiting():
            shown = operator.show(node)
            assert "failed" not in shown["provision_state"], shown["last_error"]
            return shown["provision_state"] == waiting and lab.is_on

        wait(f"{verb}: the node is in {waiting}", is_waiting, 120)
        assert len(lab.images()) == 1
        ramdisk.start()

        def has_ended():
            state = operator.show(node)["provision_state"]
            assert state == ends or "failed" not in state, operator.show(node)["last_error"] + ramdisk.says()
            return state == ends

        wait(f"{verb}: the node is {ends}; {ramdisk.log}", has_ended, 180)
        ramdisk.stop()

    with served(web) as url:
        operator(
            "create", node, "--driver", "redfish", "--interface", "deploy=direct", "--interface", "boot=redfish-virtual-media", "--interface",
            "inspect=agent", "--property", 'root_device={"serial": "S1"}',
            *settings(
                redfish_address=address, redfish_username=USER, redfish_password=json.dumps(PASSWORD), redfish_verify_ca="rack.pem",
                deploy_iso=f"{url}/ramdisk.iso"))
        identifier = operator.show(node)["uuid"]
        cloud.osctl("baremetal", "port", "create", lab.mac, "--node", identifier, "--os-cloud", "wolke-admin", "--no-cache")
        operator("manage", node, "--wait")
        run("inspect", "inspect wait", "manageable")
        found = operator.show(node)["properties"]
        assert (found["cpus"], found["memory_mb"], found["local_gb"]) == (6, 8192, 19), found
        assert not lab.is_on and not lab.images()

        assert any(ramdisk.disk.read_bytes())
        run("provide", "clean wait", "available")
        assert not any(ramdisk.disk.read_bytes())

        drive = lab.directory / "drive"
        drive.write_bytes(base64.b64encode(gzip.compress(b"config drive")))
        described = {
            "image_source": f"{url}/image.raw", "image_disk_format": "raw", "image_os_hash_algo": "sha256",
            "image_os_hash_value": hashlib.sha256(image).hexdigest(),
        }
        operator("set", node, *[word for name, value in described.items() for word in ("--instance-info", f"{name}={value}")])
        run("deploy", "wait call-back", "active", "--config-drive", drive)
        assert ramdisk.disk.read_bytes() == image
        assert ramdisk.disk.with_suffix(".drive").read_text() == drive.read_text()
        assert lab.is_on and not lab.images() and lab.boots_from()[:1] == ["hd"]

        # A byte of the image flips: its checksum does not fit any more, and it is not started.
        (web / "image.raw").write_bytes(bytes([image[0] ^ 1]) + image[1:])
        run("rebuild", "wait call-back", "deploy failed")
        shown = operator.show(node)
        assert "verify" in shown["last_error"] and "image.raw" in shown["last_error"], shown["last_error"]
        assert not lab.is_on and not lab.images()
        operator("why", node)
        run("undeploy", "clean wait", "available")
        assert not any(ramdisk.disk.read_bytes())
