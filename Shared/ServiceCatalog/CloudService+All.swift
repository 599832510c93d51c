import Kernel

/// The API services of a cloud. This is the only place that lists them.
extension CloudService {
    /// The order in which services are started and shown.
    package static let all: [CloudService] = [identity, placement, compute, network, blockStorage, image, bareMetal]

    package static let optional = all.filter(\.isOptional)

    /// Control-plane processes that serve no OpenStack API: they have no entry in the catalog and no tokens of their own.
    package static let gateways: [CloudService] = [console]

    /// Every service with a process in the control plane.
    package static let processes: [CloudService] = all + gateways

    package static let console = CloudService(
        "console", title: "Console", project: "nova", catalog: [CatalogEntry(type: "console", path: "")],
        port: 6080, versionPath: "", faults: .compute)

    package static let identity = CloudService(
        "identity", title: "Identity v3", project: "keystone", catalog: [CatalogEntry(type: "identity", path: "/v3")],
        port: 5000, versionPath: "/v3", faults: .identity)

    package static let placement = CloudService(
        "placement", title: "Placement", project: "placement", catalog: [CatalogEntry(type: "placement", path: "")],
        port: 8778, versionPath: "", faults: .placement,
        microversions: .placement, repairTasks: ["placement"])

    package static let compute = CloudService(
        "compute", title: "Compute", project: "nova", catalog: [CatalogEntry(type: "compute", path: "/v2.1")],
        port: 8774, versionPath: "/v2.1", olderPath: OlderPath(older: "v2", newer: "v2.1"), faults: .compute,
        microversions: .compute,
        quotas: QuotaInterface(
            path: "/os-quota-sets", member: "quota_set", usagePath: "/detail", microversion: "2.96", hasDefaultClass: true,
            resources: [
                .init("servers", "instances"), .init("cores"), .init("ram"), .init("keypairs", "key_pairs"),
                .init("server-groups", "server_groups"), .init("server-group-members", "server_group_members"),
                .init("properties", "metadata_items"),
            ]),
        hasWorkflows: true, repairTasks: ["compute"])

    package static let network = CloudService(
        "network", title: "Networking", project: "neutron", catalog: [CatalogEntry(type: "network", path: "")],
        port: 9696, versionPath: "/v2.0", faults: .network,
        quotas: QuotaInterface(
            path: "/quotas", member: "quota", usagePath: "/details",
            resources: [
                .init("networks", "network"), .init("subnets", "subnet"), .init("ports", "port"), .init("routers", "router"),
                .init("floating-ips", "floatingip"), .init("security-groups", "security_group"),
                .init("security-group-rules", "security_group_rule"),
            ]),
        infrastructure: [.ovn], repairTasks: ["network", "northbound"])

    package static let blockStorage = CloudService(
        "block-storage", title: "Block Storage", project: "cinder",
        catalog: [
            CatalogEntry(type: "block-storage", path: "/v3/$(project_id)s"), CatalogEntry(type: "volumev3", path: "/v3/$(project_id)s"),
        ],
        aliases: ["block-store", "volume"], type: "volumev3", port: 8776, versionPath: "/v3/{project}", faults: .blockStorage,
        microversions: .blockStorage,
        quotas: QuotaInterface(
            path: "/os-quota-sets", member: "quota_set", usageQuery: [("usage", "True")], microversion: "3.60",
            hasDefaultClass: true,
            resources: [.init("volumes"), .init("snapshots"), .init("gigabytes")]),
        hasWorkflows: true, repairTasks: ["block_storage"])

    package static let bareMetal = CloudService(
        "bare-metal", title: "Bare Metal", project: "ironic", catalog: [CatalogEntry(type: "baremetal", path: "")],
        port: 6385, versionPath: "/v1", faults: .bareMetal, microversions: .bareMetal, hasWorkflows: true,
        isOptional: true)

    package static let image = CloudService(
        "image", title: "Image", project: "glance", catalog: [CatalogEntry(type: "image", path: "")],
        port: 9292, versionPath: "/v2", faults: .image, repairTasks: ["image"])
}

/// The range of microversions of each service, from the oldest to the newest supported one.
extension VersionNegotiation {
    package static let placement = VersionNegotiation(
        minimum: Microversion(1, 0), maximum: Microversion(1, 39), serviceType: "placement")

    package static let compute = VersionNegotiation(
        minimum: Microversion(2, 1), maximum: Microversion(2, 104), serviceType: "compute", legacyHeader: "x-openstack-nova-api-version")

    package static let bareMetal = VersionNegotiation(
        minimum: Microversion(1, 1), maximum: Microversion(1, 96), serviceType: "baremetal",
        legacyHeader: "x-openstack-ironic-api-version", announcesRange: true)

    package static let blockStorage = VersionNegotiation(
        minimum: Microversion(3, 0), maximum: Microversion(3, 70), serviceType: "volume")
}
