"""The URLs of `openstack console url show` in a real browser: log in to a guest on its display and on its serial port.

The answers are read where a person reads them: from the pixels of noVNC's canvas, and from the text of xterm.js.
"""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from screen import Screen
from wolkecloud import Tenant, wait

# ms
PAGE_LIMIT = 60_000
ANSWER_LIMIT = 60


@pytest.fixture(scope="module")
def tenant(cloud, tmp_path_factory):
    tenant = Tenant(cloud, tmp_path_factory.mktemp("consoles"))
    yield tenant
    tenant.close()


class Guest:
    """A server whose root has a password."""

    def __init__(self, tenant):
        self.tenant = tenant
        self.server = tenant.create_server("consoles")
        self.address = tenant.floating_address(self.server)
        tenant.reachable(self.address)
        # Lower case only: a password is typed without an echo, so a lost Shift could not be seen.
        self.password = uuid.uuid4().hex[:8]
        self.ssh(f"echo root:{self.password} | chpasswd")

    def ssh(self, command):
        return self.tenant.ssh(self.address, command)

    def url(self, option):
        """What the stock client prints for the server's owner."""
        account = self.tenant.api.config.config["auth"]
        options = [f"--os-{name.replace('_', '-')}={value}" for name, value in account.items()]
        command = [Path(sys.executable).parent / "openstack", *options, "--os-identity-api-version=3", "--os-region-name=RegionOne",
                   "console", "url", "show", option, "-f", "json", self.server.id]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["url"]


@pytest.fixture(scope="module")
def guest(tenant):
    return Guest(tenant)


@pytest.fixture
def page(browser, shots, request):
    """A page whose script errors fail the test; a screenshot is kept."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PAGE_LIMIT)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.screenshot(path=str(shots / f"{request.node.name}.png"))
    page.close()
    assert not errors, errors


def press(page, character):
    """A key as on a keyboard, with Shift where it is needed: VNC sends keys, not characters."""
    shifted = character.isupper() or character in '~!@#$%^&*()_+{}|:"<>?'
    if shifted:
        page.keyboard.down("Shift")
    page.keyboard.press(character)
    if shifted:
        page.keyboard.up("Shift")


def type_line(page, text, read):
    """Types one character after the other, because the guest's keyboard keeps only 16 bytes while the guest is busy."""
    for end, character in enumerate(text, 1):
        press(page, character)
        wait(f"the guest echoes {text[:end]!r}", lambda: read().endswith(text[:end].rstrip()), ANSWER_LIMIT)
    page.keyboard.press("Enter")


def last_line(read):
    return (read().splitlines() or [""])[-1]


def log_in(page, password, read):
    """Types into the guest's login until a shell answers. Only a password can be mistyped without being seen.

    - read: returns the text that the page shows.
    """
    # `login`, as getty would start it: the small guest has a shell on its consoles.
    type_line(page, "login", read)
    for _ in range(3):
        wait("the guest asks for a user", lambda: last_line(read).endswith("login:"), ANSWER_LIMIT)
        type_line(page, "root", read)
        wait("the guest asks for a password", lambda: last_line(read).endswith("Password:"), ANSWER_LIMIT)
        for character in password:
            press(page, character)
            page.wait_for_timeout(150)
        page.keyboard.press("Enter")
        wait("the guest has checked the password", lambda: last_line(read).endswith(("login:", "#")), ANSWER_LIMIT)
        if last_line(read).endswith("#"):
            return
    raise AssertionError(f"the guest refused the password three times:\n{read()}")


def test_the_serial_console_takes_a_login(page, guest):
    page.goto(guest.url("--serial"))
    wait("the page is connected", lambda: page.inner_text("#state") == "Connected", ANSWER_LIMIT)

    def read():
        """All text of the terminal, up to the last character."""
        page.evaluate("terminal.selectAll()")
        text = page.evaluate("terminal.getSelection()")
        page.evaluate("terminal.clearSelection()")
        return text.rstrip()

    page.click("#terminal")
    page.keyboard.press("Enter")
    wait("the shell prompts", lambda: read().endswith("#"), ANSWER_LIMIT)
    log_in(page, guest.password, read)
    assert guest.password not in read()
    type_line(page, "echo the answer is $((6 * 7)) from $(tty)", read)
    wait("the guest answers", lambda: re.search(r"^the answer is 42 from /dev/(console|ttyS0)$", read(), re.MULTILINE), ANSWER_LIMIT)
    type_line(page, "echo by serial >/run/typed", read)
    wait("the guest has the file", lambda: guest.ssh("cat /run/typed; true").strip() == "by serial", ANSWER_LIMIT)


def test_the_display_takes_a_login(page, guest):
    page.goto(guest.url("--novnc"))
    wait("the page is connected", lambda: page.inner_text("#status").startswith("Connected to"), ANSWER_LIMIT)
    page.click("#screen canvas")
    screen = Screen(page, guest.ssh)
    screen.learn()

    def read():
        return screen.text().rstrip()

    page.keyboard.press("Enter")
    wait("the shell prompts", lambda: read().endswith("#"), ANSWER_LIMIT)
    log_in(page, guest.password, read)
    type_line(page, "echo the answer is $((6 * 7)) from $(tty)", read)
    wait("the screen shows the answer", lambda: "the answer is 42 from /dev/tty1" in read().splitlines(), ANSWER_LIMIT)
    type_line(page, "echo by display >/run/typed", read)
    wait("the guest has the file", lambda: guest.ssh("cat /run/typed; true").strip() == "by display", ANSWER_LIMIT)


def test_s8_the_url_opens_no_second_session(browser, guest):
    """A URL copied from the address bar is worth nothing to somebody else."""
    url = guest.url("--serial")
    first, second = browser.new_page(), browser.new_page()
    try:
        first.goto(url)
        wait("the first page is connected", lambda: first.inner_text("#state") == "Connected", ANSWER_LIMIT)
        second.goto(url)
        wait("the second page is refused", lambda: second.inner_text("#state").startswith("Disconnected"), ANSWER_LIMIT)
        assert first.inner_text("#state") == "Connected"
    finally:
        first.close()
        second.close()
