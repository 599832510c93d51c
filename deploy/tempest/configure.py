"""configure.py STATE: writes the Tempest workspace STATE/tempest for the cloud that runs from STATE.

What a cloud has is asked from the cloud (versions, extensions, flavors, images); what Wolke does not have is switched
off here, so that Tempest skips it. A second image is uploaded, because some tests tell servers apart by their image.
"""

import configparser
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

import yaml

state = pathlib.Path(sys.argv[1]).resolve()
root = pathlib.Path(__file__).resolve().parents[2]
osctl = next(path for path in (root / ".build" / name / "osctl" for name in (os.environ.get("CONFIGURATION", "release"), "release", "debug"))
             if path.exists())
cloud = yaml.safe_load((state / "clouds.yaml").read_text())["clouds"]["wolke-admin"]
auth = cloud["auth"]
identity = auth["auth_url"].rstrip("/")


def call(method, url, body=None, headers=None, raw=False):
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer, got = response.read(), response.headers
    except urllib.error.HTTPError as error:
        if error.code != 300:
            sys.exit(f"configure.py: {method} {url}: {error.code} {error.read().decode(errors='replace')[:300]}")
        answer, got = error.read(), error.headers
    except urllib.error.URLError as error:
        sys.exit(f"configure.py: no cloud answers at {url}: {error.reason}")
    return (answer if raw else json.loads(answer or b"{}")), got


token, headers = call("POST", f"{identity}/auth/tokens", {"auth": {
    "identity": {"methods": ["password"], "password": {"user": {
        "name": auth["username"], "password": auth["password"], "domain": {"id": auth["user_domain_id"]}}}},
    "scope": {"project": {"name": auth["project_name"], "domain": {"id": auth["project_domain_id"]}}},
}})
tokens = {"X-Auth-Token": headers["X-Subject-Token"]}
urls = {service["type"]: next(e["url"] for e in service["endpoints"] if e["interface"] == "public")
        for service in token["token"]["catalog"]}
# By the OpenStack project to which the settings belong; without optional services that this cloud does not have.
services = {service["project"]: service for service in json.loads(subprocess.run(
    [osctl, "cloud", "services", "-o", "json", "--state", state], check=True, capture_output=True, text=True).stdout)["services"]
    if service["is_present"]}
base = {project: urls[service["catalog"][0]["type"]].rstrip("/") for project, service in services.items()}


def get(url):
    return call("GET", url, headers=tokens)[0]


def versions(url):
    """The lowest and the highest microversion."""
    documents = call("GET", url + "/")[0]
    document = (documents.get("versions") or [documents.get("version")])[-1]
    return document["min_version"], document.get("version") or document.get("max_version")


# Servers can only move if there is a second host.
host_count = sum(
    service["binary"] == "nova-compute" and service["state"] == "up" for service in get(base["nova"] + "/os-services")["services"])


def second_image():
    images = {item["name"]: item for item in get(base["glance"] + "/v2/images?limit=1000")["images"] if item["status"] == "active"}
    first = images.get("guest") or sys.exit("configure.py: the cloud has no image named guest")
    if "guest-2" not in images:
        data = call("GET", base["glance"] + f"/v2/images/{first['id']}/file", headers=tokens, raw=True)[0]
        made = call("POST", base["glance"] + "/v2/images", {
            "name": "guest-2", "visibility": "public", "disk_format": first["disk_format"],
            "container_format": first["container_format"], "min_disk": first["min_disk"], "min_ram": first["min_ram"],
        }, tokens)[0]
        call("PUT", base["glance"] + f"/v2/images/{made['id']}/file", data, {**tokens, "Content-Type": "application/octet-stream"})
        images["guest-2"] = made
    return first["id"], images["guest-2"]["id"]


def multiattach_type():
    """The name of a volume type for volumes that several servers share."""
    name = "multiattach"
    if name not in {item["name"] for item in get(base["cinder"] + "/types?is_public=None")["volume_types"]}:
        call("POST", base["cinder"] + "/types", {"volume_type": {"name": name, "extra_specs": {"multiattach": "<is> True"}}}, tokens)
    return name


def disk_images():
    """Writes one small image of each format, and some that must not be used; returns the path of Tempest's list of them."""
    directory = work / "images"
    directory.mkdir(parents=True, exist_ok=True)
    # Name, format in the API, format and options of qemu-img, whether it can be used.
    images = [
        ("raw", "raw", "raw", [], True), ("qcow2", "qcow2", "qcow2", [], True), ("vmdk", "vmdk", "vmdk", ["subformat=monolithicSparse"], True),
        ("vmdk-stream", "vmdk", "vmdk", ["subformat=streamOptimized"], True), ("vdi", "vdi", "vdi", [], True),
        ("vhd", "vhd", "vpc", [], True), ("vhdx", "vhdx", "vhdx", [], True),
        ("qcow2-data-file", "qcow2", "qcow2", ["data_file=" + str(directory / "data.raw")], False),
        ("qcow2-backing-file", "qcow2", "qcow2", ["backing_file=/etc/hostname,backing_fmt=raw"], False),
        ("vmdk-flat", "vmdk", "vmdk", ["subformat=monolithicFlat"], False),
    ]
    entries = []
    known = image_schema["disk_format"]["enum"]
    for name, disk_format, kind, options, usable in (image for image in images if image[1] in known):
        path = directory / (name + "." + kind)
        command = ["qemu-img", "create", "-q", "-u", "-f", kind, *[word for option in options for word in ("-o", option)], path, "4M"]
        subprocess.run([str(word) for word in command if word != "-u" or "backing" in name], check=True)
        entries.append({"name": name, "filename": path.name, "format": disk_format, "usable": usable})
    manifest = directory / "manifest.yaml"
    manifest.write_text(yaml.safe_dump({"images": entries}))
    return manifest


def has_image_cache():
    request = urllib.request.Request(base["glance"] + "/v2/cache", headers=tokens)
    try:
        with urllib.request.urlopen(request, timeout=60):
            return True
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise


flavors = {item["name"]: item["id"] for item in get(base["nova"] + "/flavors")["flavors"]}
external = get(base["neutron"] + "/v2.0/networks?router:external=true")["networks"][0]
aliases = [item["alias"] for item in get(base["neutron"] + "/v2.0/extensions")["extensions"]]
volume_aliases = [item["alias"] for item in get(base["cinder"] + "/extensions")["extensions"]]
compute_versions, placement_versions = versions(base["nova"]), versions(base["placement"])
volume_versions = versions(base["cinder"].split("/v3")[0] + "/v3")
image_id, second_image_id = second_image()
image_schema = get(base["glance"] + "/v2/schemas/image")["properties"]
work = state / "tempest"
guest = state / "images" / "guest.qcow2"

# Booleans keep their type; other values are text.
settings = {
    "DEFAULT": {"log_file": work / "tempest.log", "state_path": work, "use_stderr": False},
    "oslo_concurrency": {"lock_path": work / "lock"},
    "auth": {
        "use_dynamic_credentials": True, "admin_username": auth["username"], "admin_password": auth["password"],
        "admin_project_name": auth["project_name"], "admin_domain_name": "Default",
        "default_credentials_domain_name": "Default", "tempest_roles": "member", "create_isolated_networks": True,
    },
    "identity": {
        "uri_v3": identity, "auth_version": "v3", "region": cloud["region_name"], "v3_endpoint_type": "public",
    },
    "identity-feature-enabled": {
        "api_v2": False, "api_v3": True, "application_credentials": True, "access_rules": True, "project_tags": True,
        "trust": False, "federation": False, "security_compliance": False, "domain_specific_drivers": False,
    },
    "service_available": {**{service["project"]: True for service in services.values()}, "swift": False, "horizon": False},
    "compute": {
        "image_ref": image_id, "image_ref_alt": second_image_id, "flavor_ref": flavors["m1.nano"],
        "flavor_ref_alt": flavors["m1.tiny"], "min_microversion": compute_versions[0],
        "max_microversion": compute_versions[1], "build_timeout": 300, "build_interval": 1, "min_compute_nodes": host_count,
    },
    "compute-feature-enabled": {
        "console_output": True, "config_drive": True, "interface_attach": True, "pause": True, "suspend": True,
        "resize": True, "rescue": True, "stable_rescue": True, "shelve": True, "snapshot": True,
        "live_migration": host_count > 1, "block_migration_for_live_migration": host_count > 1, "cold_migration": host_count > 1, "vnc_console": True, "serial_console": True,
        "spice_console": False, "personality": True, "swap_volume": True, "change_password": False,
        "attach_encrypted_volume": False, "volume_multiattach": True,
        "volume_backed_live_migration": host_count > 1, "unified_limits": False,
    },
    "network": {"public_network_id": external["id"], "floating_network_name": external["name"], "project_networks_reachable": False},
    "network-feature-enabled": {
        "ipv6": True, "ipv6_subnet_attributes": True, "floating_ips": True, "port_security": True,
        "port_admin_state_change": True, "api_extensions": ",".join(aliases),
    },
    "image": {
        "build_timeout": 120, "disk_formats": ",".join(name for name in image_schema["disk_format"]["enum"] if name),
        "container_formats": ",".join(sorted(
            (name for name in image_schema["container_format"]["enum"] if name), key=lambda name: name != "bare")),
        "image_caching_enabled": has_image_cache(), "images_manifest_file": disk_images(),
    },
    "image-feature-enabled": {
        "import_image": True, "image_format_enforcement": True, "os_glance_reserved": True,
        # No API tells it: it is on if this script has the variable with which the cloud was started.
        "image_conversion": os.environ.get("WOLKE_IMAGE_IMPORT_FORMAT", "unchanged") != "unchanged",
    },
    "volume": {
        "build_timeout": 120, "storage_protocol": "file", "vendor_name": "Wolke", "min_microversion": volume_versions[0],
        "max_microversion": volume_versions[1], "backend_names": "file", "volume_type_multiattach": multiattach_type(),
    },
    "volume-feature-enabled": {
        "snapshot": True, "clone": True, "volume_services": True, "backup": False, "manage_volume": False,
        "manage_snapshot": False, "multi_backend": False, "consistency_group": False, "extend_attached_volume": False,
        "volume_revert": False, "volume_image_dep_tests": True, "api_extensions": ",".join(volume_aliases),
    },
    "scenario": {"target_dir": "/disk", "img_file": guest, "img_disk_format": "qcow2", "img_container_format": "bare"},
    "placement": {"min_microversion": placement_versions[0], "max_microversion": placement_versions[1]},
    "validation": {
        "connect_method": "floating", "image_ssh_user": "root", "image_alt_ssh_user": "root", "ping_timeout": 120,
        "ssh_timeout": 180, "ssh_key_type": "ecdsa",
    },
}


def write(name, run_validation):
    parser = configparser.RawConfigParser()
    for section, options in settings.items():
        if section != "DEFAULT":
            parser.add_section(section)
        for option, value in options.items():
            parser.set(section, option, str(value).lower() if isinstance(value, bool) else str(value))
    parser.set("validation", "run_validation", str(run_validation).lower())
    path = work / "etc" / name
    path.touch(mode=0o600)
    with path.open("w") as file:
        parser.write(file)


for directory in (work / "etc", work / "lock"):
    directory.mkdir(parents=True, exist_ok=True)
# The scenario tests log in to guests; the API tests do not need to, which saves most of their time.
write("tempest.conf", False)
write("scenario.conf", True)
# The guideline has tests of lists that upload random bytes in every format. Those of the format raw cannot be told from an image.
settings["image"]["disk_formats"] = "raw"
settings["image-feature-enabled"]["image_format_enforcement"] = False
write("interop.conf", True)
package = pathlib.Path(importlib.util.find_spec("tempest").origin).parent
(work / ".stestr.conf").write_text(
    f"[DEFAULT]\ntest_path={package}/test_discover\ntop_dir={package}\ngroup_regex=([^\\.]*\\.)*\n")
print(f"Tempest: {work}/etc/tempest.conf for {identity}")
