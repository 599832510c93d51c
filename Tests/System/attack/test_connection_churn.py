"""S18: a guest that opens one connection after the other does not affect other tenants."""

import json
import os
import signal

import pytest
from nativeguest import CHURN, ECHO, FLOOD, SERVER, TALK, NativeGuest, answer

from wolkecloud import run, wait


@pytest.fixture
def guests():
    created = []
    yield created
    for guest in created:
        guest.close()


def pair(cloud, owner, guests, cidr, hosts=(1, 1)):
    """Two guests of a tenant on its network, which accept TCP."""
    group = owner.api.network.create_security_group(name="tcp")
    owner.api.network.create_security_group_rule(
        security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol="tcp")
    network = owner.network(cidr)
    created = []
    for host in hosts:
        port = owner.api.network.create_port(network_id=network.id, security_groups=[group.id])
        guests.append(NativeGuest(cloud, port, host))
        created.append(guests[-1])
    return [guest.ready() for guest in created]


def started(process):
    assert process.stdout.readline().strip() == "ready"
    return process


def switches(cloud):
    return {name: part["pid"] for name, part in cloud.parts().items() if name.startswith("ovs-vswitchd")}


def test_s18_connection_churn_leaves_other_tenants_connected(cloud, tenant, other_tenant, guests, scale, tally):
    count, ports = scale(6_000, 60_000), 500
    victim, peer = pair(cloud, other_tenant, guests, "192.168.60.0/24", hosts=(1, 2))
    attacker, accomplice = pair(cloud, tenant, guests, "192.168.61.0/24")
    before = switches(cloud)
    assert len(before) == 2 and all(before.values())

    started(peer.python(ECHO, 7000))
    talk = started(victim.python(TALK, peer.address, 7000, scale(20, 120)))
    started(accomplice.python(SERVER, 80))
    result = answer(attacker.python(CHURN, accomplice.address, 80, count, ports), 600)
    # Ended connections are kept for a while; their addresses and ports are reused after that, too.
    again = answer(attacker.python(CHURN, accomplice.address, 80, ports, ports), 600)
    heard = answer(talk, 300)
    tally(connections=result["made"] + again["made"], failed=result["failed"], replies=heard["replies"],
          longest_ms=round(heard["longest"] * 1000), per_second=round(result["made"] / result["seconds"]))

    assert result["made"] > count * 0.95, result
    assert heard["error"] is None and heard["replies"] > 50, heard
    assert heard["longest"] < 5, heard
    assert switches(cloud) == before


def test_s18_churn_through_a_router_leaves_the_switch_running(cloud, tenant, guests, scale, tally):
    """The same through source translation (out to the machine) and a floating IP (in from the machine)."""
    count = scale(2_000, 30_000)
    attacker, inside = pair(cloud, tenant, guests, "192.168.62.0/24")
    external = next(tenant.api.network.networks(is_router_external=True))
    floating = tenant.api.network.create_ip(floating_network_id=external.id, port_id=inside.port.id).floating_ip_address
    for guest in (attacker, inside):
        guest("ip", "route", "add", "default", "via", "192.168.62.1")
    started(inside.python(SERVER, 80))
    before = switches(cloud)
    wait("the floating IP answers", lambda: answer(attacker.python(CHURN, floating, 80, 1, 1))["made"] == 1, 60)
    result = answer(attacker.python(CHURN, floating, 80, count, 500), 600)
    tally(connections=result["made"], failed=result["failed"], per_second=round(result["made"] / result["seconds"]))
    assert result["made"] > count * 0.95, result
    assert switches(cloud) == before


def zone_limit(cloud, guest):
    """The zone in which the switch tracks a guest's connections, the limit of that zone, and how many connections it has."""
    zone = run(*guest.switch, "get", "Bridge", guest.bridge, f"external_ids:ct-zone-{guest.port.id}").strip().strip('"')
    control = f"{guest.runtime}/ovs-vswitchd.{(guest.runtime / 'ovs-vswitchd.pid').read_text().strip()}.ctl"
    told = run("ovs-appctl", "-t", control, "dpctl/ct-get-limits", "netdev@ovs-netdev", f"zone={zone}")
    line = next((line for line in told.splitlines() if line.startswith(f"zone={zone},")), "")
    fields = dict(field.split("=") for field in line.split(",") if "=" in field)
    return int(zone), int(fields.get("limit", 0)), int(fields.get("count", 0))


def test_s18_a_guest_over_its_limit_leaves_connections_to_others(cloud, tenant, other_tenant, guests, tally):
    """The table of tracked connections belongs to the host; one guest can use at most `agent.connections_per_port` of it."""
    victim, peer = pair(cloud, other_tenant, guests, "192.168.63.0/24")
    attacker, accomplice = pair(cloud, tenant, guests, "192.168.64.0/24")
    for guest in (victim, peer, attacker, accomplice):
        wait("the port has its limit", lambda: zone_limit(cloud, guest)[1] == 65_536, 10)
    before = switches(cloud)
    for server in (peer, accomplice):
        started(server.python(SERVER, 80))
    assert answer(attacker.python(CHURN, accomplice.address, 80, 20, 20))["made"] == 20
    # Otherwise they expire while the table is full, and leave room for as many.
    wait("these connections are forgotten", lambda: zone_limit(cloud, attacker)[2] == 0, 60)

    for _ in range(5):
        sent = answer(attacker.python(FLOOD, accomplice.address, 2))["sent"]
        _, limit, tracked = zone_limit(cloud, attacker)
        if tracked == limit:
            break
    assert tracked == limit, f"{sent} datagrams were sent, {tracked} connections are tracked"
    blocked = answer(attacker.python(CHURN, accomplice.address, 80, 3, 3))
    others = answer(victim.python(CHURN, peer.address, 80, 500, 500))
    tally(datagrams=sent, tracked=tracked, attackers=blocked["made"], others=others["made"])
    assert blocked == {"made": 0, "failed": 3, "seconds": blocked["seconds"]}
    assert others["failed"] == 0, others
    assert zone_limit(cloud, attacker)[2] <= limit
    assert switches(cloud) == before


def test_s18_churn_to_the_metadata_address_leaves_others_connected(cloud, tenant, other_tenant, guests, scale, tally):
    """Metadata is served on a host for the networks of its servers; every guest on the network can connect to it."""
    count = scale(3_000, 60_000)
    server = tenant.create_server("served")
    host = 2 if cloud.admin.compute.get_server(server.id).compute_host == "host-2" else 1
    port = tenant.api.network.create_port(network_id=tenant.network().id)
    attacker = NativeGuest(cloud, port, host)
    guests.append(attacker)
    attacker.ready()
    served = next(tenant.api.network.ports(network_id=tenant.network().id, device_owner="network:distributed"))
    attacker("ip", "route", "add", "169.254.169.254", "via", served.fixed_ips[0]["ip_address"])
    victim, peer = pair(cloud, other_tenant, guests, "192.168.65.0/24", hosts=(host, 3 - host))
    agents = {name: part["pid"] for name, part in cloud.parts().items() if name.startswith("wolke-compute-agent")}
    before = switches(cloud)

    started(peer.python(ECHO, 7000))
    talk = started(victim.python(TALK, peer.address, 7000, scale(10, 90)))
    request = "GET /openstack/latest/meta_data.json HTTP/1.0\r\n\r\n"
    result = answer(attacker.python(CHURN, "169.254.169.254", 80, count, 500, request), 600)
    heard = answer(talk, 300)
    tally(connections=result["made"], failed=result["failed"], replies=heard["replies"], longest_ms=round(heard["longest"] * 1000),
          per_second=round(result["made"] / result["seconds"]))
    assert result["made"] > count * 0.95, result
    assert heard["error"] is None and heard["replies"] > 50, heard
    assert heard["longest"] < 5, heard
    assert switches(cloud) == before
    assert all(cloud.parts()[name]["pid"] == pid for name, pid in agents.items())


def test_status_and_doctor_report_a_switch_outage(cloud):
    cloud.kill("ovs-vswitchd")
    part = cloud.parts()["ovs-vswitchd"]
    assert part["outages"]["count"] >= 1 and part["outages"]["seconds"] > 0
    assert "signal 9" in part["outages"]["last_reason"]
    assert "ovs-vswitchd was restarted" in cloud.osctl("status", check=False).stdout
    told = json.loads(cloud.osctl("doctor", "--json", check=False).stdout)["network_outages"]
    assert any(words.startswith("ovs-vswitchd was restarted") for words in told), told
    # The host's agent has noticed it too; on hosts without another supervisor only the agent reports it.
    host = next(host for host in cloud.hosts() if host != "host-2")

    def told_by_agent():
        told = json.loads(cloud.osctl("doctor", "--json", check=False).stdout)["network_outages"]
        return any(words.startswith(f"host {host}: ovs-vswitchd was away") and "is away now" not in words for words in told)

    wait("the agent's word is there", told_by_agent, 40)


def test_s18_a_guest_cannot_end_the_switch(cloud):
    """OVN must not find the capability that makes it commit connections in a way that crashes the userspace datapath.
    Status reports the capability while the agent is away, and the agent removes it."""
    switch = ["ovs-vsctl", f"--db=unix:{cloud.state}/ovn/run/db.sock", "--timeout=10"]
    row = run(*switch, "get", "Open_vSwitch", ".", "datapaths:netdev").strip()

    def capability():
        return run(*switch, "get", "Datapath", row, "capabilities:ct_zero_snat").strip()

    assert capability() == '"false"'
    cloud.kill("ovs-vswitchd")
    assert capability() == '"false"'
    agent = cloud.parts()["wolke-compute-agent"]["pid"]
    os.kill(agent, signal.SIGSTOP)
    try:
        run(*switch, "set", "Datapath", row, "capabilities:ct_zero_snat=true")
        assert "ct_zero_snat" in (cloud.parts()["ovs-vswitchd"]["problem"] or "")
    finally:
        os.kill(agent, signal.SIGCONT)
    wait("the agent has taken the capability back", lambda: capability() == '"false"', 20)
    assert cloud.parts()["ovs-vswitchd"]["problem"] is None
