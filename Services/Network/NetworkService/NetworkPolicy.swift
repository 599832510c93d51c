/// Default rules beyond those that the routes declare.
enum NetworkPolicy {
    static let reader = "rule:project_reader_or_admin"
    static let member = "rule:project_member_or_admin"
    static let admin = "rule:admin_required"
    /// Attributes that only administrators may set, and services for the ports that they bind.
    static let service = "rule:admin_or_service"
    /// The owner of the network of a subnet or port.
    static let networkOwner = "rule:admin_required or (role:member and project_id:%(network:project_id)s)"
    /// The port's owner, or the network's.
    static let portMember = "rule:project_member_or_admin or (role:member and project_id:%(network:project_id)s)"

    static let rules: [String: String] = [
        "create_network:shared": admin, "update_network:shared": admin,
        "create_network:router:external": admin, "update_network:router:external": admin,
        "create_network:provider:network_type": admin, "create_network:provider:physical_network": admin,
        "create_network:provider:segmentation_id": admin,
        "get_network:provider:network_type": admin, "get_network:provider:physical_network": admin,
        "get_network:provider:segmentation_id": admin,
        "create_subnet": networkOwner, "update_subnet": portMember, "delete_subnet": portMember,
        "create_subnet:project_id": admin,
        "get_port": "rule:project_reader_or_admin or (role:reader and project_id:%(network:project_id)s)",
        "update_port": portMember, "delete_port": portMember,
        "get_port:binding:host_id": service, "get_port:binding:profile": service, "get_port:binding:vif_type": service,
        "get_port:binding:vif_details": service,
        "create_port:binding:host_id": service, "update_port:binding:host_id": service,
        "create_port:binding:profile": service, "update_port:binding:profile": service,
        "create_port:mac_address": networkOwner, "update_port:mac_address": admin,
        "create_port:fixed_ips": networkOwner, "update_port:fixed_ips": networkOwner,
        "create_port:port_security_enabled": networkOwner, "update_port:port_security_enabled": networkOwner,
        "create_port:allowed_address_pairs": networkOwner, "update_port:allowed_address_pairs": networkOwner,
        "create_port:device_owner:network": admin, "update_port:device_owner:network": admin,
        "create_port:external": admin,
        "create_router:external_gateway_info:enable_snat": admin,
        "update_router:external_gateway_info:enable_snat": admin,
        "create_router:external_gateway_info:external_fixed_ips": admin,
        "update_router:external_gateway_info:external_fixed_ips": admin,
        "create_floatingip:floating_ip_address": admin,
    ]
}
