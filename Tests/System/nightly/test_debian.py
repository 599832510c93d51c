"""A full Debian image: boots, and cloud-init does what user data and metadata say."""

import base64
import os

from wolkecloud import wait

USER_DATA = """#cloud-config
runcmd:
  - [sh, -c, "echo configured > /run/by-cloud-init"]
"""


def test_debian_is_configured_by_cloud_init(cloud, tenant):
    image = tenant.api.create_image(
        "debian", filename=os.environ["DEBIAN_IMAGE"], disk_format="qcow2", container_format="bare", min_disk=2, wait=True)
    compute = tenant.api.compute
    flavor = cloud.admin.compute.create_flavor(name=f"debian-{tenant.name}", vcpus=2, ram=1024, disk=4)
    try:
        server = compute.create_server(
            name="debian", flavor_id=flavor.id, image_id=image.id, key_name="key", networks=[{"uuid": tenant.network().id}],
            security_groups=[{"name": tenant.group().name}], user_data=base64.b64encode(USER_DATA.encode()).decode())
        tenant.active(server)
        address = tenant.floating_address(server)
        login = f"debian@{address}"
        wait("SSH as debian", lambda: tenant.ssh(login, "echo in", check=False).strip() == "in", 300)
        wait("cloud-init ends", lambda: tenant.ssh(login, "cloud-init status", check=False).startswith("status: done"), 180)
        assert tenant.ssh(login, "hostname").strip() == "debian"
        assert tenant.ssh(login, "cat /run/by-cloud-init").strip() == "configured"
        assert int(tenant.ssh(login, "df --output=size -BM / | tail -1 | tr -dc 0-9")) > 3000, "the root file system was not grown"
    finally:
        tenant.delete_servers()
        tenant.api.image.delete_image(image.id)
        cloud.admin.compute.delete_flavor(flavor.id)
