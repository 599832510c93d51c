"""`openstack project cleanup`, unmodified: everything that it reports as deleted is gone, and it does not give up on anything."""

import os
import subprocess
import sys
import time
from pathlib import Path

import yaml

from wolkecloud import wait


def openstack(tenant, directory, *arguments):
    """The stock command as the tenant's member."""
    auth = tenant.api.config.config["auth"]
    clouds = Path(directory) / "clouds.yaml"
    clouds.write_text(yaml.safe_dump({"clouds": {"tenant": {
        "auth": {
            "auth_url": auth["auth_url"], "username": auth["username"], "password": auth["password"],
            "project_name": tenant.name, "user_domain_id": "default", "project_domain_id": "default",
        },
        "region_name": "RegionOne", "identity_api_version": 3,
    }}}))
    result = subprocess.run(
        [Path(sys.executable).with_name("openstack"), "--os-cloud", "tenant", *arguments], capture_output=True, text=True,
        # With python-ironicclient, the client asks for its newest version of Bare Metal, and gives up if the cloud has an older one.
        timeout=300, env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(clouds), "OS_BAREMETAL_API_VERSION": "1.96"})
    assert result.returncode == 0, result.stderr
    return result


def left(tenant):
    """The project's remaining resources by kind; its default security group stays."""
    api, own = tenant.api, {"project_id": tenant.project.id}
    lists = {
        "servers": api.compute.servers(), "server groups": api.compute.server_groups(), "volumes": api.block_storage.volumes(),
        "snapshots": api.block_storage.snapshots(), "images": api.image.images(owner=tenant.project.id),
        "floating IPs": api.network.ips(**own), "routers": api.network.routers(**own), "ports": api.network.ports(**own),
        "networks": api.network.networks(**own), "subnets": api.network.subnets(**own),
        "security groups": (group for group in api.network.security_groups(**own) if group.name != "default"),
    }
    found = {kind: [item.name or item.id for item in items] for kind, items in lists.items()}
    return {kind: names for kind, names in found.items() if names}


def gone_within(limit, tenant, cleanup):
    """Deletions of servers and volumes continue after the command has ended."""
    end = time.monotonic() + limit
    while (rest := left(tenant)) and time.monotonic() < end:
        time.sleep(0.5)
    assert not rest, f"left: {rest}\n{cleanup.stdout}\n{cleanup.stderr}"


def test_everything_of_a_project_goes(tenant, tmp_path):
    api = tenant.api
    group = api.compute.create_server_group(name="together", policy="affinity")
    volume = api.block_storage.create_volume(size=1, name="data")
    wait("the volume is there", lambda: api.block_storage.get_volume(volume.id).status == "available", 60)
    snapshot = api.block_storage.create_snapshot(volume_id=volume.id, name="before")
    wait("the snapshot is there", lambda: api.block_storage.get_snapshot(snapshot.id).status == "available", 60)
    image = api.image.create_image(name="own", disk_format="raw", container_format="bare", data=b"x" * 1024, validate_checksum=False)
    # More than Glance's page of 25: its client deletes while it lists, and then has a marker that is gone.
    for number in range(30):
        api.image.create_image(name=f"more{number}", disk_format="raw", container_format="bare", data=b"x", validate_checksum=False)
    server = tenant.create_server("web", scheduler_hints={"group": group.id})
    tenant.floating_address(server)
    kinds = {
        "servers", "server groups", "volumes", "snapshots", "images", "floating IPs", "routers", "ports", "networks", "subnets",
        "security groups",
    }
    assert set(left(tenant)) == kinds

    dry = openstack(tenant, tmp_path, "project", "cleanup", "--auth-project", "--dry-run").stdout
    for name in (server.id, volume.id, snapshot.id, image.id):
        assert name in dry
    assert set(left(tenant)) == kinds

    done = openstack(tenant, tmp_path, "project", "cleanup", "--auth-project", "--auto-approve")
    gone_within(60, tenant, done)
    assert "Error" not in done.stderr and "Traceback" not in done.stderr, done.stderr
