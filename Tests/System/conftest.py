"""The cloud that all system tests share, and tenants on it."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

import diskformats
from wolkecloud import Cloud, Tenant


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
    cloud = Cloud.of(state)
    try:
        sys.stderr.write(cloud.up())
        yield cloud
        # S2: of all guests of all tests, also those that arrived from another host.
        diskformats.check(cloud.state)
    finally:
        if not os.environ.get("WOLKE_TEST_KEEP"):
            cloud.down()
            if not kept:
                shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, which only the tests that use it need."""
    from chromium import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def shots(tmp_path_factory):
    """The directory for screenshots. WOLKE_TEST_SHOTS names (and keeps) it."""
    named = os.environ.get("WOLKE_TEST_SHOTS")
    directory = Path(named) if named else tmp_path_factory.mktemp("shots")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


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
