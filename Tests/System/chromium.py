"""Debian's Chromium without a window, for the tests that open pages like a person."""

from contextlib import contextmanager

from playwright.sync_api import sync_playwright


@contextmanager
def chromium():
    with sync_playwright() as playwright:
        # Chromium has no sandbox as root; it only opens pages of this machine.
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()
