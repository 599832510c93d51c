"""Passwords and crash dumps, seen from inside of guests."""

import warnings

import openstack
import pytest

from wolkecloud import wait

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import crypt

PASSWORD_URL = "http://169.254.169.254/openstack/latest/password"


def test_a_crash_dump_reaches_the_kernel(tenant):
    server = tenant.create_server("dumped")
    wait("the guest is ready", lambda: "wolke-guest: ready" in tenant.api.compute.get_server_console_output(server)["output"])
    assert "NMI received" not in tenant.api.compute.get_server_console_output(server)["output"]
    # The kernel logs an unknown NMI at this level, which it does not print on the console by default.
    address = tenant.floating_address(server)
    tenant.reachable(address)
    tenant.ssh(address, "echo 8 > /proc/sys/kernel/printk")
    tenant.api.compute.trigger_server_crash_dump(server)
    wait("the kernel reports the interrupt",
         lambda: "NMI received" in tenant.api.compute.get_server_console_output(server)["output"], 60)
    assert tenant.ssh(address, "dmesg").count("NMI received") >= 1


def test_a_guest_leaves_a_password(tenant):
    server = tenant.create_server("windows")
    address = tenant.floating_address(server)
    tenant.reachable(address)
    compute = tenant.api.compute

    def post(text):
        return tenant.ssh(address, f"wget -q -O - --post-data='{text}' {PASSWORD_URL} && echo left", check=False).strip()

    def shown():
        return compute.get(f"/servers/{server.id}/os-server-password").json()["password"]

    assert shown() == ""
    assert post("c2VjcmV0") == "left"
    wait("the password is shown", lambda: shown() == "c2VjcmV0", 30)
    assert post("b3RoZXI=") == "", "a second password must be refused"
    assert tenant.ssh(address, f"wget -q -O - {PASSWORD_URL}").strip() == "c2VjcmV0"
    assert compute.delete(f"/servers/{server.id}/os-server-password").status_code == 204
    assert shown() == ""
    wait("the guest can leave another one", lambda: post("YWdhaW4=") == "left", 30)
    wait("the other one is shown", lambda: shown() == "YWdhaW4=", 30)


def test_a_password_is_changed_by_the_guest_agent(cloud, tenant):
    plain = tenant.create_server("plain")
    with pytest.raises(openstack.exceptions.ConflictException, match="guest agent is not enabled"):
        tenant.api.compute.change_server_password(plain, "correct horse")
    image = tenant.api.create_image(
        "with-agent", filename=str(cloud.state / "images" / "guest.qcow2"), disk_format="qcow2", container_format="bare",
        min_disk=1, hw_qemu_guest_agent="yes", wait=True)
    try:
        server = tenant.create_server("agent", image=False, image_id=image.id)
        address = tenant.floating_address(server)
        tenant.reachable(address)

        def password():
            return tenant.ssh(address, "grep ^root: /etc/passwd /etc/shadow 2>/dev/null | tail -1").strip().split(":")[2]

        before = password()

        def changed():
            try:
                tenant.api.compute.change_server_password(server, "correct horse")
            except openstack.exceptions.ConflictException as error:
                assert "does not answer" in str(error), error
                return False
            return True

        wait("the agent sets the password", changed, 60, pause=2)
        after = password()
        assert after != before
        assert crypt.crypt("correct horse", after) == after
        tenant.ssh(address, "kill $(cat /run/qemu-ga.pid)")
        with pytest.raises(openstack.exceptions.ConflictException, match="does not answer"):
            tenant.api.compute.change_server_password(server, "battery staple")
        assert password() == after
        actions = [action.action for action in tenant.api.compute.server_actions(server)]
        assert actions.count("changePassword") >= 2
    finally:
        tenant.delete_servers()
        tenant.api.image.delete_image(image.id)


def test_addresses_are_added_and_removed(tenant):
    server = tenant.create_server("addressed")
    compute = tenant.api.compute
    network = tenant.network()

    def act(body):
        return compute.post(f"/servers/{server.id}/action", json=body, microversion="2.43").status_code

    def addresses():
        return sorted(entry["addr"] for entry in compute.get_server(server.id).addresses[network.name])

    before = addresses()
    assert act({"addFixedIp": {"networkId": network.id}}) == 202
    after = addresses()
    assert len(after) == 2 and set(before) < set(after)
    added = next(address for address in after if address not in before)
    assert act({"removeFixedIp": {"address": added}}) == 202
    assert addresses() == before


def test_an_image_is_loaded_ahead(cloud, tenant):
    admin = cloud.admin.compute
    image = cloud.admin.create_image(
        "ahead", filename=str(cloud.state / "images" / "guest.qcow2"), disk_format="qcow2", container_format="bare", wait=True)
    host = next(service.host for service in admin.services(binary="nova-compute") if service.state == "up")
    aggregate = admin.create_aggregate(name="ahead-" + tenant.name)
    try:
        admin.add_host_to_aggregate(aggregate, host)
        assert not list(cloud.state.glob(f"**/images/{image.id}-*"))
        admin.aggregate_precache_images(aggregate, [image.id])
        wait("the host has the image", lambda: list(cloud.state.glob(f"**/images/{image.id}-*.disk.qcow2")), 60)
    finally:
        admin.remove_host_from_aggregate(aggregate, host)
        admin.delete_aggregate(aggregate)
        cloud.admin.image.delete_image(image.id)
