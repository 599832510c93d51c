"""One cloud for all system tests, used from outside: its command, its state directory, its clients, its guests.

`wolkecloud.py up DIRECTORY` starts one, for suites that are run with WOLKE_TEST_RUNNING=DIRECTORY.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import openstack

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("WOLKE_TEST_BINARIES", ROOT / ".build" / os.environ.get("CONFIGURATION", "debug")))
# Starting a guest on an emulated processor takes seconds on an idle machine, and much longer beside others.
START_LIMIT = 180
PROCESS_LIMIT = 60
# Clouds of other tests may run at the same time.
PORT_OFFSETS = range(2000, 8000, 125)


def wait(what, condition, limit=START_LIMIT, pause=0.25):
    """Calls `condition` until it is true and returns its value; fails with `what` after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {limit} s")
        time.sleep(pause)


def free_offset():
    def is_free(port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return probe.connect_ex(("127.0.0.1", port)) != 0

    return next(offset for offset in PORT_OFFSETS if all(is_free(port + offset) for port in (5000, 8774, 5673, 14369)))


class Cloud:
    """A private cloud with two hosts in a state directory of its own."""

    def __init__(self, state, port_offset):
        self.state = Path(state)
        self.port_offset = port_offset
        self.clouds = self.state / "clouds.yaml"
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(self.clouds)
        self._admin = None

    @classmethod
    def of(cls, state):
        """The cloud of a state directory; a new one gets free ports."""
        remembered = Path(state) / "cloud.json"
        return cls(state, json.loads(remembered.read_text())["port_offset"] if remembered.exists() else free_offset())

    def osctl(self, *arguments, check=True, limit=300):
        result = subprocess.run(
            [BUILD / "osctl", *arguments], capture_output=True, text=True, timeout=limit,
            # The variable is for `up`; in it, because earlier releases have no such option.
            env={**os.environ, "STATE": str(self.state), "WITH": os.environ.get("WITH", "all")},
        )
        if check and result.returncode != 0:
            raise AssertionError(f"osctl {' '.join(map(str, arguments))}: {result.stdout}\n{result.stderr}")
        return result

    def up(self):
        image = self.state / "images" / "guest.qcow2"
        if not image.exists():
            subprocess.run(["bash", ROOT / "deploy/guest-image/build", image], check=True)
        return self.osctl("cloud", "up", "--port-offset", str(self.port_offset), "--hosts", "2").stdout

    def down(self):
        return self.osctl("cloud", "down").stdout

    @property
    def admin(self):
        if self._admin is None:
            self._admin = openstack.connect(cloud="wolke-admin")
        return self._admin

    def parts(self):
        return {part["name"]: part for part in json.loads(self.osctl("status", "-o", "json", check=False).stdout)["parts"]}

    def hosts(self):
        return sorted(service.host for service in self.admin.compute.services() if service.binary == "nova-compute")

    def kill(self, name):
        """Kills a part's process and waits until a new one is ready."""
        before = self.parts()[name]
        os.kill(before["pid"], signal.SIGKILL)

        def restarted():
            part = self.parts()[name]
            return part["pid"] not in (None, before["pid"]) and part["health"] == "healthy"

        wait(f"{name} is restarted", restarted, PROCESS_LIMIT)

    def stop(self, part):
        self.osctl("cloud", "stop", part)

    def start(self, part):
        self.osctl("cloud", "start", part)

    @contextlib.contextmanager
    def configured(self, service, section, **values):
        """Runs a service of the first host with other settings of a section that the cloud's file does not have."""
        file = self.state / "wolke.yaml"
        before = file.read_text()
        assert not re.search(rf"^{section}:", before, re.M), f"the cloud's file has a section {section}"
        file.write_text(before + f"{section}:\n" + "".join(f"  {name}: {json.dumps(value)}\n" for name, value in values.items()))
        try:
            self.kill(service)
            yield
        finally:
            file.write_text(before)
            self.kill(service)

    # What a tenant never sees

    def libvirt_domains(self):
        """The domains of both hosts, also those that are off."""
        return {domain for second in (False, True) for domain in self.domains_of(second, "--all")}

    def domains_of(self, second, *options):
        """The domains of host-2, or of the machine itself."""
        directory = self.state / "host-2" if second else self.state
        uri = f"qemu:///system?socket={directory}/libvirt/run/libvirt-sock"
        return set(run("virsh", "-c", uri, "list", "--uuid", *options).split())

    def northbound(self):
        return run("ovsdb-client", "dump", f"unix:{self.state}/ovn/run/nb.sock", "OVN_Northbound")

    def sql(self, statement, user="wolke"):
        """Runs SQL as the services' user, or as the superuser `postgres`, which root may do."""
        where = f"host={self.state}/postgres/run port={15432 + self.port_offset} dbname=wolke"
        return run(
            "/usr/lib/postgresql/15/bin/psql", "-X", "-At", "-v", "ON_ERROR_STOP=1",
            "-d", f"{where} user={user} passfile={self.state}/secrets/pgpass", "-c", statement,
        ).splitlines()


def run(*command, limit=60, check=True):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=limit)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result.stdout


class Tenant:
    """A project with one member, and its resources; `close` deletes the resources and then the project."""

    def __init__(self, cloud, directory):
        self.cloud = cloud
        self.name = "t" + uuid.uuid4().hex[:8]
        identity = cloud.admin.identity
        self.project = identity.create_project(name=self.name, domain_id="default")
        password = uuid.uuid4().hex
        self.user = identity.create_user(
            name=self.name, password=password, domain_id="default", default_project_id=self.project.id)
        role = identity.find_role("member", ignore_missing=False)
        identity.assign_project_role_to_user(self.project, self.user, role)
        self.api = openstack.connect(
            auth_url=cloud.admin.config.config["auth"]["auth_url"], username=self.name, password=password,
            project_name=self.name, user_domain_id="default", project_domain_id="default", region_name="RegionOne",
            identity_api_version="3",
        )
        self.key = Path(directory) / self.name
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        self.api.compute.create_keypair(name="key", public_key=self.key.with_suffix(".pub").read_text().strip())
        self._group = None
        self._network = None

    # Creating

    def group(self):
        if self._group is None:
            self._group = self.api.network.create_security_group(name="in")
            for rule in ({"protocol": "icmp"}, {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}):
                self.api.network.create_security_group_rule(
                    security_group_id=self._group.id, direction="ingress", ethertype="IPv4", **rule)
        return self._group

    def network(self, cidr="192.168.50.0/24"):
        """The tenant's network behind a router to the outside; created once."""
        if self._network is None:
            network = self.api.network
            self._network = network.create_network(name="net")
            subnet = network.create_subnet(network_id=self._network.id, ip_version=4, cidr=cidr, name="subnet")
            external = next(network.networks(is_router_external=True))
            router = network.create_router(name="router", external_gateway_info={"network_id": external.id})
            network.add_interface_to_router(router, subnet_id=subnet.id)
        return self._network

    def create_server(self, name, wait_until_active=True, image=True, flavor=None, **extra):
        """Requests a server; the flavor (an id), `networks` and `security_groups` are the tenant's unless given."""
        extra.setdefault("networks", [{"uuid": self.network().id}])
        extra.setdefault("security_groups", [{"name": self.group().name}])
        if image:
            extra["image_id"] = self.api.image.find_image("guest", ignore_missing=False).id
        server = self.api.compute.create_server(
            name=name, flavor_id=flavor or self.api.compute.find_flavor("m1.nano").id, key_name="key", **extra)
        return self.active(server) if wait_until_active else server

    def active(self, server):
        def settled():
            found = self.api.compute.get_server(server.id)
            return found if found.status in ("ACTIVE", "ERROR") and not found.task_state else None

        found = wait(f"server {server.name} leaves BUILD", settled)
        assert found.status == "ACTIVE", f"server {server.name}: {found.fault}"
        return found

    def fixed_address(self, server):
        return next(self.api.network.ports(device_id=server.id)).fixed_ips[0]["ip_address"]

    def floating_address(self, server):
        port = next(self.api.network.ports(device_id=server.id))
        external = next(self.api.network.networks(is_router_external=True))
        return self.api.network.create_ip(floating_network_id=external.id, port_id=port.id).floating_ip_address

    # Guests

    def ssh(self, address, command, check=True, key=None):
        return run(
            "ssh", "-i", key or self.key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=4",
            address if "@" in address else f"root@{address}", command,
            check=check,
        )

    def reachable(self, address):
        """Waits until its owner can log in to the guest."""
        return wait(f"SSH to {address}", lambda: self.ssh(address, "echo in", check=False).strip() == "in")

    # Deleting

    def delete_servers(self):
        compute = self.api.compute
        for server in compute.servers():
            compute.delete_server(server.id, ignore_missing=True)
        wait("the servers are gone", lambda: not list(compute.servers()), 90)

    def close(self):
        network, storage = self.api.network, self.api.block_storage
        for address in network.ips():
            network.delete_ip(address.id)
        self.delete_servers()
        for group in self.api.compute.server_groups():
            self.api.compute.delete_server_group(group.id)
        for volume in storage.volumes():
            storage.delete_volume(volume.id)
        wait("the volumes are gone", lambda: not list(storage.volumes()), 60)
        for router in network.routers():
            for port in network.ports(device_id=router.id, device_owner="network:router_interface"):
                network.remove_interface_from_router(router, port_id=port.id)
            network.delete_router(router.id)
        for port in network.ports():
            if not (port.device_owner or "").startswith("network:"):
                network.delete_port(port.id)
        for item in network.networks(project_id=self.project.id):
            network.delete_network(item.id)
        for group in network.security_groups(project_id=self.project.id):
            if group.name != "default":
                network.delete_security_group(group.id)
        self.api.compute.delete_keypair("key")
        self.cloud.admin.identity.delete_user(self.user.id)
        self.cloud.admin.identity.delete_project(self.project.id)


if __name__ == "__main__":
    _, word, directory = sys.argv
    if word != "up":
        sys.exit(f"unknown word {word!r}: only \"up\" is known")
    os.makedirs(directory, mode=0o755, exist_ok=True)
    print(Cloud.of(directory).up())
