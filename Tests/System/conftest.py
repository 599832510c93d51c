"""The cloud that all system tests share, and tenants on it."""

import os
import shutil
import tempfile

import pytest

from wolkecloud import Cloud, Tenant

PORT_OFFSET = 2000


@pytest.fixture(scope="session")
def cloud():
    """Started once with two hosts; stopped in any case. WOLKE_TEST_STATE names (and keeps) its directory."""
    kept = os.environ.get("WOLKE_TEST_STATE")
    state = kept or tempfile.mkdtemp(prefix="wolke-system.", dir="/tmp")
    os.makedirs(state, exist_ok=True)
    os.chmod(state, 0o755)
    cloud = Cloud(state, int(os.environ.get("WOLKE_TEST_PORT_OFFSET", PORT_OFFSET)))
    try:
        print(cloud.up())
        yield cloud
    finally:
        if not os.environ.get("WOLKE_TEST_KEEP"):
            print(cloud.down())
            if not kept:
                shutil.rmtree(state, ignore_errors=True)


@pytest.fixture
def tenant(cloud, tmp_path):
    """A project of its own for one test; all that it made is deleted afterwards."""
    tenant = Tenant(cloud, tmp_path)
    yield tenant
    tenant.close()


@pytest.fixture
def other_tenant(cloud, tmp_path):
    tenant = Tenant(cloud, tmp_path)
    yield tenant
    tenant.close()
