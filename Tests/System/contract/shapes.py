"""The documented members of each object and their types; `...` is any value, a tuple is a choice."""

NoneType = type(None)
text = (str, NoneType)
number = (int, NoneType)

NETWORK = {
    "id": str, "name": str, "description": str, "project_id": str, "tenant_id": str, "status": str, "admin_state_up": bool,
    "shared": bool, "router:external": bool, "mtu": int, "port_security_enabled": bool, "subnets": list, "tags": list,
    "availability_zones": list, "availability_zone_hints": list, "created_at": str, "updated_at": str, "revision_number": int,
    "l2_adjacency": bool,
}
SUBNET = {
    "id": str, "name": str, "description": str, "network_id": str, "project_id": str, "tenant_id": str, "cidr": str,
    "ip_version": int, "gateway_ip": text, "enable_dhcp": bool, "allocation_pools": list, "dns_nameservers": list,
    "host_routes": list, "ipv6_address_mode": text, "ipv6_ra_mode": text, "subnetpool_id": text,
    "tags": list, "created_at": str, "updated_at": str, "revision_number": int,
}
PORT = {
    "id": str, "name": str, "description": str, "network_id": str, "project_id": str, "tenant_id": str, "mac_address": str,
    "fixed_ips": list, "status": str, "admin_state_up": bool, "device_id": str, "device_owner": str, "security_groups": list,
    "port_security_enabled": bool, "allowed_address_pairs": list, "extra_dhcp_opts": list, "binding:vnic_type": str,
    "tags": list, "created_at": str, "updated_at": str, "revision_number": int,
}
ROUTER = {
    "id": str, "name": str, "description": str, "project_id": str, "tenant_id": str, "status": str, "admin_state_up": bool,
    "external_gateway_info": (dict, NoneType), "routes": list, "availability_zones": list, "availability_zone_hints": list,
    "tags": list, "created_at": str, "updated_at": str, "revision_number": int,
}
FLOATING_IP = {
    "id": str, "floating_ip_address": str, "floating_network_id": str, "fixed_ip_address": text, "port_id": text,
    "router_id": text, "status": str, "project_id": str, "tenant_id": str, "description": str, "tags": list,
    "created_at": str, "updated_at": str, "revision_number": int, "port_details": (dict, NoneType),
}
SECURITY_GROUP = {
    "id": str, "name": str, "description": str, "project_id": str, "tenant_id": str, "security_group_rules": list,
    "stateful": bool, "tags": list, "created_at": str, "updated_at": str, "revision_number": int,
}
SECURITY_GROUP_RULE = {
    "id": str, "security_group_id": str, "direction": str, "ethertype": str, "protocol": text, "port_range_min": number,
    "port_range_max": number, "remote_ip_prefix": text, "remote_group_id": text, "description": text, "project_id": str,
    "tenant_id": str, "created_at": str, "updated_at": str, "revision_number": int,
}
VOLUME = {
    "id": str, "name": text, "description": text, "status": str, "size": int, "volume_type": text, "bootable": str,
    "encrypted": bool, "multiattach": bool, "attachments": list, "metadata": dict, "availability_zone": text,
    "snapshot_id": text, "source_volid": text, "created_at": str, "updated_at": text, "user_id": str, "links": list,
    "os-vol-tenant-attr:tenant_id": str, "replication_status": text, "consistencygroup_id": text, "group_id": text,
}
SNAPSHOT = {
    "id": str, "name": text, "description": text, "status": str, "size": int, "volume_id": str, "metadata": dict,
    "created_at": str, "updated_at": text, "os-extended-snapshot-attributes:progress": str,
    "os-extended-snapshot-attributes:project_id": str,
}
IMAGE = {
    "id": str, "name": text, "status": str, "visibility": str, "protected": bool, "os_hidden": bool, "min_disk": int,
    "min_ram": int, "disk_format": text, "container_format": text, "size": number, "virtual_size": number, "checksum": text,
    "os_hash_algo": text, "os_hash_value": text, "owner": text, "tags": list, "created_at": str, "updated_at": str,
    "file": str, "self": str, "schema": str,
}
KEYPAIR = {"name": str, "type": str, "fingerprint": str, "public_key": str}
SERVER_GROUP = {
    "id": str, "name": str, "policy": str, "rules": dict, "members": list, "project_id": str, "user_id": str,
}
FLAVOR = {
    "id": str, "name": str, "vcpus": int, "ram": int, "disk": int, "swap": int, "rxtx_factor": (int, float),
    "OS-FLV-EXT-DATA:ephemeral": int, "OS-FLV-DISABLED:disabled": bool, "os-flavor-access:is_public": bool, "links": list,
    "description": text, "extra_specs": dict,
}
PROJECT = {
    "id": str, "name": str, "domain_id": str, "parent_id": text, "enabled": bool, "is_domain": bool, "description": str,
    "tags": list, "links": dict, "options": dict,
}
USER = {
    "id": str, "name": str, "domain_id": str, "enabled": bool, "links": dict, "options": dict, "password_expires_at": text,
}
ROLE = {"id": str, "name": str, "domain_id": text, "links": dict, "options": dict}
DOMAIN = {"id": str, "name": str, "enabled": bool, "description": str, "links": dict, "tags": list, "options": dict}

SERVER = {
    "id": str, "name": str, "status": str, "tenant_id": str, "user_id": str, "created": str, "updated": str, "metadata": dict,
    "hostId": str, "image": (dict, str), "flavor": dict, "addresses": dict, "links": list, "accessIPv4": str, "accessIPv6": str,
    "config_drive": str, "key_name": text, "progress": int, "OS-DCF:diskConfig": str, "OS-EXT-AZ:availability_zone": text,
    "OS-EXT-STS:vm_state": str, "OS-EXT-STS:task_state": text, "OS-EXT-STS:power_state": int,
    "OS-SRV-USG:launched_at": text, "OS-SRV-USG:terminated_at": text, "os-extended-volumes:volumes_attached": list,
    "security_groups": list,
}
# The members that each microversion adds to a server and removes from it.
SERVER_SINCE = {
    "2.9": {"locked": bool}, "2.19": {"description": text}, "2.26": {"tags": list}, "2.63": {"trusted_image_certificates": (list, NoneType)},
    "2.71": {"server_groups": list}, "2.73": {"locked_reason": text}, "2.100": {"scheduler_hints": dict},
}

RESOURCE_PROVIDER = {"uuid": str, "name": str, "generation": int, "parent_provider_uuid": text, "root_provider_uuid": str, "links": list}


def check(value, shape, path="object"):
    """Every documented member is present with its type."""
    assert isinstance(value, dict), f"{path}: {value!r}"
    missing = sorted(set(shape) - set(value))
    assert not missing, f"{path} lacks {missing}; it has {sorted(value)}"
    for name, kinds in shape.items():
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        found = value[name]
        fits = any(isinstance(found, kind) and not (kind is int and isinstance(found, bool)) for kind in kinds)
        assert fits, f"{path}.{name} is {found!r}, not {kinds}"
