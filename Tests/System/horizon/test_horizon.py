"""Every panel of Horizon's menu for a member and an administrator, and the most common forms.

A panel is right when nothing that it loads fails and it shows no error. A form is right when the API shows what it made.
"""

import re
import uuid

import openstack
import pytest

from dashboard import OPEN_FORM
from wolkecloud import wait

@pytest.fixture(scope="session")
def api(cloud):
    return openstack.connect(cloud="wolke-demo")


@pytest.fixture(scope="module")
def name():
    return "hz" + uuid.uuid4().hex[:6]


@pytest.fixture(scope="module")
def things(api, name):
    """Resources for the panels to show: a network with a subnet, a router, a volume with a snapshot, a group, a key."""
    network = api.network.create_network(name=f"{name}-shown")
    subnet = api.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.77.0.0/24", name=f"{name}-shown")
    router = api.network.create_router(name=f"{name}-shown")
    group = api.network.create_security_group(name=f"{name}-shown")
    key = api.compute.create_keypair(name=f"{name}-shown")
    volume = api.block_storage.create_volume(name=f"{name}-shown", size=1)
    api.block_storage.wait_for_status(volume, "available", wait=60)
    snapshot = api.block_storage.create_snapshot(volume_id=volume.id, name=f"{name}-shown")
    api.block_storage.wait_for_status(snapshot, "available", wait=60)
    yield {"network": network, "router": router, "group": group, "volume": volume, "snapshot": snapshot, "key": key}
    api.block_storage.delete_snapshot(snapshot)
    api.block_storage.wait_for_delete(snapshot, wait=60)
    api.block_storage.delete_volume(volume)
    api.compute.delete_keypair(key)
    api.network.delete_security_group(group)
    api.network.delete_router(router)
    api.network.delete_subnet(subnet)
    api.network.delete_network(network)


def walk(person):
    """Opens every panel of the menu with its tabs; the errors, by panel."""
    assert not person.take_problems(), "signing on"
    panels = person.panels()
    wrong = {}
    for panel in panels:
        title = person.open(panel)
        person.tabs()
        problems = person.take_problems()
        if "OpenStack Dashboard" not in title:
            problems.append(f"title: {title}")
        if problems:
            wrong[panel] = problems
            person.shoot(panel.strip("/").replace("/", "-"))
    return panels, wrong


def test_every_panel_loads_for_a_member(member, dashboard, things):
    panels, wrong = walk(member)
    assert len(panels) >= 15, panels
    assert not wrong, wrong
    assert not dashboard.tracebacks()


def test_every_panel_loads_for_an_administrator(admin, dashboard, things):
    panels, wrong = walk(admin)
    assert len(panels) >= 35, panels
    assert any("/admin/" in panel for panel in panels)
    assert not wrong, wrong
    assert not dashboard.tracebacks()


# Links that sign off or save a file.
ELSEWHERE = re.compile(r"/auth/|logout|openrc|clouds|ec2|download|\?")
IDENTIFIER = re.compile(r"[0-9a-f-]{32,36}")


@pytest.mark.parametrize("who", ["member", "admin"])
def test_every_form_and_page_that_a_panel_links_to_loads(request, who, things):
    """One link of each kind as a page: forms of rows (edit, extend, attach, manage), details, and forms for new resources."""
    person = request.getfixturevalue(who)
    person.take_problems()
    seen, wrong = set(), {}
    for panel in person.panels():
        person.open(panel)
        person.take_problems()
        for link in person.links():
            shape = IDENTIFIER.sub("ID", link)
            if shape in seen or ELSEWHERE.search(link):
                continue
            seen.add(shape)
            person.open(link)
            problems = person.take_problems()
            if problems:
                wrong[shape] = problems
    assert len(seen) >= (35 if who == "member" else 70), sorted(seen)
    assert not wrong, wrong


@pytest.mark.parametrize("kind, path", [
    ("volume", "/horizon/project/volumes/{}/"), ("snapshot", "/horizon/project/snapshots/{}"),
    ("network", "/horizon/project/networks/{}/detail"), ("router", "/horizon/project/routers/{}/"),
    ("group", "/horizon/project/security_groups/{}/"),
])
def test_the_page_of_one_thing_loads(member, things, kind, path):
    member.take_problems()
    member.open(path.format(things[kind].id))
    member.tabs()
    assert not member.take_problems()
    assert things[kind].name in member.page.inner_text("#content_body")


def test_a_network_is_made(member, api, name):
    member.form("/horizon/project/networks/", "networks__action_create")
    member.fill(net_name=name)
    member.page.click(f"{OPEN_FORM} >> .button-next")
    member.fill(subnet_name=name, cidr="10.78.0.0/24")
    member.page.click(f"{OPEN_FORM} >> .button-next")
    member.page.click(f"{OPEN_FORM} >> .button-final")
    member.page.wait_for_selector(OPEN_FORM, state="hidden")
    member.settle()
    assert not member.take_problems()
    network = api.network.find_network(name, ignore_missing=False)
    assert [api.network.get_subnet(subnet).cidr for subnet in network.subnet_ids] == ["10.78.0.0/24"]


def test_a_volume_is_made(member, api, name):
    member.form("/horizon/project/volumes/", "volumes__action_create")
    member.fill(name=name, size=1)
    member.submit()
    volume = api.block_storage.find_volume(name, ignore_missing=False)
    api.block_storage.wait_for_status(volume, "available", wait=60)
    member.open("/horizon/project/volumes/")
    assert name in member.page.inner_text("#volumes")
    api.block_storage.delete_volume(volume)


def test_a_security_group_is_made_with_a_rule(member, api, name):
    member.form("/horizon/project/security_groups/", "security_groups__action_create")
    member.fill(name=name, description="of a test")
    member.submit()
    group = api.network.find_security_group(name, ignore_missing=False)
    member.form(f"/horizon/project/security_groups/{group.id}/", "rules__action_add_rule")
    member.fill(port=22)
    member.submit()
    rules = [rule for rule in api.network.security_group_rules(security_group_id=group.id) if rule.protocol == "tcp"]
    assert [(rule.port_range_min, rule.port_range_max) for rule in rules] == [(22, 22)]
    api.network.delete_security_group(group)


def test_a_floating_address_is_allocated(member, api):
    before = {address.id for address in api.network.ips()}
    member.form("/horizon/project/floating_ips/", "floating_ips__action_allocate")
    member.submit()
    made = [address for address in api.network.ips() if address.id not in before]
    assert len(made) == 1
    assert made[0].floating_ip_address in member.page.inner_text("#floating_ips")
    api.network.delete_ip(made[0])


def test_a_server_is_launched(member, api, name):
    network = api.network.find_network(name, ignore_missing=False)
    image = next(api.image.images(status="active"))
    flavor = min(api.compute.flavors(), key=lambda flavor: flavor.ram)
    member.take_problems()
    member.open("/horizon/project/instances/")
    member.page.click("#instances__action_launch-ng")
    page = member.page
    page.wait_for_selector("wizard input[name=name]")
    member.settle()
    assert not member.take_problems()
    page.fill("wizard input[name=name]", name)

    def allocate(step, text):
        page.click(f"wizard .wizard-nav a:has-text('{step}')")
        row = page.locator(f"wizard tr:visible:has(:text-is('{text}')):has(action-list button)").first
        row.locator("action-list button").first.click()

    page.click("wizard .wizard-nav a:has-text('Source')")
    # The server's own disk.
    page.click("wizard label#vol-create:visible:has-text('No')")
    allocate("Source", image.name)
    allocate("Flavor", flavor.name)
    allocate("Networks", network.name)
    page.click("wizard button:has-text('Launch Instance')")
    page.wait_for_selector("wizard", state="hidden")
    member.settle()
    assert not member.take_problems()
    server = api.compute.find_server(name, ignore_missing=False)
    server = api.compute.wait_for_server(server, wait=300)
    try:
        assert list(server.addresses) == [network.name]
        # With a server, these pages have something to show.
        for path in ("project/", "project/instances/", f"project/instances/{server.id}/", "project/network_topology/"):
            member.open(f"/horizon/{path}")
            member.tabs()
            assert not member.take_problems(), path
    finally:
        api.compute.delete_server(server)
        api.compute.wait_for_delete(server, wait=120)
        wait("the network is free", lambda: not [port for port in api.network.ports(network_id=network.id) if port.device_owner.startswith("compute:")], 60)
        api.network.delete_network(network)


def test_a_project_gets_a_user_and_quotas(admin, cloud, name):
    identity = cloud.admin.identity
    admin.form("/horizon/identity/", "tenants__action_create")
    admin.fill(name=name)
    admin.submit()
    project = identity.find_project(name, ignore_missing=False)
    try:
        admin.form("/horizon/identity/users/", "users__action_create")
        admin.fill(name=name, password="secret-of-a-test", confirm_password="secret-of-a-test")
        admin.choose(project=name, role_id="member")
        admin.submit()
        user = identity.find_user(name, ignore_missing=False)
        assert [grant.scope["project"]["id"] for grant in identity.role_assignments(user_id=user.id)] == [project.id]
        # Quotas: a separate page, with a tab for each service.
        admin.take_problems()
        admin.open("/horizon/identity/")
        row = admin.page.locator(f"#tenants tr:has-text('{name}')")
        row.locator("a.dropdown-toggle, button.dropdown-toggle").click()
        row.locator("a:has-text('Modify Quotas')").click()
        admin.page.wait_for_selector(OPEN_FORM)
        admin.settle()
        assert not admin.take_problems()
        admin.fill(instances=7)
        admin.page.click(f"{OPEN_FORM} >> ul.nav a:has-text('Volume')")
        admin.fill(volumes=8)
        admin.page.click(f"{OPEN_FORM} >> ul.nav a:has-text('Network')")
        admin.fill(network=9)
        admin.submit()
        assert cloud.admin.compute.get_quota_set(project).instances == 7
        assert cloud.admin.block_storage.get_quota_set(project).volumes == 8
        assert cloud.admin.network.get_quota(project.id).networks == 9
        identity.delete_user(user)
    finally:
        identity.delete_project(project)


def defaults_of(cloud, service):
    answer = service.get("/os-quota-class-sets/default")
    assert answer.status_code == 200, answer.text
    return answer.json()["quota_class_set"]


@pytest.mark.parametrize("tab, button, field", [
    ("Compute Quotas", "compute_quotas__action_update_compute_defaults", "instances"),
    ("Volume Quotas", "volume_quotas__action_update_volume_defaults", "volumes"),
])
def test_the_defaults_of_quotas_are_changed(admin, cloud, tab, button, field):
    service = cloud.admin.compute if field == "instances" else cloud.admin.block_storage
    before = defaults_of(cloud, service)[field]
    for value in (before + 1, before):
        admin.form("/horizon/admin/defaults/", button, tab)
        admin.fill(**{field: value})
        admin.submit()
        assert defaults_of(cloud, service)[field] == value


def test_a_volume_type_is_made(admin, cloud, name):
    admin.form("/horizon/admin/volume_types/", "volume_types__action_create")
    admin.fill(name=name)
    admin.submit()
    found = cloud.admin.block_storage.find_type(name, ignore_missing=False)
    assert name in admin.page.inner_text("#volume_types")
    cloud.admin.block_storage.delete_type(found)
