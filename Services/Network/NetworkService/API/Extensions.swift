import Authorization
import JSON
import Kernel
import WebAPI

/// The extensions to Networking v2.0 that this service implements completely.
enum Extensions {
    struct Extension: Sendable {
        let alias: String
        let name: String
        let description: String

        init(_ alias: String, _ name: String, _ description: String) {
            self.alias = alias
            self.name = name
            self.description = description
        }

        var json: JSONValue {
            [
                "alias": .string(alias), "name": .string(name), "description": .string(description),
                "updated": "2026-11-01T00:00:00-00:00", "links": [],
            ]
        }
    }

    static let all: [Extension] = [
        Extension("agent", "agent", "The agent management extension."),
        Extension("allowed-address-pairs", "Allowed Address Pairs", "Provides allowed address pairs"),
        Extension("availability_zone", "Availability Zone", "The availability zone extension."),
        Extension("binding", "Port Binding", "Expose port bindings of a virtual port to external application"),
        Extension(
            "binding-extended", "Port Bindings Extended", "Expose port bindings of a virtual port to external application"),
        Extension("empty-string-filtering", "Empty String Filtering Extension", "Allow filtering by attributes with empty string value"),
        Extension(
            "ext-gw-mode", "Neutron L3 Configurable external gateway mode",
            "Extension of the router abstraction for specifying whether SNAT should occur on the external gateway"),
        Extension("external-net", "Neutron external network", "Adds external network attribute to network resource."),
        Extension("extra_dhcp_opt", "Neutron Extra DHCP options", "Extra options configuration for DHCP."),
        Extension("extraroute", "Neutron Extra Route", "Extra routes configuration for L3 router"),
        Extension(
            "extraroute-atomic", "Atomically add/remove extra routes",
            "Edit extra routes of a router on server side by atomically adding/removing extra routes"),
        Extension("filter-validation", "Filter parameters validation", "Provides validation on filter parameters."),
        Extension("fip-port-details", "Floating IP Port Details Extension", "Add port_details attribute to Floating IP resource"),
        Extension("l2_adjacency", "L2 Adjacency", "Display L2 Adjacency for Neutron Networks."),
        Extension("net-mtu", "Network MTU", "Provides MTU attribute for a network resource."),
        Extension("net-mtu-writable", "Network MTU (writable)", "Provides a writable MTU attribute for a network resource."),
        Extension("network-ip-availability", "Network IP Availability", "Provides IP availability data for each network and subnet."),
        Extension("network_availability_zone", "Network Availability Zone", "Availability zone support for network."),
        Extension("pagination", "Pagination support", "Extension that indicates that pagination is enabled."),
        Extension("port-security", "Port Security", "Provides port security"),
        Extension("project-id", "project_id field enabled", "Extension that indicates that project_id field is enabled."),
        Extension("provider", "Provider Network", "Expose mapping of virtual networks to physical networks"),
        Extension("quota_details", "Quota details management support", "Expose functions for quotas usage statistics per project"),
        Extension("quotas", "Quota management support", "Expose functions for quotas management per project"),
        Extension(
            "revision-if-match", "If-Match constraints based on revision_number",
            "Extension indicating that If-Match based on revision_number is supported."),
        Extension(
            "router", "Neutron L3 Router",
            "Router abstraction for basic L3 forwarding between L2 Neutron networks and access to external networks via a NAT gateway."),
        Extension("router_availability_zone", "Router Availability Zone", "Availability zone support for router."),
        Extension("security-group", "security-group", "The security groups extension."),
        Extension(
            "security-groups-normalized-cidr", "Normalized CIDR field for security group rules",
            "Add new field with normalized remote_ip_prefix cidr in SG rule"),
        Extension(
            "security-groups-rules-belongs-to-default-sg", "Security group rules belongs to the default security group",
            "Flag to determine if the security group rule belongs to the default security group"),
        Extension("service-type", "Neutron Service Type Management", "API for retrieving service providers for Neutron advanced services"),
        Extension("sorting", "Sorting support", "Extension that indicates that sorting is enabled."),
        Extension("standard-attr-description", "standard-attr-description", "Extension to add descriptions to standard attributes"),
        Extension(
            "standard-attr-revisions", "Resource revision numbers",
            "This extension will display the revision number of neutron resources."),
        Extension(
            "standard-attr-tag",
            "Tag support for resources with standard attribute: network, subnet, port, router, floatingip, security_group",
            "Enables to set tag on resources with standard attribute."),
        Extension(
            "standard-attr-timestamp", "Resource timestamps",
            "Adds created_at and updated_at fields to all Neutron resources that have Neutron standard attributes."),
        Extension("stateful-security-group", "Stateful security group", "Indicates if the security group is stateful or not"),
        Extension("tag-creation", "Tag creation extension", "Allow to create tags during resource creation"),
        Extension("tag-ports-during-bulk-creation", "Tag Ports During Bulk Creation", "Allow to tag ports during bulk creation"),
    ]
}

extension NetworkAPI {
    private static let extensionShape = BodySchema.object(
        BodySchema.Property.required(["alias", "name", "description", "updated"], .anyText) + [.required("links", .many(.anyText))])

    var extensions: Resource {
        Resource(
            "extension",
            routes: [
                Route(
                    .get, "/v2.0/extensions", action: "get_extensions", rule: "@",
                    answer: .form(.wrapped("extensions", .many(NetworkAPI.extensionShape))), "List extensions"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(200, ["extensions": .array(Extensions.all.map(\.json))])
                },
                Route(
                    .get, "/v2.0/extensions/{alias}", action: "get_extensions", rule: "@",
                    answer: .form(.wrapped("extension", NetworkAPI.extensionShape)), "Show an extension"
                ) { context in
                    try context.authorize(target: .none)
                    let alias = context.parameter("alias")
                    guard let found = Extensions.all.first(where: { $0.alias == alias }) else {
                        throw ResourceError.notFound("Extension with alias \(alias.prefix(64)) does not exist", type: "HTTPNotFound")
                    }
                    return .json(200, ["extension": found.json])
                },
            ])
    }

    // MARK: versions

    var versions: Resource {
        Resource(
            "version",
            routes: [
                Route(.get, "/", action: nil, "List API versions") { context in
                    .json(200, ["versions": [NetworkAPI.version(context.publicURL)]])
                },
                Route(.get, "/v2.0", action: nil, "List resources") { context in
                    let names = ["networks", "subnets", "ports", "routers", "floatingips", "security-groups", "security-group-rules"]
                    return .json(
                        200,
                        [
                            "resources": .array(
                                names.map { name in
                                    [
                                        "links": [["rel": "self", "href": .string("\(context.publicURL)/v2.0/\(name)")]],
                                        "name": .string(String(name.dropLast())), "collection": .string(name),
                                    ]
                                })
                        ])
                },
            ])
    }

    private static func version(_ url: String) -> JSONValue {
        ["id": "v2.0", "status": "CURRENT", "links": [["rel": "self", "href": .string("\(url)/v2.0/")]]]
    }
}
