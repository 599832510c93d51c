"""Debian's Horizon in a separate root directory, and a browser that uses it like a person."""

import os
import re
import socket
import subprocess
from pathlib import Path

from wolkecloud import wait

# Elements that a page shows after an error.
ALERTS = ".alert-danger:visible, .alert-error:visible, .alert-warning:visible, toast .alert-danger:visible"
PAGE_LIMIT = 30_000  # ms
OPEN_FORM = ".modal.in, .modal.show"

SETTINGS = """# Written by make test-horizon.
OPENSTACK_HOST = "127.0.0.1"
OPENSTACK_KEYSTONE_URL = "{identity}"
OPENSTACK_KEYSTONE_MULTIDOMAIN_SUPPORT = False
ALLOWED_HOSTS = ["127.0.0.1"]
# Two processes serve the pages: sessions must not live in the memory of one.
CACHES = {{"default": {{"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": "/var/cache/horizon"}}}}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
"""

APACHE = """# Written by make test-horizon.
ServerRoot /etc/apache2
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile /run/apache2/horizon.pid
DefaultRuntimeDir /run/apache2
User www-data
Group www-data
ErrorLog /var/log/openstack-dashboard/error.log
LogFormat "%t %>s %m %U%q" short
CustomLog /var/log/openstack-dashboard/access.log short
Include mods-available/mpm_event.load
Include mods-available/authz_core.load
Include mods-available/alias.load
Include mods-available/mime.load
Include mods-available/wsgi.load
TypesConfig /etc/mime.types
Include sites-available/openstack-dashboard-alias-only.conf
WSGIProcessGroup horizon
WSGIApplicationGroup %{{GLOBAL}}
"""


class Dashboard:
    """Apache with Debian's Horizon on a port of loopback, from `start` to `stop`."""

    def __init__(self, root, identity):
        self.root = Path(root)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.url = self.base + "/horizon"
        self.log = self.root / "var/log/openstack-dashboard/error.log"
        settings = self.root / "etc/openstack-dashboard/local_settings.d/_9999_wolke.py"
        settings.write_text(SETTINGS.format(identity=identity))
        (self.root / "etc/apache2/horizon.conf").write_text(APACHE.format(port=self.port))
        for directory in ("run/apache2", "var/cache/horizon", "var/log/openstack-dashboard"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        # www-data of Debian's base-passwd.
        os.chown(self.root / "var/cache/horizon", 33, 33)
        self.log.write_text("")
        self.process = None

    def start(self):
        # In its own PID namespace, so that all of Apache ends with it.
        run = "mount -t proc proc /proc && exec apache2 -f /etc/apache2/horizon.conf -DFOREGROUND"
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "chroot", self.root, "sh", "-c", run],
            stdin=subprocess.DEVNULL, start_new_session=True)
        wait("Horizon listens", self._listens, 60)

    def _listens(self):
        assert self.process.poll() is None, f"Apache ended: {self.log.read_text()[-2000:]}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def tracebacks(self):
        """Exceptions that Horizon logged."""
        return re.findall(r"^.*?Traceback.*?(?=^\[|\Z)", self.log.read_text(), re.MULTILINE | re.DOTALL)


class Person:
    """A user signed on to Horizon in a browser; errors are collected in `problems`."""

    def __init__(self, browser, dashboard, user, password, shots):
        self.dashboard = dashboard
        self.shots = shots
        self.problems = []
        self.page = browser.new_page(viewport={"width": 1400, "height": 1000})
        self.page.set_default_timeout(PAGE_LIMIT)
        self.page.on("response", self._response)
        self.page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        self.page.goto(f"{dashboard.url}/auth/login/")
        self.page.fill("#id_username", user)
        self.page.fill("#id_password", password)
        self.page.click("#loginBtn")
        self.settle()
        assert "/auth/login" not in self.page.url, f"{user} cannot sign on: {self.alerts()}"

    def _response(self, response):
        if response.status >= 400 and response.url.startswith(self.dashboard.base):
            self.problems.append(f"{response.status} {response.request.method} {response.url[len(self.dashboard.url):]}")

    def settle(self):
        """Waits until the page has sent no request for half a second."""
        self.page.wait_for_load_state("networkidle")

    def alerts(self):
        return [" ".join(text.split()) for text in self.page.locator(ALERTS).all_inner_texts()]

    def take_problems(self):
        """The errors since the last call, including the page's alerts."""
        problems, self.problems = self.problems + self.alerts(), []
        return problems

    def panels(self):
        """The links of the menu, in its order."""
        links = self.page.eval_on_selector_all(
            "#sidebar-accordion a[href^='/horizon/']", "links => links.map(link => link.getAttribute('href'))")
        return list(dict.fromkeys(links))

    def links(self):
        """Links of the page's content within Horizon."""
        links = self.page.eval_on_selector_all(
            "#main_content a[href^='/horizon/']", "links => links.map(link => link.getAttribute('href'))")
        return list(dict.fromkeys(links))

    def open(self, path):
        """Opens a page; its title."""
        self.page.goto(self.dashboard.base + path)
        self.settle()
        return self.page.title()

    def tabs(self):
        """Opens each tab of the page and waits until it has loaded."""
        for tab in self.page.locator("#main_content ul.nav-tabs a:visible").all():
            tab.click()
            self.settle()

    def form(self, path, button, tab=None):
        """Opens a page's form by the button's id; the button may be on a tab."""
        self.open(path)
        if tab:
            self.page.click(f"#main_content ul.nav-tabs a:has-text('{tab}')")
        self.page.click(f"#{button}")
        self.page.wait_for_selector(OPEN_FORM)
        self.settle()
        assert not self.take_problems(), f"{path} {button}"

    def fill(self, **fields):
        for name, value in fields.items():
            self.page.fill(f"{OPEN_FORM} >> #id_{name}", str(value))

    def choose(self, **fields):
        """Selects options by label; Horizon's style hides the selections behind buttons."""
        for name, label in fields.items():
            self.page.eval_on_selector(
                f"#id_{name}",
                """(select, label) => {
                    const option = [...select.options].find(option => option.text.trim().startsWith(label));
                    if (!option) throw new Error(`no ${label} in ${[...select.options].map(o => o.text)}`);
                    select.value = option.value;
                    select.dispatchEvent(new Event('change', {bubbles: true}));
                }""", label)

    def submit(self):
        """Sends the form and expects it to close without an error."""
        self.page.click(f"{OPEN_FORM} >> .modal-footer .btn-primary:visible:not(.button-next)")
        self.page.wait_for_selector(OPEN_FORM, state="hidden")
        self.settle()
        problems = self.take_problems()
        assert not problems, problems

    def shoot(self, name):
        self.page.screenshot(path=str(self.shots / f"{name}.png"))
