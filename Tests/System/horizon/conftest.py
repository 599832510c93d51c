"""Horizon and two users for the tests of a session."""

import os

import pytest
import yaml

from dashboard import Dashboard, Person


@pytest.fixture(scope="session")
def accounts(cloud):
    return yaml.safe_load(cloud.clouds.read_text())["clouds"]


@pytest.fixture(scope="session")
def dashboard(accounts):
    dashboard = Dashboard(os.environ["WOLKE_HORIZON_ROOT"], accounts["wolke-admin"]["auth"]["auth_url"])
    dashboard.start()
    yield dashboard
    dashboard.stop()


def person(browser, dashboard, accounts, shots, account):
    auth = accounts[account]["auth"]
    return Person(browser, dashboard, auth["username"], auth["password"], shots)


@pytest.fixture(scope="session")
def member(browser, dashboard, accounts, shots):
    return person(browser, dashboard, accounts, shots, "wolke-demo")


@pytest.fixture(scope="session")
def admin(browser, dashboard, accounts, shots):
    return person(browser, dashboard, accounts, shots, "wolke-admin")


@pytest.fixture(autouse=True)
def shot_of_failure(request, shots):
    """Takes a screenshot of each open page if a test fails."""
    yield
    report = getattr(request.node, "report", None)
    if report and report.failed:
        for name in ("member", "admin"):
            if name in request.fixturenames:
                request.getfixturevalue(name).shoot(f"{request.node.name}-{name}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when == "call":
        item.report = report
