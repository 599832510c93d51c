"""Parts stopped and started again while servers are being created: every accepted request ends in its final state."""

import threading
import time

import pytest

from openstack import exceptions

from wolkecloud import wait

OUTAGE = 4
SERVERS = 3


@pytest.mark.parametrize("part", ["postgres", "rabbitmq", "ovn-northbound", "ovn-southbound", "libvirtd"])
def test_accepted_requests_end(cloud, tenant, part):
    tenant.network()
    tenant.group()
    accepted, refused = [], []

    def create(number):
        try:
            accepted.append(tenant.create_server(f"during-{number}", wait_until_active=False))
        except exceptions.SDKException as error:
            refused.append(error)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(SERVERS)]
    for thread in threads:
        thread.start()
    while not accepted and any(thread.is_alive() for thread in threads):
        time.sleep(0.02)
    cloud.stop(part)
    time.sleep(OUTAGE)
    cloud.start(part)
    for thread in threads:
        thread.join()
    assert accepted, refused

    def settled():
        found = [tenant.api.compute.get_server(server.id) for server in accepted]
        return found if all(server.status in ("ACTIVE", "ERROR") and not server.task_state for server in found) else None

    ended = wait(f"the servers made during an outage of {part} end", settled)
    assert [server.status for server in ended] == ["ACTIVE"] * len(ended), [server.fault for server in ended]
    # Requests that were not accepted have left nothing behind.
    assert {server.id for server in tenant.api.compute.servers()} == {server.id for server in accepted}
    tenant.delete_servers()
    assert not cloud.libvirt_domains() & {server.id for server in accepted}
