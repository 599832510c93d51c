"""S10, S4: every identifier of every request, with another project's resource.

The victim has one of everything. The attacker, a member of another project with one of everything too, names the victim's
things wherever a path or a body takes an identifier: each is refused with 4xx, and afterwards the victim has and uses what
it had before, and the attacker sees and has nothing new. `test_every_identifier_is_attacked` compares the table below with
the OpenAPI documents of all services, so that a new identifier in a body cannot be forgotten.

The documents do not have query parameters. So every list and every report (limits, quotas, usage) is asked with each of the
parameters that name a project or a user somewhere: what comes back has nothing of the victim's.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import requests
import yaml

import crossproject
import servicelist
from contractapi import unique, wait

spec = importlib.util.spec_from_file_location("contract_conftest", Path(__file__).parents[1] / "contract" / "conftest.py")
contract = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contract)

# The words in front are the services' roots in the OpenAPI documents; <x> is the attacker's own, <!x> the victim's.
BDM = {"boot_index": 1, "destination_type": "volume", "delete_on_termination": True}


def server(**changes):
    return {"server": {"name": "x", "imageRef": "<image>", "flavorRef": "<flavor>", "networks": "none", **changes}}


def device(**changes):
    return server(block_device_mapping_v2=[{**BDM, **changes}])


# Service, method, path, body with the victim's resources. If `control` is set, the same request with the attacker's own resources
# is accepted, which shows that the victim's resource is the reason for the refusal.
CASES = [
    ("network", "POST", "/subnets", {"subnet": {"network_id": "<!network>", "ip_version": 4, "cidr": "10.7.0.0/24"}}),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "<network>", "ip_version": 4, "cidr": "10.7.0.0/24", "project_id": "<!project>"}}),
    ("network", "POST", "/subnets", {"subnet": {"network_id": "<network>", "ip_version": 4, "cidr": "10.7.0.0/24", "tenant_id": "<!project>"}}),
    ("network", "POST", "/networks", {"network": {"project_id": "<!project>"}}),
    ("network", "POST", "/networks", {"network": {"tenant_id": "<!project>"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<!network>"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<network>", "project_id": "<!project>"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<network>", "tenant_id": "<!project>"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<network>", "security_groups": ["<!group>"]}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<network>", "fixed_ips": [{"subnet_id": "<!subnet>"}]}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<!shared>", "fixed_ips": [{"ip_address": "10.99.0.77"}]}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<!shared>", "fixed_ips": [{"ip_address": "10.99.0.1"}]}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<!shared>", "mac_address": "fa:16:3e:12:34:56"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<!shared>", "port_security_enabled": False}}),
    ("network", "PUT", "/ports/<port>", {"port": {"security_groups": ["<!group>"]}}),
    ("network", "PUT", "/ports/<port>", {"port": {"fixed_ips": [{"subnet_id": "<!subnet>"}]}}),
    ("network", "PUT", "/ports/<port>", {"port": {"binding:host_id": "host"}}),
    ("network", "POST", "/ports", {"port": {"network_id": "<network>", "binding:host_id": "host"}}),
    ("network", "POST", "/routers", {"router": {"external_gateway_info": {"network_id": "<!network>"}}}),
    ("network", "POST", "/routers", {"router": {"project_id": "<!project>"}}),
    ("network", "POST", "/routers", {"router": {"tenant_id": "<!project>"}}),
    ("network", "POST", "/routers", {"router": {"external_gateway_info": {"network_id": "<public>", "external_fixed_ips": [{"subnet_id": "<!subnet>"}]}}}),
    ("network", "PUT", "/routers/<router>", {"router": {"external_gateway_info": {"network_id": "<!network>"}}}),
    ("network", "PUT", "/routers/<router>",
        {"router": {"external_gateway_info": {"network_id": "<public>", "external_fixed_ips": [{"subnet_id": "<!subnet>"}]}}}),
    ("network", "PUT", "/routers/<router>/add_router_interface", {"subnet_id": "<!subnet>"}),
    ("network", "PUT", "/routers/<router>/add_router_interface", {"port_id": "<!port>"}),
    ("network", "PUT", "/routers/<router>/remove_router_interface", {"subnet_id": "<!subnet>"}),
    ("network", "PUT", "/routers/<router>/remove_router_interface", {"port_id": "<!port>"}),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": "<!network>"}}),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": "<public>", "subnet_id": "<!subnet>"}}),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": "<public>", "port_id": "<!port>"}}),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": "<public>", "project_id": "<!project>"}}),
    ("network", "POST", "/floatingips", {"floatingip": {"floating_network_id": "<public>", "tenant_id": "<!project>"}}),
    ("network", "PUT", "/floatingips/<floatingip>", {"floatingip": {"port_id": "<!port>"}}),
    ("network", "POST", "/security-groups", {"security_group": {"name": "x", "project_id": "<!project>"}}),
    ("network", "POST", "/security-groups", {"security_group": {"name": "x", "tenant_id": "<!project>"}}),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "<!group>", "direction": "ingress"}}),
    ("network", "POST", "/security-group-rules",
        {"security_group_rule": {"security_group_id": "<group>", "direction": "ingress", "remote_group_id": "<!group>"}}),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "<group>", "direction": "ingress", "project_id": "<!project>"}}),
    ("network", "POST", "/security-group-rules", {"security_group_rule": {"security_group_id": "<group>", "direction": "ingress", "tenant_id": "<!project>"}}),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "snapshot_id": "<!snapshot>"}}),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "source_volid": "<!volume>"}}),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "imageRef": "<!image>"}}),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "image_id": "<!image>"}}),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "volume_type": "<!volume_type>"}}),
    ("volume", "POST", "/volumes", {"volume": {"size": 1, "project_id": "<!project>"}}),
    ("volume", "POST", "/snapshots", {"snapshot": {"volume_id": "<!volume>"}}),
    ("volume", "POST", "/attachments", {"attachment": {"volume_uuid": "<!volume>", "instance_uuid": "<server>"}}),
    ("volume", "POST", "/attachments", {"attachment": {"volume_uuid": "<volume>", "instance_uuid": "<!server>"}}),
    ("volume", "POST", "/volumes/<volume>/action", {"os-retype": {"new_type": "<!volume_type>"}}),
    ("volume", "POST", "/volumes/<volume>/action", {"os-attach": {"instance_uuid": "<!server>", "mountpoint": "/dev/vdx"}}),
    ("image", "POST", "/images", {"name": "x", "owner": "<!project>"}),
    ("image", "PATCH", "/images/<image_own>", [{"op": "replace", "path": "/owner", "value": "<!project>"}]),
    ("compute", "POST", "/servers", server(imageRef="<!image>")),
    ("compute", "POST", "/servers", server(flavorRef="<!flavor>")),
    ("compute", "POST", "/servers", server(key_name="<!keypair>")),
    ("compute", "POST", "/servers", server(networks=[{"uuid": "<!network>"}])),
    ("compute", "POST", "/servers", server(networks=[{"port": "<!port>"}])),
    ("compute", "POST", "/servers", server(networks=[{"uuid": "<!shared>", "fixed_ip": "10.99.0.77"}])),
    ("compute", "POST", "/servers", server(networks=[{"uuid": "<!shared>", "fixed_ip": "10.99.0.1"}])),
    ("compute", "POST", "/servers", server(networks=[{"uuid": "<network>"}], security_groups=[{"name": "<!group>"}])),
    ("compute", "POST", "/servers", device(source_type="snapshot", uuid="<!snapshot>", volume_size=1)),
    ("compute", "POST", "/servers", device(source_type="volume", uuid="<!volume>")),
    ("compute", "POST", "/servers", device(source_type="image", uuid="<!image>", volume_size=1)),
    ("compute", "POST", "/servers", device(source_type="blank", volume_size=1, volume_type="<!volume_type>")),
    ("compute", "POST", "/servers", {"server": {"name": "x", "flavorRef": "<flavor>", "networks": "none", "block_device_mapping_v2": [
        {**BDM, "boot_index": 0, "source_type": "snapshot", "uuid": "<!snapshot>"}]}}),
    ("compute", "POST", "/servers", {"server": {"name": "x", "flavorRef": "<flavor>", "networks": "none", "block_device_mapping_v2": [
        {**BDM, "boot_index": 0, "source_type": "volume", "uuid": "<!volume>"}]}}),
    ("compute", "POST", "/servers", {**server(), "os:scheduler_hints": {"group": "<!server_group>"}}),
    ("compute", "POST", "/servers", {**server(), "os:scheduler_hints": {"same_host": "<!server>"}}),
    ("compute", "POST", "/servers", {**server(), "os:scheduler_hints": {"different_host": ["<!server>"]}}),
    ("volume", "POST", "/volumes", {"volume": {"size": 1}, "OS-SCH-HNT:scheduler_hints": {"same_host": "<!volume>"}}),
    ("compute", "POST", "/servers", {**server(), "OS-SCH-HNT:scheduler_hints": {"group": "<!server_group>"}}),
    ("compute", "POST", "/servers/<server>/os-interface", {"interfaceAttachment": {"net_id": "<!network>"}}),
    ("compute", "POST", "/servers/<server>/os-interface", {"interfaceAttachment": {"port_id": "<!port>"}}),
    ("compute", "POST", "/servers/<server>/os-interface", {"interfaceAttachment": {"net_id": "<!shared>", "fixed_ips": [{"ip_address": "10.99.0.77"}]}}),
    ("compute", "POST", "/servers/<server>/os-interface", {"interfaceAttachment": {"net_id": "<!shared>", "fixed_ips": [{"ip_address": "10.99.0.1"}]}}),
    ("compute", "DELETE", "/servers/<server>/os-interface/<!port>", None),
    ("compute", "POST", "/servers/<server>/os-volume_attachments", {"volumeAttachment": {"volumeId": "<!volume>"}}),
    ("compute", "DELETE", "/servers/<server>/os-volume_attachments/<!volume>", None),
    ("compute", "POST", "/servers/<server>/action", {"addSecurityGroup": {"name": "<!group>"}}),
    ("compute", "POST", "/servers/<server>/action", {"removeSecurityGroup": {"name": "<!group>"}}),
    ("compute", "POST", "/servers/<server>/action", {"rebuild": {"imageRef": "<!image>"}}),
    ("compute", "POST", "/servers/<server>/action", {"rescue": {"rescue_image_ref": "<!image>"}}),
    ("compute", "POST", "/servers/<server>/action", {"resize": {"flavorRef": "<!flavor>"}}),
    ("compute", "POST", "/os-keypairs", {"keypair": {"name": "x", "public_key": "<key>", "user_id": "<!user>"}}),
    ("identity", "POST", "/users/<!user>/application_credentials", {"application_credential": {"name": "x"}}),
    ("identity", "POST", "/users/<user>/application_credentials", {"application_credential": {"name": "x", "project_id": "<!project>"}}),
    ("identity", "POST", "/users/<user>/application_credentials", {"application_credential": {"name": "x", "roles": [{"id": "<!role>"}]}}),
    ("identity", "POST", "/users/<user>/application_credentials",
        {"application_credential": {"name": "x", "access_rules": [{"id": "<!access_rule>"}]}}),
    ("identity", "POST", "/credentials", {"credential": {"type": "cert", "blob": "x", "user_id": "<!user>"}}),
    ("identity", "PATCH", "/users/<user>", {"user": {"default_project_id": "<!project>"}}),
    ("identity", "PATCH", "/users/<!user>", {"user": {"name": "x"}}),
    ("identity", "POST", "/projects", {"project": {"name": "x", "domain_id": "default", "parent_id": "<!project>"}}),
    ("identity", "POST", "/projects", {"project": {"name": "x", "domain_id": "<!domain>"}}),
    ("identity", "POST", "/users", {"user": {"name": "x", "domain_id": "<!domain>", "default_project_id": "<!project>"}}),
    ("identity", "POST", "/groups", {"group": {"name": "x", "domain_id": "<!domain>"}}),
    ("identity", "POST", "/roles", {"role": {"name": "x", "domain_id": "<!domain>"}}),
    ("identity", "POST", "/auth/tokens",
        {"auth": {"identity": {"methods": ["token"], "token": {"id": "<token>"}}, "scope": {"domain": {"id": "<!domain>"}}}}),
    ("identity", "POST", "/auth/tokens",
        {"auth": {"identity": {"methods": ["password"], "password": {"user": {"id": "<!user>", "password": "x"}}}}}),
    ("identity", "POST", "/auth/tokens",
        {"auth": {"identity": {"methods": ["application_credential"], "application_credential": {"id": "<!application_credential>", "secret": "x"}}}}),
    ("identity", "POST", "/auth/tokens",
        {"auth": {"identity": {"methods": ["token"], "token": {"id": "<token>"}}, "scope": {"project": {"id": "<!project>"}}}}),
    ("placement", "PUT", "/allocations/<!server>",
        {"allocations": {}, "project_id": "<project>", "user_id": "<user>", "consumer_generation": None, "consumer_type": "INSTANCE"}),
    ("placement", "DELETE", "/allocations/<!server>", None),
    ("baremetal", "POST", "/ports", {"node_uuid": "<!node>", "address": "52:54:00:66:00:01"}),
    ("baremetal", "POST", "/ports", {"node_uuid": "<!node>", "portgroup_uuid": "<!port_group>", "address": "52:54:00:66:00:02"}),
    ("baremetal", "POST", "/portgroups", {"node_uuid": "<!node>"}),
    ("baremetal", "POST", "/allocations", {"resource_class": "absent", "owner": "<!project>"}),
    ("baremetal", "POST", "/allocations", {"resource_class": "absent", "uuid": "<!allocation>"}),
]

# Responses to these requests with the attacker's own resources, which show that the victim's resource is the reason for the
# refusal.
CONTROLS = [
    ("compute", "/os-wolke-scheduling", server()),
    ("compute", "/os-wolke-scheduling",
        server(networks=[{"uuid": "<network>", "fixed_ip": "10.77.0.77"}], security_groups=[{"name": "<group>"}], key_name="<keypair>")),
    ("compute", "/os-wolke-scheduling", server(networks=[{"uuid": "<!shared>"}])),
    ("compute", "/os-wolke-scheduling", server(networks=[{"port": "<port>"}])),
    ("compute", "/os-wolke-scheduling", device(source_type="snapshot", uuid="<snapshot>", volume_size=1)),
    ("compute", "/os-wolke-scheduling", device(source_type="volume", uuid="<volume>")),
    ("compute", "/os-wolke-scheduling", device(source_type="image", uuid="<image_own>", volume_size=1)),
    ("compute", "/os-wolke-scheduling", {**server(), "os:scheduler_hints": {"group": "<server_group>"}}),
    ("compute", "/os-wolke-scheduling", {**server(), "os:scheduler_hints": {"different_host": ["<server>"]}}),
]

# Identifiers of things that projects do not have, or that this cloud always refuses.
EXEMPT = {
    "device_id": "a port's text about its user; nothing is looked up by it",
    "consistencygroup_id": "refused: there is none", "group_id": "refused: there is none", "backup_id": "refused: there is none",
    "provider_id": "the operator's", "user_id": "ignored by Cinder, or the operator's",
    "destination_type": "a word", "source_type": "a word", "device_type": "a word", "backup_type": "a word", "provider:network_type": "the operator's",
    "provider:segmentation_id": "the operator's", "binding:host_id": "the operator's", "serverId": "the server of the path",
    "member": "a project that an image is shared with, of whichever one", "attachment_id": "of os-detach, which is the services' own",
    "type": "a word", "content_type": "a word", "vnic_type": "a word", "binding:vnic_type": "a word",
}

# Query parameters that name a project or a user in some list, and those that extend lists to all projects.
QUERIES = {
    "project_id": "project", "tenant_id": "project", "tenant": "project", "owner": "project", "user_id": "user",
    "scope.project.id": "project", "user.id": "user",
}
ALL = ["all_tenants", "all_projects"]

# Reports of one project, which must be refused for another one, or be about the caller's own.
REPORTS = [
    ("compute", "/limits?tenant_id=<!project>"), ("compute", "/os-simple-tenant-usage/<!project>"),
    ("compute", "/os-quota-sets/<!project>"), ("compute", "/os-quota-sets/<!project>/detail"),
    ("compute", "/os-quota-sets/<project>?user_id=<!user>"), ("compute", "/os-keypairs?user_id=<!user>"),
    ("compute", "/os-keypairs/<!keypair>?user_id=<!user>"), ("compute", "/servers?tenant_id=<!project>&all_tenants=1"),
    ("volume", "/limits?project_id=<!project>"), ("volume", "/os-quota-sets/<!project>?usage=True"),
    ("volume", "/volumes?project_id=<!project>&all_tenants=1"), ("volume", "/snapshots?project_id=<!project>&all_tenants=1"),
    ("network", "/quotas/<!project>"), ("network", "/quotas/<!project>/details.json"),
    ("image", "/images?owner=<!project>"), ("placement", "/usages?project_id=<!project>"),
    ("placement", "/usages?project_id=<!project>&user_id=<!user>"),
    ("identity", "/role_assignments?user.id=<!user>"), ("identity", "/credentials?user_id=<!user>"),
]

MARK = 47_110_815
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmM4HVkmAMsHtvH5uqx9rNJH6pFR7B1YvNJ2rjaT2vY x"


def one_of_everything(api, admin, guest, nano, public, cidr, prefix):
    """The ids of one resource of each kind."""
    ok = api.ok
    created = {"project": api.project_id, "user": api.user_id, "token": api.token, "key": KEY, "public": public}
    created["network"] = ok(api.post("network", "/networks", {"network": {"name": unique(prefix)}}), 201)["network"]["id"]
    created["subnet"] = ok(api.post("network", "/subnets", {"subnet": {"network_id": created["network"], "ip_version": 4, "cidr": cidr}}), 201)["subnet"]["id"]
    created["port"] = ok(api.post("network", "/ports", {"port": {"network_id": created["network"]}}), 201)["port"]["id"]
    router = {"external_gateway_info": {"network_id": public}}
    created["router"] = ok(api.post("network", "/routers", {"router": router}), 201)["router"]["id"]
    ok(api.put("network", f"/routers/{created['router']}/add_router_interface", {"subnet_id": created["subnet"]}), 200)
    floating = {"floating_network_id": public}
    created["floatingip"] = ok(api.post("network", "/floatingips", {"floatingip": floating}), 201)["floatingip"]["id"]
    group = {"security_group": {"name": unique(prefix)}}
    created["group"] = ok(api.post("network", "/security-groups", group), 201)["security_group"]["id"]
    created["rule"] = ok(api.post("network", "/security-group-rules", {"security_group_rule": {
        "security_group_id": created["group"], "direction": "ingress", "protocol": "tcp"}}), 201)["security_group_rule"]["id"]
    created["keypair"] = unique(prefix)
    ok(api.post("compute", "/os-keypairs", {"keypair": {"name": created["keypair"], "public_key": KEY}}), 200, 201)
    created["server_group"] = ok(api.post("compute", "/os-server-groups", {"server_group": {"name": unique(prefix), "policy": "soft-affinity"}}),
        200)["server_group"]["id"]
    created["image_own"] = ok(api.post("image", "/images", {"name": unique(prefix), "disk_format": "raw", "container_format": "bare"}), 201)["id"]
    ok(api.send("PUT", "image", f"/images/{created['image_own']}/file", data=b"\0" * 65536, headers={"Content-Type": "application/octet-stream"}), 204)
    credential = {"name": unique(prefix), "access_rules": [{"service": "compute", "path": "/v2.1/servers", "method": "GET"}]}
    created["application_credential"] = ok(api.post(
        "identity", f"/users/{api.user_id}/application_credentials", {"application_credential": credential}), 201)["application_credential"]["id"]
    created["access_rule"] = ok(api.get("identity", f"/users/{api.user_id}/access_rules"))["access_rules"][0]["id"]
    created["image"] = guest
    created["flavor"] = nano
    created["volume"] = ok(api.post("volume", "/volumes", {"volume": {"size": 1, "name": unique(prefix)}}), 202)["volume"]["id"]
    wait("the volume is available", lambda: ok(api.get("volume", f"/volumes/{created['volume']}"))["volume"]["status"] == "available")
    created["snapshot"] = ok(api.post("volume", "/snapshots", {"snapshot": {"volume_id": created["volume"]}}), 202)["snapshot"]["id"]
    snapshot = f"/snapshots/{created['snapshot']}"
    wait("the snapshot is available", lambda: ok(api.get("volume", snapshot))["snapshot"]["status"] == "available")
    body = {"server": {"name": unique(prefix), "imageRef": guest, "flavorRef": nano, "networks": [{"uuid": created["network"]}]}}
    created["server"] = ok(api.post("compute", "/servers", body), 202)["server"]["id"]
    wait("the server is built", lambda: ok(api.get("compute", f"/servers/{created['server']}"))["server"]["status"] == "ACTIVE", 300)
    return created


@pytest.fixture(scope="module")
def scene(cloud):
    auth = cloud.admin.config.config["auth"]
    admin = contract.API(auth["auth_url"], auth["username"], auth["password"], auth["project_name"])
    guest = admin.ok(admin.get("image", "/images", params={"name": "guest"}))["images"][0]["id"]
    nano = next(f["id"] for f in admin.ok(admin.get("compute", "/flavors"))["flavors"] if f["name"] == "m1.nano")
    public = admin.ok(admin.get("network", "/networks", params={"router:external": "true"}))["networks"][0]["id"]
    victim, attacker = contract.new_member(admin), contract.new_member(admin)
    own = one_of_everything(attacker, admin, guest, nano, public, "10.77.0.0/24", "attacker")
    theirs = one_of_everything(victim, admin, guest, nano, public, "10.66.0.0/24", "victim")
    theirs["image"] = theirs["image_own"]
    # A network of the victim that everyone may use, and a flavor and a volume type that nobody else may use.
    shared = admin.ok(admin.post("network", "/networks", {"network": {"name": unique("shared"), "shared": True, "project_id": victim.project_id}}),
        201)["network"]
    theirs["shared"] = shared["id"]
    theirs["shared_subnet"] = victim.ok(victim.post(
        "network", "/subnets", {"subnet": {"network_id": shared["id"], "ip_version": 4, "cidr": "10.99.0.0/24"}}), 201)["subnet"]["id"]
    # Resources that only an administrator may have, and numbers by which a report about the victim is recognized.
    theirs["role"] = admin.ok(admin.get("identity", "/roles", params={"name": "admin"}))["roles"][0]["id"]
    theirs["domain"] = "default"
    for service, path, body in (
        ("compute", "/os-quota-sets", {"quota_set": {"cores": MARK, "ram": MARK}}),
        ("volume", "/os-quota-sets", {"quota_set": {"gigabytes": MARK}}), ("network", "/quotas", {"quota": {"port": MARK}}),
    ):
        admin.ok(admin.put(service, f"{path}/{victim.project_id}", body), 200)
    flavor = {"name": unique("victim"), "ram": 128, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": False}
    theirs["flavor"] = admin.ok(admin.post("compute", "/flavors", {"flavor": flavor}), 200)["flavor"]["id"]
    admin.ok(admin.post("compute", f"/flavors/{theirs['flavor']}/action", {"addTenantAccess": {"tenant": victim.project_id}}), 200)
    kind = admin.ok(admin.post("volume", "/types", {"volume_type": {"name": unique("victim"), "os-volume-type-access:is_public": False}}), 200)
    theirs["volume_type"] = kind["volume_type"]["id"]
    admin.ok(admin.post("volume", f"/types/{theirs['volume_type']}/action", {"addProjectAccess": {"project": victim.project_id}}), 202)
    # A machine that is the victim's, and a claim to one.
    node = {"driver": "fake-hardware", "name": unique("victim"), "owner": victim.project_id}
    theirs["node"] = admin.ok(admin.post("baremetal", "/nodes", node), 201)["uuid"]
    theirs["port_group"] = admin.ok(admin.post("baremetal", "/portgroups", {"node_uuid": theirs["node"]}), 201)["uuid"]
    theirs["allocation"] = admin.ok(
        admin.post("baremetal", "/allocations", {"resource_class": "absent", "owner": victim.project_id}), 201)["uuid"]
    reader = another_user(admin, victim, "reader")
    yield {"admin": admin, "victim": victim, "attacker": attacker, "reader": reader, "own": own, "theirs": theirs}
    contract.close(victim, admin)
    contract.close(attacker, admin)
    for path in (f"/allocations/{theirs['allocation']}", f"/portgroups/{theirs['port_group']}", f"/nodes/{theirs['node']}"):
        admin.delete("baremetal", path)
    admin.delete("identity", f"/users/{reader.user_id}")
    admin.delete("compute", f"/flavors/{theirs['flavor']}")
    admin.delete("volume", f"/types/{theirs['volume_type']}")


def another_user(admin, member, role):
    """A user with another role in the member's project."""
    name, password = unique("user"), unique("pw") + unique()
    user = admin.ok(admin.post("identity", "/users", {"user": {"name": name, "password": password, "domain_id": "default"}}), 201)["user"]
    found = admin.ok(admin.get("identity", "/roles", params={"name": role}))["roles"][0]["id"]
    admin.ok(admin.put("identity", f"/projects/{member.project_id}/users/{user['id']}/roles/{found}"), 204)
    return contract.API(member.auth_url, name, password, member.project)


def state(api):
    """All resources and usage of a project, without values that change by themselves."""
    return {
        "inventory": api.inventory(), "usage": api.usage(),
        "attachments": api.ok(api.get("volume", "/attachments"))["attachments"],
        "ports": sorted((p["id"], p["device_id"], json.dumps(p["fixed_ips"]), json.dumps(p["security_groups"])) for p in api.ok(api.get("network", "/ports"))["ports"]),
        "volumes": sorted((v["id"], v["name"], json.dumps(v["metadata"])) for v in api.ok(api.get("volume", "/volumes/detail"))["volumes"]),
        "servers": sorted((s["id"], s["name"], s["status"], json.dumps(s["metadata"])) for s in api.ok(api.get("compute", "/servers/detail"))["servers"]),
        "images": sorted((i["id"], i["name"], i["visibility"], i["owner"]) for i in api.ok(api.get("image", "/images"))["images"]),
    }


def names(scene):
    return {**scene["own"], **{"!" + name: value for name, value in scene["theirs"].items()}}


def send(api, scene, service, method, path, body, **options):
    known = names(scene)
    for name in sorted(known, key=len, reverse=True):
        path = path.replace(f"<{name}>", str(known[name]))
    if service == "image" and method == "PATCH":
        options["headers"] = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
    return api.send(method, service, path, crossproject.fill(body, known), **options)


def test_s10_bodies_with_the_victims_things_are_refused(scene, tally):
    attacker, victim = scene["attacker"], scene["victim"]
    for service, path, body in CONTROLS:
        answer = send(attacker, scene, service, "POST", path, body)
        assert answer.status_code == 200, f"control {body}: {answer.status_code} {answer.text}"
    before = state(attacker), state(victim)
    wrong, sent = [], 0
    for service, method, path, body in CASES:
        requests = [(method, path)]
        if (service, path) == ("compute", "/servers"):
            requests.append(("POST", "/os-wolke-scheduling"))
        for verb, target in requests:
            answer = send(attacker, scene, service, verb, target, body)
            sent += 1
            if not 400 <= answer.status_code < 500:
                wrong.append(f"{verb} {target} {body}: {answer.status_code} {answer.text[:200]}")
    tally(requests=sent, refused=sent - len(wrong))
    assert not wrong, "\n".join(wrong)
    assert (state(attacker), state(victim)) == before


def documents(cloud):
    """The OpenAPI documents, from the operators' ports."""
    place = yaml.safe_load((cloud.state / "wolke.yaml").read_text())["endpoints"]
    for service in servicelist.names():
        port = place[servicelist.service(service)["section"] + "_operator_port"]
        yield service, requests.get(f"http://{place['operator_bind']}:{port}/openapi.json", timeout=30).json()


PARAMETERS = {
    "server_id": "server", "port_id": "port", "volume_id": "volume", "image_id": "image", "snapshot_id": "snapshot",
    "keypair_name": "keypair", "group_id": "server_group", "flavor_id": "flavor", "type_id": "volume_type", "volume_type_id": "volume_type",
    "project_id": "project", "tenant_id": "project", "user_id": "user", "network_id": "network", "subnet_id": "subnet", "router_id": "router",
    "floatingip_id": "floatingip", "security_group_id": "group", "security_group_rule_id": "rule", "consumer_uuid": "server",
}
COLLECTIONS = {
    "networks": "network", "subnets": "subnet", "ports": "port", "routers": "router", "floatingips": "floatingip", "security-groups": "group",
    "security-group-rules": "rule", "servers": "server", "volumes": "volume", "snapshots": "snapshot", "images": "image", "users": "user",
    "projects": "project", "types": "volume_type", "flavors": "flavor", "os-server-groups": "server_group", "quotas": "project",
    "os-quota-sets": "project", "os-keypairs": "keypair", "allocations": "server",
}


def address(path, theirs):
    """The path with the victim's resources; None if it contains none."""
    words, hit = path.strip("/").split("/"), False
    for index, word in enumerate(words):
        if not word.startswith("{"):
            continue
        name = word[1:-1]
        kind = COLLECTIONS.get(words[index - 1] if index else "") or PARAMETERS.get(name)
        if index and words[index - 1].startswith("v3") and name == "project_id":
            words[index] = "<attacker>"
            continue
        hit = hit or kind is not None
        words[index] = str(theirs.get(kind, "00000000-0000-4000-8000-000000000000"))
    return "/" + "/".join(words) if hit else None


@pytest.mark.parametrize("who", ["attacker", "reader"])
def test_s4_paths_to_the_victims_things_are_refused(cloud, scene, tally, who):
    """The attacker can access nothing through a path; a reader of the victim's own project can change nothing."""
    caller, victim, theirs = scene[who], scene["victim"], scene["theirs"]
    before = state(victim)
    # Resources that everyone may see or change for themselves, regardless of the path.
    own = {"identity:get_domain", "identity:list_domains", "os_compute_api:os-quota-sets:defaults", "os_compute_api:os-keypairs:delete",
        "os_compute_api:os-keypairs:create"}
    wrong, sent = [], 0
    for service, document in documents(cloud):
        for path, item in sorted(document["paths"].items()):
            for method, operation in item.items():
                if operation.get("x-policy-action") in own or "x-policy-action" not in operation:
                    continue
                if who == "reader" and method in ("get", "head"):
                    continue
                target = address(path, theirs)
                if target is None:
                    continue
                target = target.replace("<attacker>", caller.project_id)
                schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
                bodies = [crossproject.sample(choice) for choice in (schema.get("oneOf") or [schema])] if schema else [None]
                for body in bodies:
                    # An action that only reads.
                    if who == "reader" and "os-show_image_metadata" in (body or {}):
                        continue
                    options = {}
                    if service == "image" and method == "patch":
                        body, options = [{"op": "replace", "path": "/name",
                            "value": "stolen"}], {"headers": {"Content-Type": "application/openstack-images-v2.1-json-patch"}}
                    answer = caller.send(method.upper(), service, target, body, root=True, **options)
                    sent += 1
                    # 501: refused for everyone.
                    if not (400 <= answer.status_code < 500 or answer.status_code == 501):
                        wrong.append(f"{method.upper()} {path} {body}: {answer.status_code} {answer.text[:200]}")
    tally(requests=sent, refused=sent - len(wrong))
    assert not wrong, "\n".join(wrong)
    assert state(victim) == before


# Links repeat the request; everyone can see the network that the victim shares.
def own_words(value, scene):
    """The texts and numbers of a response, without links and shared resources."""
    if isinstance(value, dict):
        if value.get("id") in (scene["theirs"]["shared"], scene["theirs"]["shared_subnet"]):
            return
        for name, inner in value.items():
            if "links" not in name and name not in ("next", "first", "self", "href"):
                yield from own_words(inner, scene)
    elif isinstance(value, list):
        for inner in value:
            yield from own_words(inner, scene)
    else:
        yield value


def stolen(answer, scene):
    """The victim's data in a response."""
    theirs = scene["theirs"]
    names = ("shared", "shared_subnet", "key", "public", "token", "role", "domain")
    marks = {value: name for name, value in theirs.items() if name not in names} | {MARK: "a limit"}
    if not answer.headers.get("content-type", "").startswith("application/json"):
        return []
    return sorted({str(marks[word]) for word in own_words(answer.json(), scene) if word in marks})


def test_s10_reports_about_the_victim_are_refused(scene, tally):
    known, attacker, wrong, refused = names(scene), scene["attacker"], [], 0
    for service, path in REPORTS:
        for name in sorted(known, key=len, reverse=True):
            path = path.replace(f"<{name}>", str(known[name]))
        answer = attacker.get(service, path)
        refused += 400 <= answer.status_code < 500
        figures = service == "placement" and answer.status_code == 200
        if answer.status_code >= 500 or figures or stolen(answer, scene):
            wrong.append(f"{service} {path}: {answer.status_code} {stolen(answer, scene)} {answer.text[:300]}")
        # Callers with access see the same figures.
        if "user_id=" not in path and "/role_assignments" not in path:
            assert scene["admin"].get(service, path).status_code == 200, path
    tally(requests=len(REPORTS), refused=refused)
    assert not wrong, "\n".join(wrong)


def test_s10_queries_about_the_victim_give_nothing(cloud, scene, scale, tally):
    """Each list with each parameter that names a project or a user; in full size each GET."""
    attacker, own, theirs = scene["attacker"], scene["own"], scene["theirs"]
    wrong, sent, lists = [], 0, 0
    queries = [(name, theirs[kind]) for name, kind in QUERIES.items()] + [(name, "1") for name in ALL]
    for service, document in documents(cloud):
        for path, item in sorted(document["paths"].items()):
            if "get" not in item or "x-policy-action" not in item["get"]:
                continue
            target = path.replace("/v3/{project_id}", f"/v3/{attacker.project_id}")
            if target.count("{") > scale(1, 9) or (scale(True, False) and path.endswith("}")):
                continue
            target = address(target, own) or target
            if "{" in target:
                continue
            plain = attacker.send("GET", service, target, root=True)
            sent += 1
            if plain.status_code != 200:
                continue
            lists += 1
            for name, value in queries:
                answer = attacker.send("GET", service, target, root=True, params={name: value})
                sent += 1
                found = stolen(answer, scene)
                if answer.status_code >= 500 or found:
                    wrong.append(f"{service} {target}?{name}={value}: {answer.status_code} {found} {answer.text[:200]}")
    tally(requests=sent, lists=lists, refused=sent)
    assert lists > 40, lists
    assert not wrong, "\n".join(wrong)


def test_the_queries_would_show_the_victims_things(scene):
    """The victim's own lists contain what `stolen` searches for."""
    victim = scene["victim"]
    for service, path, kind in (
        ("compute", "/servers", "server"), ("compute", "/os-quota-sets/" + victim.project_id, "a limit"), ("network", "/ports", "port"),
        ("volume", "/volumes/detail", "volume"), ("image", "/images", "image"), ("identity", "/auth/projects", "project"),
    ):
        found = stolen(victim.get(service, path), scene)
        assert kind in found, f"{service} {path}: {found}"


def test_every_identifier_is_attacked(cloud, scene):
    """The table of bodies covers every identifier that tenants can send according to the OpenAPI documents."""

    def word(path):
        return path[-2] if path[-1] == "name" else ".".join(path[-2:]) if path[-1] == "id" else path[-1]

    def walk(value, path=()):
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from walk(inner, path + (name,))
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner, path)
        elif isinstance(value, str) and value.startswith("<!"):
            yield word(path)

    covered = {(service, name) for service, _, _, body in CASES if body is not None for name in walk(body)}
    covered |= {("compute", name) for name in ("same_host", "different_host", "group")}
    missing, seen = set(), set()
    for service, document in documents(cloud):
        seen.add(service)
        for where, leaf in crossproject.places(document):
            name = word(tuple(leaf.split(".")))
            if (service, name) not in covered and name not in EXEMPT:
                missing.add(f"{service} {where}: {leaf}")
    assert not missing, "\n".join(sorted(missing))
    assert seen == set(servicelist.names())


SPELLINGS = ["X-Wolke-Subject-Project", "x-wolke-subject-user", "X_WOLKE_SUBJECT_PROJECT", "X-Wolke_Subject-Grounds", "X-Wolke-Subject-Roles"]
LISTS = [
    ("identity", "/users"), ("compute", "/servers"), ("network", "/networks"), ("image", "/images"), ("volume", "/volumes"),
    ("placement", "/resource_providers"), ("baremetal", "/nodes"),
]


@pytest.mark.parametrize("service,path", LISTS)
def test_s6_subject_headers_are_for_services_only(scene, tally, service, path):
    complete = {"X-Wolke-Subject-Project": scene["victim"].project_id, "X-Wolke-Subject-User": scene["victim"].user_id, "X-Wolke-Subject-Grounds": "accepted"}
    forged = [complete] + [{name: scene["victim"].project_id} for name in SPELLINGS]
    callers = [scene["attacker"], scene["reader"], scene["admin"]]
    answers = [caller.get(service, path, headers=headers).status_code for caller in callers for headers in forged]
    tally(requests=len(answers), refused=sum(status == 403 for status in answers))
    assert set(answers) == {403}
