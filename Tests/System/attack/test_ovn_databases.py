"""S15: anyone who can connect to OVN's databases controls every tenant's network, so they must not listen on the network."""

import os
import stat

from wolkecloud import run


def listeners():
    """Processes and their TCP listeners on all addresses of this machine."""
    return [line for line in run("ss", "-H", "-l", "-t", "-n", "-p").splitlines()]


def test_s15_ovns_databases_are_reached_by_root_only(cloud):
    parts = cloud.parts()
    for name in ("ovn-northbound", "ovn-southbound", "ovsdb-switch"):
        assert not any(f"pid={parts[name]['pid']}," in line for line in listeners()), name
        socket = parts[name]["address"]
        mode = os.stat(socket)
        assert stat.S_ISSOCK(mode.st_mode) and mode.st_uid == 0 and mode.st_mode & 0o007 == 0, socket
    # The check does see listeners.
    assert any(f"pid={parts['postgres']['pid']}," in line for line in listeners())
