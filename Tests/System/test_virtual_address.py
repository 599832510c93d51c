"""Addresses that guests share (keepalived, OpenShift), and disabled networks and ports."""

import socket

import pytest
from nativeguest import NAME, TAKE, NativeGuest, answer

from wolkecloud import wait


@pytest.fixture
def guests():
    made = []
    yield made
    for guest in made:
        guest.close()


def heard(address, limit=2):
    """The name of the guest that answers at `address`; empty if none does."""
    try:
        with socket.create_connection((address, 7000), limit) as peer:
            return peer.recv(64).decode()
    except OSError:
        return None


def test_a_shared_address_moves_between_guests_and_its_floating_ip_follows(cloud, tenant, guests):
    api = tenant.api.network
    group = api.create_security_group(name="tcp")
    api.create_security_group_rule(security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol="tcp")
    network = tenant.network("192.168.70.0/24")
    shared = api.create_port(network_id=network.id, name="vip")
    address = shared.fixed_ips[0]["ip_address"]
    external = next(api.networks(is_router_external=True))
    floating = api.create_ip(floating_network_id=external.id, port_id=shared.id).floating_ip_address
    for host in (1, 2):
        port = api.create_port(
            network_id=network.id, security_groups=[group.id], allowed_address_pairs=[{"ip_address": address}])
        guests.append(NativeGuest(cloud, port, host).ready())
    for number, guest in enumerate(guests):
        guest("ip", "route", "add", "default", "via", "192.168.70.1")
        assert guest.python(NAME, 7000, f"guest {number}").stdout.readline().strip() == "ready"

    def take(guest):
        for other in guests:
            other("ip", "address", "delete", f"{address}/24", "dev", "eth0", check=False)
        guest("ip", "address", "add", f"{address}/24", "dev", "eth0")
        answer(guest.python(TAKE, guest.port.mac_address, address))

    for number in (0, 1, 0):
        take(guests[number])
        wait(f"guest {number} answers on {floating}", lambda: heard(floating) == f"guest {number}", 30)
        assert wait("the shared port is up", lambda: api.get_port(shared.id).status == "ACTIVE", 30)

    # No pair names the address any more: the port is an ordinary one again.
    for guest in guests:
        api.update_port(guest.port, allowed_address_pairs=[])
    wait("nobody answers", lambda: heard(floating, 1) is None, 30)
    assert "virtual-parents" not in cloud.northbound()


def test_what_is_switched_off_is_down_and_carries_nothing(cloud, tenant, guests):
    api = tenant.api.network
    group = api.create_security_group(name="tcp")
    api.create_security_group_rule(security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol="tcp")
    network = tenant.network("192.168.71.0/24")
    external = next(api.networks(is_router_external=True))
    port = api.create_port(network_id=network.id, security_groups=[group.id])
    floating = api.create_ip(floating_network_id=external.id, port_id=port.id).floating_ip_address
    guests.append(NativeGuest(cloud, port).ready())
    guests[0]("ip", "route", "add", "default", "via", "192.168.71.1")
    assert guests[0].python(NAME, 7000, "in").stdout.readline().strip() == "ready"
    router = next(api.routers(project_id=tenant.project.id))

    def status():
        return api.get_port(port.id).status

    wait("the guest answers", lambda: heard(floating) == "in", 30)
    for switch, statuses in ((lambda up: api.update_port(port, admin_state_up=up), ("DOWN", "ACTIVE")),
                             (lambda up: api.update_network(network, admin_state_up=up), ("DOWN", "ACTIVE")),
                             (lambda up: api.update_router(router, admin_state_up=up), ("ACTIVE", "ACTIVE"))):
        switch(False)
        wait("nobody answers", lambda: heard(floating, 1) is None, 30)
        wait("the port's status", lambda: status() == statuses[0], 30)
        switch(True)
        wait("the guest answers again", lambda: heard(floating) == "in", 30)
        wait("the port's status", lambda: status() == statuses[1], 30)
