"""Consoles of running guests: the display by VNC and the serial port, through WebSockets."""

import struct
import subprocess
import urllib.request

import pytest

from websocket import Refused, WebSocket
from wolkecloud import Tenant, wait

PROTOCOLS = {"vnc": "novnc", "serial": "serial"}


@pytest.fixture(scope="module")
def tenant(cloud, tmp_path_factory):
    """One for all tests of the module, because a console needs a guest that has booted."""
    tenant = Tenant(cloud, tmp_path_factory.mktemp("consoles"))
    yield tenant
    tenant.close()


@pytest.fixture(scope="module")
def server(tenant):
    return tenant.create_server("consoles")


def url(tenant, server, protocol):
    answer = tenant.api.compute.post(
        f"/servers/{server.id}/remote-consoles", json={"remote_console": {"protocol": protocol, "type": PROTOCOLS[protocol]}},
        microversion="2.6")
    assert answer.status_code == 200, answer.text
    return answer.json()["remote_console"]["url"]


def press(display, text):
    """Types text; RFC 6143, 7.5.4. Characters above others need the Shift key."""
    for character in text:
        keys = [0xFFE1] if character.isupper() or character in ">" else []
        keys.append(0xFF0D if character == "\n" else ord(character))
        for down, order in ((1, keys), (0, keys[::-1])):
            for key in order:
                display.send(struct.pack("!BBHI", 4, down, 0, key))


def log(tenant, server):
    return tenant.api.compute.get_server_console_output(server.id)["output"]


def test_the_serial_console_answers(tenant, server):
    wait("the guest is ready", lambda: "ready up" in log(tenant, server), 120)
    address = url(tenant, server, "serial")
    with urllib.request.urlopen(address, timeout=10) as page:
        assert b"xterm.js" in page.read() and page.headers["Referrer-Policy"] == "no-referrer"
    console = WebSocket(address)
    console.send(b"\necho the answer is $((6 * 7))\n")
    console.until(b"the answer is 42")
    console.close()
    assert "the answer is 42" in log(tenant, server), "what was on the serial port is in the log"


def test_the_display_answers(tenant, server):
    wait("the guest is ready", lambda: "ready up" in log(tenant, server), 120)
    address = url(tenant, server, "vnc")
    with urllib.request.urlopen(address, timeout=10) as page:
        assert b"noVNC" in page.read()
    display = WebSocket(address)
    assert display.read(12) == b"RFB 003.008\n"
    display.send(b"RFB 003.008\n")
    types = display.read(display.read(1)[0])
    assert 1 in types, "the token is the only authentication"
    display.send(b"\x01")
    assert display.read(4) == b"\0\0\0\0"
    display.send(b"\x01")
    width, height = struct.unpack("!HH", display.read(4))
    assert width >= 640 and height >= 400
    # The answer is read where the guest writes it: on its serial port.
    press(display, "\necho typed on the display >/dev/ttyS0\n")
    wait("the guest has what was typed", lambda: "typed on the display" in log(tenant, server), 60)
    display.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_s8_a_token_opens_one_session(tenant, server, protocol):
    address = url(tenant, server, protocol)
    WebSocket(address).close()
    with pytest.raises(Refused) as refusal:
        WebSocket(address)
    assert refusal.value.status == 403


def test_s8_other_tokens_and_sites_are_refused(cloud, tenant, server):
    address = url(tenant, server, "serial")
    with pytest.raises(Refused):
        WebSocket(address, origin="https://evil.example.org")
    with pytest.raises(Refused):
        WebSocket(address.replace("token=", "token=bad"))
    with pytest.raises(Refused):
        WebSocket(address.split("token=")[0] + "token=" + "0" * 64)
    expired = url(tenant, server, "serial")
    cloud.sql(f"UPDATE console_tokens SET expires_at = now() - interval '1 s' WHERE server_id = '{server.id}'")
    with pytest.raises(Refused):
        WebSocket(expired)


def test_s8_tokens_are_shown_to_administrators_only(cloud, tenant, server):
    token = url(tenant, server, "vnc").split("token%3D")[1]
    path = f"/os-console-auth-tokens/{token}"
    assert tenant.api.compute.get(path, microversion="2.31").status_code == 403
    shown = cloud.admin.compute.get(path, microversion="2.31")
    assert shown.status_code == 200 and shown.json()["console"]["instance_uuid"] == server.id
    assert token not in cloud.sql("SELECT string_agg(token_hash, ' ') FROM console_tokens")


def test_s3_consoles_listen_on_no_network(cloud, server):
    """QEMU has no listening socket on any address; only the console service has."""
    listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    assert "qemu" not in listening, listening
