"""The services of the cloud under test, according to its own `osctl cloud services`."""

import functools
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("WOLKE_TEST_BINARIES", ROOT / ".build" / os.environ.get("CONFIGURATION", "debug")))


@functools.cache
def document(build=BUILD):
    """The whole description, with standard ports."""
    environment = {name: value for name, value in os.environ.items() if name not in ("STATE", "PORT_OFFSET")}
    output = subprocess.run(
        [Path(build) / "osctl", "cloud", "services", "-o", "json", "--state", "/nonexistent"], check=True, capture_output=True, text=True,
        env=environment).stdout
    return json.loads(output)


def services(build=BUILD):
    """Every service, by its name."""
    return {service["name"]: service for service in document(build)["services"]}


def service(name):
    """The service with any of its types: `volume` and `block-storage` are the same."""
    return next(found for found in services().values() if name in (found["name"], *found["types"]))


def short(name):
    """The tests' name for a service: `volume` for Block Storage, for others their own."""
    microversions = services()[name]["microversions"]
    return microversions["name"] if microversions else name


def names():
    """All services, under the tests' names for them."""
    return [short(name) for name in services()]


def prefix(name, project=None):
    """The version's path, below the service's root; the part with the project is omitted without one."""
    path = service(name)["version_path"]
    return path.replace("{project}", project) if project else path.replace("/{project}", "")


def executables():
    """Of all services, gateways and agents."""
    return [part["executable"] for kind in ("services", "gateways", "agents") for part in document()[kind]]
