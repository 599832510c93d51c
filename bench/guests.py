"""make bench-guests: what takes time with a real guest on two hosts, and what bare libvirt and qemu-img need for the same."""

import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
import uuid
from xml.etree import ElementTree

from measure import Ratio, Row, hash_loop, interleave, ratio_row, table

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "Tests" / "System"))

from test_moves import Ping, host, on_volume, other  # noqa: E402
from wolkecloud import Cloud, Tenant, run, wait  # noqa: E402

# s: the host is emulated, and may be busy.
LIMIT = 300
PAUSE = 0.05
FILLED_MIB = 256


class Bench:
    """The cloud, a tenant on it, and how much is measured."""

    def __init__(self, cloud: Cloud, tenant: Tenant, moves: int, repetitions: int):
        self.cloud, self.tenant, self.moves, self.repetitions = cloud, tenant, moves, repetitions

    def booted(self, server) -> str:
        """The floating address of a server that its owner can log in to."""
        address = self.tenant.floating_address(server)
        self.tenant.reachable(address)
        return address

    def settled(self, server, *goals: str) -> None:
        def reached():
            now = self.cloud.admin.compute.get_server(server.id)
            if now.status == "ERROR":
                raise RuntimeError(f"{server.name}: {now.fault}")
            return now.task_state is None and now.status in goals

        wait(f"{server.name} is {' or '.join(goals)}", reached, LIMIT, PAUSE)

    def clean(self) -> None:
        self.tenant.delete_servers()
        for address in self.tenant.api.network.ips():
            self.tenant.api.network.delete_ip(address.id)

    # Hosts

    def directory(self, name: str) -> pathlib.Path:
        place = self.cloud.state / name
        return place if place.is_dir() else self.cloud.state

    def setting(self, name: str, key: str) -> str:
        """A setting of a host's agent."""
        for line in (self.directory(name) / "wolke.yaml").read_text().splitlines():
            if line.strip().startswith(key + ":"):
                return line.split(":", 1)[1].strip().strip('"')
        raise RuntimeError(f"{name} has no {key}")

    def virsh(self, name: str, *arguments) -> str:
        return run("virsh", "-q", "-c", self.setting(name, "libvirt_uri"), *arguments, limit=LIMIT)


def live_migrate(bench: Bench, server) -> float:
    """Seconds from the request until the server is ACTIVE on the other host."""
    source = host(bench.cloud, server)
    begun = time.monotonic()
    bench.cloud.admin.compute.live_migrate_server(server.id, host=None, block_migration="auto")
    bench.settled(server, "ACTIVE")
    seconds = time.monotonic() - begun
    if host(bench.cloud, server) == source:
        raise RuntimeError(f"{server.name} has stayed on {source}")
    return seconds


def spread(values: list[float], unit: str, factor: float = 1) -> str:
    ordered = sorted(value * factor for value in values)
    most = ordered[math.ceil(0.9 * len(ordered)) - 1]
    return f"median {statistics.median(ordered):.0f}, 90 % up to {most:.0f}, at most {ordered[-1]:.0f} {unit}"


def moves(bench: Bench) -> list[Row]:
    """Live migrations to and fro, of a server on a volume and of one with a local disk."""
    rows = []
    for disk in ("volume", "local"):
        server = on_volume(bench.tenant, "moves") if disk == "volume" else bench.tenant.create_server("moves")
        address = bench.booted(server)
        boot = bench.tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id")
        gaps, totals = [], []
        for number in range(bench.moves):
            ping = Ping(address)
            # Receive answers before the move, so that a gap from its beginning on is measured.
            time.sleep(1)
            totals.append(live_migrate(bench, server))
            time.sleep(1)
            gaps.append(ping.longest_gap())
            print(f"{disk} {number + 1}: {gaps[-1] * 1000:.0f} ms without an answer, {totals[-1]:.1f} s", flush=True)
        if bench.tenant.ssh(address, "cat /proc/sys/kernel/random/boot_id") != boot:
            raise RuntimeError("the guest has restarted")
        bench.clean()
        rows.append(Row(
            "G1" if disk == "volume" else "G2", f"live migration, {disk} disk: longest time without an answer to a ping at 50 ms",
            f"{max(gaps) * 1000:.0f} ms", "1000 ms", "300 ms",
            f"{len(gaps)} moves: {spread(gaps, 'ms', 1000)}; total {spread(totals, 'ms', 1000)}"))
    return rows


class Twin:
    """A guest like a server's, which only libvirt knows: on a copy of its disk, without NICs."""

    NAME = "bench-twin"

    def __init__(self, bench: Bench, server, at: str):
        self.bench, self.at = bench, at
        volume = bench.tenant.api.compute.get_server(server.id).attached_volumes[0].id
        self.disk = bench.cloud.state / "volumes" / "bench-twin.raw"
        self.log = bench.cloud.state / "volumes" / "bench-twin.log"
        run("cp", "--sparse=always", bench.cloud.state / "volumes" / f"volume-{volume}", self.disk, limit=LIMIT)
        document = ElementTree.fromstring(bench.virsh(at, "dumpxml", "--migratable", "--security-info", server.id))
        for name in ("metadata", "seclabel"):
            for element in document.findall(name):
                document.remove(element)
        document.find("name").text = Twin.NAME
        identity = str(uuid.uuid4())
        for element in (document.find("uuid"), *document.findall("sysinfo//entry[@name='uuid']")):
            element.text = identity
        devices = document.find("devices")
        for name in ("interface", "serial", "console", "channel"):
            for element in devices.findall(name):
                devices.remove(element)
        disks = devices.findall("disk")
        if len(disks) != 1:
            raise RuntimeError(f"the server has {len(disks)} disks")
        disks[0].find("source").set("file", str(self.disk))
        serial = ElementTree.SubElement(devices, "serial", type="file")
        ElementTree.SubElement(serial, "source", path=str(self.log))
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(ElementTree.tostring(document, encoding="unicode"))
            file.flush()
            bench.virsh(at, "define", file.name)
        bench.virsh(at, "start", Twin.NAME)
        wait("the twin is ready", lambda: self.log.exists() and b"ready up" in self.log.read_bytes(), LIMIT)

    def move(self) -> float:
        target = other(self.bench.cloud, self.at)
        begun = time.monotonic()
        self.bench.virsh(
            self.at, "migrate", "--live", "--p2p", "--persistent", "--undefinesource", "--unsafe", "--auto-converge", Twin.NAME,
            self.bench.setting(target, "migration_uri"), "--migrateuri", f"tcp://{self.bench.setting(target, 'migration_address')}")
        self.at = target
        return time.monotonic() - begun

    def remove(self) -> None:
        self.bench.virsh(self.at, "destroy", Twin.NAME)
        self.bench.virsh(self.at, "undefine", Twin.NAME)
        self.disk.unlink()
        self.log.unlink()


def against_virsh(bench: Bench) -> Row:
    server = on_volume(bench.tenant, "against-virsh")
    bench.booted(server)
    twin = Twin(bench, server, host(bench.cloud, server))
    try:
        ratio = interleave(lambda: 60 / live_migrate(bench, server), lambda: 60 / twin.move(), bench.repetitions)
    finally:
        twin.remove()
    bench.clean()
    row = ratio_row("G3", "live migration, from the request to ACTIVE ÷ `virsh migrate` of a like guest", ratio, "0.8", "0.95", "per minute")
    row.details += f"; {seconds_of(ratio)}"
    return row


def seconds_of(ratio: Ratio) -> str:
    return f"{60 / statistics.median(ratio.ours):.2f} and {60 / statistics.median(ratio.peer):.2f} s"


def filled_server(bench: Bench, name: str):
    """A server that is off, with FILLED_MIB of random data on its local disk, and the path of that disk."""
    server = bench.tenant.create_server(name)
    address = bench.booted(server)
    bench.tenant.ssh(address, f"dd if=/dev/urandom of=/dev/vda bs=1M seek=300 count={FILLED_MIB} conv=fsync 2>/dev/null")
    bench.tenant.api.compute.stop_server(server.id)
    bench.settled(server, "SHUTOFF")
    agent = bench.directory(host(bench.cloud, server)) / "agent"
    return server, agent / "servers" / server.id / "root.qcow2"


def server_image(bench: Bench) -> Row:
    server, disk = filled_server(bench, "imaged")
    images = bench.tenant.api.image

    def ours() -> float:
        begun = time.monotonic()
        image = bench.tenant.api.compute.create_server_image(server.id, "bench", wait=False)
        wait("the image is active", lambda: images.get_image(image.id).status == "active", LIMIT, PAUSE)
        seconds = time.monotonic() - begun
        bench.settled(server, "SHUTOFF")
        images.delete_image(image.id)
        return 60 / seconds

    def bare() -> float:
        with tempfile.TemporaryDirectory(dir=bench.cloud.state) as directory:
            begun = time.monotonic()
            run("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "qcow2", disk, f"{directory}/image.qcow2", limit=LIMIT)
            return 60 / (time.monotonic() - begun)

    ratio = interleave(ours, bare, bench.repetitions)
    bench.clean()
    row = ratio_row(
        "G4", "image of a server, from the request to active ÷ `qemu-img convert` of its disk", ratio, "0.8", "0.95", "per minute")
    row.details += f"; {seconds_of(ratio)}, {FILLED_MIB} MiB written on the disk"
    return row


def resize(bench: Bench) -> Row:
    compute = bench.cloud.admin.compute
    large = compute.create_flavor(name="bench-large", vcpus=2, ram=256, disk=2)
    server = bench.tenant.create_server("resized")
    bench.booted(server)
    times: dict[str, list[float]] = {"ACTIVE": [], "SHUTOFF": []}
    try:
        for state, seconds in times.items():
            if state == "SHUTOFF":
                compute.stop_server(server.id)
                bench.settled(server, "SHUTOFF")
            for _ in range(min(bench.repetitions, 5)):
                begun = time.monotonic()
                compute.resize_server(server.id, large.id)
                bench.settled(server, "VERIFY_RESIZE")
                seconds.append(time.monotonic() - begun)
                # Revert to the earlier disk, so that each resize does the same work.
                compute.revert_server_resize(server.id)
                bench.settled(server, state)
                if state == "ACTIVE":
                    bench.tenant.reachable(next(bench.tenant.api.network.ips()).floating_ip_address)
    finally:
        bench.clean()
        compute.delete_flavor(large.id)
    return Row(
        "G5", "resize of a server with a local disk, from the request to VERIFY_RESIZE", f"{statistics.median(times['ACTIVE']):.1f} s", "–", "–",
        f"running: {spread(times['ACTIVE'], 'ms', 1000)}, with a shutdown and a start of the guest; off: {spread(times['SHUTOFF'], 'ms', 1000)}")


ALL = {"moves": moves, "virsh": against_virsh, "image": server_image, "resize": resize}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--moves", type=int, default=20, help="live migrations of each kind of disk")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--only", action="append", choices=sorted(ALL), help="rows; all when not given")
    parser.add_argument("--report", type=pathlib.Path)
    arguments = parser.parse_args()
    state = arguments.state.resolve()
    cloud = Cloud(state, json.loads((state / "cloud.json").read_text())["port_offset"])
    before = hash_loop()
    measured, broken = [], []
    with tempfile.TemporaryDirectory() as directory:
        tenant = Tenant(cloud, directory)
        bench = Bench(cloud, tenant, arguments.moves, arguments.repetitions)
        try:
            for name in arguments.only or ALL:
                print(f"{name} …", flush=True)
                try:
                    found = ALL[name](bench)
                except Exception as error:  # a row that cannot be measured does not prevent the others
                    broken.append(f"{name} could not be measured: {type(error).__name__}: {error}")
                    print(broken[-1], flush=True)
                    bench.clean()
                    continue
                for row in [found] if isinstance(found, Row) else found:
                    measured.append(row)
                    print(f"{row.name} {row.value} ({row.details})", flush=True)
        finally:
            tenant.close()
    report = "\n".join([
        table(measured), "",
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; "
        f"calibration drift {abs(hash_loop() / before - 1):.1%}", *broken])
    print("\n" + report)
    if arguments.report:
        arguments.report.write_text(report + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
