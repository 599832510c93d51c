"""The drivers `redfish` and `ipmi` with controllers that are emulated over real QEMU machines: sushy-tools and virtualbmc."""

import contextlib
import functools
import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest

from wolkecloud import ROOT, run, wait

TOOLS = ROOT / ".venv-bare-metal" / "bin"
USER, PASSWORD = "wolke", "p a:ss'w\"ord"  # ipmitool takes up to 20 bytes
DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>1024</memory><vcpu>2</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
    <interface type='user'><mac address='{mac}'/><model type='virtio'/></interface></devices></domain>"""


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Lab:
    """A private libvirtd with one machine, and two controllers for it."""

    def __init__(self, directory):
        self.directory = directory
        self.processes = []
        self.name, self.uuid = "machine", str(uuid.uuid4())
        self.mac = "52:54:00:aa:bb:cc"
        self.uri = f"qemu:///system?socket={directory}/run/libvirt-sock"
        for name in ("run", "etc", "vbmc"):
            (directory / name).mkdir()
        self.libvirt()
        disk = directory / "disk.raw"
        with open(disk, "wb") as file:
            file.truncate(6 << 30)
        definition = directory / "machine.xml"
        definition.write_text(DOMAIN.format(name=self.name, uuid=self.uuid, disk=disk, mac=self.mac))
        self.virsh("define", definition)
        # For the images that the emulated controller presents.
        (directory / "pool").mkdir()
        self.virsh("pool-define-as", "default", "dir", "--target", directory / "pool")
        self.virsh("pool-start", "default")

    def start(self, name, *command, environment=None):
        with open(self.directory / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **(environment or {})}, start_new_session=True)
        self.processes.append(process)
        return process

    def log(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]

    def libvirt(self):
        """In a mount namespace of its own: QEMU's driver has fixed paths for its state."""
        config = self.directory / "etc" / "libvirtd.conf"
        config.write_text(
            f'unix_sock_dir = "{self.directory}/run"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\nhost_uuid = "{uuid.uuid4()}"\n'
            f'log_outputs = "2:file:{self.directory}/libvirtd-own.log"\n')
        # QEMU's settings are read from a fixed place, too.
        private = self.directory / "private"
        script = "set -e\n"
        for place in ("etc/libvirt", "run/libvirt", "var/lib/libvirt", "var/log/libvirt", "var/cache/libvirt"):
            (private / place).mkdir(parents=True)
            Path("/", place).mkdir(parents=True, exist_ok=True)
            script += f"mount --bind '{private / place}' '/{place}'\n"
        (private / "etc/libvirt/qemu.conf").write_text(
            'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ndynamic_ownership = 0\nremember_owner = 0\nnamespaces = []\n'
            'cgroup_controllers = []\nstdio_handler = "file"\n')
        script += f"exec libvirtd -f '{config}' -p '{self.directory}/libvirtd.pid'\n"
        self.start("libvirtd", "unshare", "--mount", "--propagation", "private", "bash", "-c", script)
        wait("libvirtd answers: " + self.uri, lambda: subprocess.run(
            ["virsh", "-c", self.uri, "version"], capture_output=True).returncode == 0, 30)

    def virsh(self, *arguments):
        return run("virsh", "-c", self.uri, *arguments)

    @property
    def is_on(self):
        return self.virsh("domstate", self.name).strip() == "running"

    def images(self):
        """The sources of the machine's CD drives."""
        text = self.virsh("domblklist", "--inactive", "--details", self.name)
        return [line.split(maxsplit=3)[3] for line in text.splitlines() if line.split()[1:2] == ["cdrom"]]

    def boots_from(self):
        text = self.virsh("dumpxml", "--inactive", self.name)
        return [line.split("'")[1] for line in text.splitlines() if "<boot dev=" in line]

    # The controllers

    def redfish(self):
        """sushy-tools over TLS with a certificate of a private authority, and a password."""
        ca, key, certificate = (self.directory / name for name in ("ca.pem", "tls.key", "tls.pem"))
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
            "/CN=rack authority", "-keyout", self.directory / "ca.key", "-out", ca)
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=controller", "-keyout",
            key, "-out", self.directory / "tls.csr")
        extension = self.directory / "extension"
        extension.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        run("openssl", "x509", "-req", "-days", "2", "-in", self.directory / "tls.csr", "-CA", ca, "-CAkey", self.directory / "ca.key",
            "-CAcreateserial", "-extfile", extension, "-out", certificate)
        hashed = run(TOOLS / "python", "-c", "import bcrypt, sys; print(bcrypt.hashpw(sys.argv[1].encode(), bcrypt.gensalt(4)).decode())", PASSWORD)
        (self.directory / "htpasswd").write_text(f"{USER}:{hashed.strip()}\n")
        port = free_port()
        config = self.directory / "sushy.conf"
        config.write_text(
            f"SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\nSUSHY_EMULATOR_SSL_CERT = '{certificate}'\n"
            f"SUSHY_EMULATOR_SSL_KEY = '{key}'\nSUSHY_EMULATOR_AUTH_FILE = '{self.directory}/htpasswd'\n"
            f"SUSHY_EMULATOR_LIBVIRT_URI = '{self.uri}'\nSUSHY_EMULATOR_STATE_DIR = '{self.directory}'\n")
        self.start("sushy", TOOLS / "sushy-emulator", "--config", config)
        self.listening(port, "sushy")
        return f"https://127.0.0.1:{port}", ca

    def ipmi(self):
        """virtualbmc."""
        control, port = free_port(), free_port(socket.SOCK_DGRAM)
        config = self.directory / "vbmc.conf"
        config.write_text(f"[default]\nconfig_dir = {self.directory}/vbmc\nserver_port = {control}\n[log]\nlogfile = {self.directory}/vbmc-own.log\n")
        environment = {"VIRTUALBMC_CONFIG": str(config)}
        self.start("vbmcd", TOOLS / "vbmcd", "--foreground", environment=environment)
        self.listening(control, "vbmcd")

        def vbmc(*arguments):
            result = subprocess.run(
                [TOOLS / "vbmc", "--no-daemon", *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
            assert result.returncode == 0, f"vbmc {arguments}: {result.stdout} {result.stderr} {self.log('vbmcd')}"

        vbmc("add", self.name, "--port", str(port), "--address", "127.0.0.1", "--username", USER, "--password", PASSWORD, "--libvirt-uri", self.uri)
        vbmc("start", self.name)
        return port

    def listening(self, port, name):
        def connects():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait(f"{name} listens", connects, 60)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.log(name)}")

    def close(self):
        subprocess.run(["virsh", "-c", self.uri, "destroy", self.name], capture_output=True)
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


class Operator:
    """`osctl baremetal node`."""

    def __init__(self, cloud):
        self.cloud = cloud

    def __call__(self, verb, *arguments, check=True):
        return self.cloud.osctl("baremetal", "node", *verb.split(), *arguments, "--os-cloud", "wolke-admin", "--no-cache", check=check)

    def show(self, node):
        return json.loads(self("show", node, "-o", "json").stdout)


@pytest.fixture
def operator(cloud):
    operator = Operator(cloud)
    yield operator
    for node in json.loads(operator("list", "-o", "json").stdout):
        operator("maintenance set", node["uuid"])
        operator("delete", node["uuid"])


def settings(**values):
    return [word for name, value in values.items() for word in ("--driver-info", f"{name}={value}")]


def switch(operator, lab, node):
    """Every change of the power, as the machine sees it."""
    for verb, is_on in (("on", True), ("off", False), ("off", False), ("on", True), ("reboot", True), ("reboot", True)):
        before = lab.virsh("domid", lab.name).strip()
        operator(f"power {verb}", node, "--wait", "--timeout", "120")
        assert lab.is_on == is_on, verb
        assert verb != "reboot" or lab.virsh("domid", lab.name).strip() >= before
    operator("power off", node, "--wait")
    assert not lab.is_on
    # Somebody else switches it on: the plane's view follows.
    lab.virsh("start", lab.name)
    wait("the node has power", lambda: operator.show(node)["power_state"] == "power on", 90)
    assert "outside of this cloud" in operator("history", node).stdout
    operator("power off", node, "--wait")


def boot(operator, lab, node, devices):
    for device, own in devices:
        operator("boot-device set", node, device, "--persistent")
        assert lab.boots_from()[:1] == [own], device
        assert json.loads(operator("boot-device show", node, "-o", "json").stdout)["boot_device"] == device


@contextlib.contextmanager
def served(directory):
    """A directory as a web server."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def media(operator, lab, node):
    """An image in the machine's CD drive, twice and replaced."""
    web = lab.directory / "web"
    web.mkdir()
    for name in ("a.iso", "b.iso"):
        (web / name).write_bytes(os.urandom(1 << 20))
    with served(web) as url:
        for name in ("a.iso", "a.iso", "b.iso"):
            operator("media insert", node, f"{url}/{name}")
            drives = json.loads(operator("media list", node, "-o", "json").stdout)
            assert [drive["image"] for drive in drives if drive["inserted"]] == [f"{url}/{name}"], drives
            assert len(lab.images()) == 1 and lab.images()[0] != "-", lab.images()
        answer = operator("media insert", node, f"{url}/absent.iso", check=False)
        assert answer.returncode == 1 and "has failed" in answer.stderr, answer.stderr
    operator("media eject", node)
    operator("media eject", node)
    assert not any(drive["inserted"] for drive in json.loads(operator("media list", node, "-o", "json").stdout))


def refused(operator, node, words):
    answer = operator("manage", node, "--wait", check=False)
    assert answer.returncode == 1 and words in answer.stderr, answer.stderr
    assert PASSWORD not in answer.stderr + operator("show", node, "-o", "json").stdout + operator("history", node).stdout


def test_redfish(cloud, lab, operator):
    address, ca = lab.redfish()
    certificates = cloud.state / "controller-certificates"
    (certificates / "rack.pem").write_bytes(ca.read_bytes())
    node = "by-redfish"
    operator("create", node, "--driver", "redfish", *settings(redfish_address=address, redfish_username=USER, redfish_password="wrong"))
    refused(operator, node, "ertificate")
    operator("set", node, *settings(redfish_verify_ca="rack.pem", redfish_password="wrong"))
    refused(operator, node, "the user or the password is wrong")
    operator("set", node, *settings(redfish_password=json.dumps(PASSWORD)))
    operator("manage", node, "--wait")
    operator("inspect", node, "--wait")
    found = operator.show(node)["properties"]
    assert (found["cpus"], found["memory_mb"], found["cpu_arch"]) == (2, 1024, "x86_64"), found
    switch(operator, lab, node)
    boot(operator, lab, node, [("pxe", "network"), ("disk", "hd")])
    media(operator, lab, node)
    operator("validate", node)
    operator("provide", node, "--wait")
    deploying = operator("deploy", node, check=False)
    assert deploying.returncode == 1 and "does not support deploy" in deploying.stderr


def test_ipmi(cloud, lab, operator):
    port = lab.ipmi()
    node = "by-ipmi"
    own = {"ipmi_address": "127.0.0.1", "ipmi_port": port, "ipmi_username": USER}
    operator("create", node, "--driver", "ipmi", *settings(**own, ipmi_password="wrong"))
    refused(operator, node, "ipmi")
    operator("set", node, *settings(ipmi_password=json.dumps(PASSWORD)))
    operator("manage", node, "--wait")
    switch(operator, lab, node)
    boot(operator, lab, node, [("pxe", "network"), ("disk", "hd")])


def test_a_silent_controller_is_named(cloud, operator):
    node = "nobody"
    operator("create", node, "--driver", "redfish", *settings(redfish_address=f"https://127.0.0.1:{free_port()}"))
    begun = time.monotonic()
    operator("manage", node)
    wait("the reason is known", lambda: "cannot be reached" in operator("why", node).stdout or operator.show(node)["last_error"], 120)
    assert time.monotonic() - begun < 120
