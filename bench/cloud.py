"""The measured cloud: its state directory, ports and users."""

import json
import pathlib
import re
import subprocess

from load import call



class Cloud:
    """A running one-machine cloud, from its state directory."""

    def __init__(self, state: pathlib.Path, offset: int, binaries: pathlib.Path):
        self.state, self.offset, self.binaries = state, offset, binaries
        description = subprocess.run(
            [binaries / "osctl", "cloud", "services", "-o", "json", "--state", state, "--port-offset", str(offset)], check=True,
            capture_output=True, text=True).stdout
        self.description = json.loads(description)
        self.services = {service["name"]: service for service in self.description["services"] if service["is_present"]}

    def url(self, service: str) -> str:
        return self.services[service]["url"]

    @property
    def database(self) -> str:
        where = f"host={self.state}/postgres/run port={15432 + self.offset}"
        return f"{where} user=wolke dbname=wolke passfile={self.state}/secrets/pgpass"

    @property
    def superuser(self) -> str:
        """For root: PostgreSQL's settings, and databases of the benchmark."""
        return self.database.replace("user=wolke", "user=postgres")

    def password(self, cloud: str) -> str:
        """From clouds.yaml, which `make up` writes in a fixed form."""
        section = (self.state / "clouds.yaml").read_text().split(f"  {cloud}:\n", 1)[1]
        return re.search(r'password: "([^"]*)"', section).group(1)

    def sign_on_body(self, user: str) -> dict:
        domain = {"id": "default"}
        return {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": user, "domain": domain, "password": self.password(f"wolke-{user}")}},
                },
                "scope": {"project": {"name": user, "domain": domain}},
            }
        }

    def token(self, user: str) -> str:
        headers, _, _ = call("POST", self.url("identity") + "/v3/auth/tokens", self.sign_on_body(user))
        return headers["X-Subject-Token"]

    def sql(self, text: str, database: str | None = None) -> list[str]:
        arguments = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text, database or self.database]
        result = subprocess.run(arguments, capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"psql: {result.stderr}")
        return result.stdout.splitlines()

    def processes(self) -> dict[str, list[int]]:
        """Process ids of the Wolke executables that belong to this cloud."""
        found: dict[str, list[int]] = {}
        for process, arguments in commands():
            name = arguments[0].rsplit("/", 1)[-1]
            if name.startswith("wolke-") and str(self.state / "wolke.yaml") in arguments:
                found.setdefault(name, []).append(process)
        return found


def commands():
    """Id and arguments of each process of the machine."""
    for directory in pathlib.Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            arguments = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        yield int(directory.name), arguments


def pss_kib(pid: int) -> int:
    """Proportional set size: shared pages are divided among those who share them."""
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE).group(1))


def memory(cloud: Cloud) -> tuple[float, str]:
    """Megabytes of all services together, and a description of each; raises if one does not run."""
    processes = cloud.processes()
    expected = [*cloud.services.values(), *cloud.description["agents"]]
    missing = [part["executable"] for part in expected if part["executable"] not in processes]
    if missing:
        raise RuntimeError(f"not running: {', '.join(missing)}")
    sizes = {name: sum(pss_kib(pid) for pid in pids) / 1024 for name, pids in sorted(processes.items())}
    return sum(sizes.values()), ", ".join(f"{name.removeprefix('wolke-')} {size:.0f}" for name, size in sizes.items())
