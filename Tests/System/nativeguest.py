"""Guests without a virtual machine: a network namespace attached to a port of the API. They are as fast as the host."""

import json
import subprocess
import sys
import uuid

from wolkecloud import run, wait


class NativeGuest:
    """One on `port` (of openstacksdk); `close` removes it. `host` 1 is the machine itself, 2 the simulated host."""

    def __init__(self, cloud, port, host=1, addresses=()):
        self.cloud, self.port, self.host = cloud, port, host
        self.name = "wt" + uuid.uuid4().hex[:8]
        self.device = self.name + "t"
        self.processes = []
        directory = cloud.state if host == 1 else cloud.state / f"host-{host}"
        suffix = str(cloud.port_offset) if cloud.port_offset else ""
        self.runtime = directory / "ovn/run"
        self.bridge = "wbr-int" + suffix
        self.switch = ["ovs-vsctl", f"--db=unix:{directory}/ovn/run/db.sock", "--timeout=10"]
        # The ports of a simulated host's switch are in the host's own network namespace.
        self.outer = [] if host == 1 else ["ip", "netns", "exec", f"wolke{cloud.port_offset}-host-{host}"]
        run("ip", "netns", "add", self.name)
        run(*self.outer, "ip", "link", "add", self.device, "type", "veth", "peer", "name", "eth0",
            "netns", f"/run/netns/{self.name}")
        run(*self.outer, "ip", "link", "set", self.device, "up")
        run(*self.switch, "add-port", self.bridge, self.device,
            "--", "set", "Interface", self.device, f"external_ids:iface-id={port.id}")
        self("ip", "link", "set", "lo", "up")
        self("ip", "link", "set", "eth0", "address", port.mac_address, "mtu", "1442")
        # The userspace datapath forwards packets with checksums that a device would have filled in, so they are computed here.
        self("ethtool", "-K", "eth0", "tx", "off")
        self("ip", "link", "set", "eth0", "up")
        for fixed in port.fixed_ips:
            bits = 64 if ":" in fixed["ip_address"] else 24
            extra = ["nodad"] if ":" in fixed["ip_address"] else []
            self("ip", "address", "add", f"{fixed['ip_address']}/{bits}", "dev", "eth0", *extra)
        for address in addresses:
            self("ip", "address", "add", address, "dev", "eth0")

    @property
    def address(self):
        return next(fixed["ip_address"] for fixed in self.port.fixed_ips if ":" not in fixed["ip_address"])

    def __call__(self, *command, check=True, limit=60):
        return run("ip", "netns", "exec", self.name, *command, check=check, limit=limit)

    def python(self, program, *arguments):
        """Starts a Python program in the guest."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, sys.executable, "-c", program, *map(str, arguments)],
            stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def is_up(self):
        found = run(*self.switch, "--bare", "--columns=external_ids", "list", "Interface", self.device)
        return "ovn-installed=true" in found

    def ready(self):
        wait(f"the port of {self.name} is up", self.is_up, 30)
        return self

    def close(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        run(*self.switch, "--if-exists", "del-port", self.device, check=False)
        run("ip", "netns", "delete", self.name, check=False)


SERVER = """
import selectors, socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=1024) as server:
    print("ready", flush=True)
    while True:
        peer, _ = server.accept()
        try:
            peer.recv(64)
            peer.sendall(b"ok")
        except OSError:
            pass
        peer.close()
"""

# Opens connections one after the other from a small range of ports, so that addresses and ports are reused. The last argument,
# which is optional, is sent in each connection.
CHURN = """
import json, socket, sys, time
address, port, count, ports = sys.argv[1], *map(int, sys.argv[2:5])
words = sys.argv[5].encode() if len(sys.argv) > 5 else b"x"
made = failed = 0
begun = time.monotonic()
for number in range(count):
    with socket.socket() as client:
        client.settimeout(2)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
        try:
            client.bind(("", 20000 + number % ports))
            client.connect((address, port))
            client.sendall(words)
            client.recv(8)
            made += 1
        except OSError:
            failed += 1
print(json.dumps({"made": made, "failed": failed, "seconds": time.monotonic() - begun}))
"""

# Sends datagrams to all ports of an address, from several ports: the switch tracks each of them as a connection.
FLOOD = """
import json, socket, sys
address, sources = sys.argv[1], int(sys.argv[2])
sent = 0
for source in range(sources):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", 30000 + source))
        for port in range(1, 65536):
            try:
                client.sendto(b"x", (address, port))
                sent += 1
            except OSError:
                # Data that the other side sent earlier.
                pass
print(json.dumps({"sent": sent}))
"""

# Answers each line of one connection; ends with it.
ECHO = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    print("ready", flush=True)
    peer, _ = server.accept()
    while data := peer.recv(64):
        peer.sendall(data)
"""

# One connection that sends ten messages a second until it is told to end: the number of messages, and the longest pause.
TALK = """
import json, socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as server:
    server.settimeout(60)
    print("ready", flush=True)
    replies, longest, error, end = 0, 0.0, None, time.monotonic() + float(sys.argv[3])
    try:
        while time.monotonic() < end:
            begun = time.monotonic()
            server.sendall(b"word")
            if server.recv(64) == b"":
                raise OSError("closed")
            longest = max(longest, time.monotonic() - begun)
            replies += 1
            time.sleep(0.1)
    except OSError as problem:
        error = str(problem)
print(json.dumps({"replies": replies, "longest": longest, "error": error}))
"""


def answer(process, limit=120):
    """The JSON printed by a guest's program at its end."""
    output, _ = process.communicate(timeout=limit)
    return json.loads(output.splitlines()[-1])

# Sends its name to every client.
NAME = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    print("ready", flush=True)
    while True:
        peer, _ = server.accept()
        peer.sendall(sys.argv[2].encode())
        peer.close()
"""

# Takes over an address, as keepalived does: a gratuitous ARP request (RFC 5227), three times.
TAKE = """
import socket, struct, sys, time
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
address = socket.inet_aton(sys.argv[2])
arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address + bytes(6) + address
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
    wire.bind(("eth0", 0))
    for _ in range(3):
        wire.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp)
        time.sleep(0.1)
print("{}")
"""
