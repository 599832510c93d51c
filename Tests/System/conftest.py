"""The cloud that all system tests share, and tenants on it."""

import json
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import pytest

from wolkecloud import Cloud, Tenant

# Clouds of other tests may run at the same time.
PORT_OFFSETS = range(2000, 8000, 125)


def free_offset():
    def is_free(port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return probe.connect_ex(("127.0.0.1", port)) != 0

    return next(offset for offset in PORT_OFFSETS if all(is_free(port + offset) for port in (5000, 8774, 5673, 14369)))


@pytest.fixture(scope="session")
def cloud():
    """Started once with two hosts; always stopped. WOLKE_TEST_STATE names (and keeps) its directory.

    WOLKE_TEST_RUNNING names the directory of a cloud that runs already and is left alone.
    """
    running = os.environ.get("WOLKE_TEST_RUNNING")
    if running:
        yield Cloud(running, json.loads((Path(running) / "cloud.json").read_text())["port_offset"])
        return
    kept = os.environ.get("WOLKE_TEST_STATE")
    state = kept or tempfile.mkdtemp(prefix="wolke-system.", dir="/tmp")
    os.makedirs(state, exist_ok=True)
    os.chmod(state, 0o755)
    remembered = Path(state) / "cloud.json"
    offset = json.loads(remembered.read_text())["port_offset"] if remembered.exists() else free_offset()
    cloud = Cloud(state, offset)
    try:
        sys.stderr.write(cloud.up())
        yield cloud
    finally:
        if not os.environ.get("WOLKE_TEST_KEEP"):
            cloud.down()
            if not kept:
                shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def tenant(cloud, tmp_path):
    """A separate project for one test; its resources are deleted afterwards."""
    tenant = Tenant(cloud, tmp_path)
    yield tenant
    tenant.close()


@pytest.fixture
def other_tenant(cloud, tmp_path):
    tenant = Tenant(cloud, tmp_path)
    yield tenant
    tenant.close()
