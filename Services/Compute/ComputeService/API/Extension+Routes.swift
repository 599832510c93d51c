import Authorization
import JSON
import Kernel
import WebAPI

/// The list of extensions, with which clients from before microversions discover the features of a cloud.
struct ExtensionRoutes: Sendable {
    private static let shape = BodySchema.object([
        .required("alias", .anyText), .required("name", .anyText), .required("description", .anyText), .required("namespace", .anyText),
        .required("updated", .anyText), .required("links", .array(.any, min: 0, max: 0)),
    ])

    var resource: Resource {
        let action = "os_compute_api:extensions"
        return Resource(
            "extension",
            routes: [
                Route(
                    .get, "/v2.1/extensions", action: action, rule: Rule.anybody,
                    answer: .form(.wrapped("extensions", .many(ExtensionRoutes.shape))), "List extensions"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(200, ["extensions": .array(ExtensionRoutes.all.map(ExtensionRoutes.object))])
                },
                Route(
                    .get, "/v2.1/extensions/{alias}", action: action, rule: Rule.anybody,
                    answer: .form(.wrapped("extension", ExtensionRoutes.shape)), "Show an extension"
                ) { context in
                    try context.authorize(target: .none)
                    let alias = context.parameter("alias")
                    guard let found = ExtensionRoutes.all.first(where: { $0.alias == alias }) else {
                        throw ResourceError.notFound("There is no extension with the alias '\(alias.prefix(64))'.")
                    }
                    return .json(200, ["extension": ExtensionRoutes.object(found)])
                },
            ])
    }

    /// Nova's aliases and names of the extensions that this service has, without actions that answer 501 and APIs that were removed in
    /// 2.36.
    static let all: [(alias: String, name: String)] = [
        ("OS-DCF", "DiskConfig"), ("OS-EXT-AZ", "ExtendedAvailabilityZone"), ("OS-EXT-IPS", "ExtendedIps"),
        ("OS-EXT-IPS-MAC", "ExtendedIpsMac"), ("OS-EXT-SRV-ATTR", "ExtendedServerAttributes"), ("OS-EXT-STS", "ExtendedStatus"),
        ("OS-FLV-DISABLED", "FlavorDisabled"), ("OS-FLV-EXT-DATA", "FlavorExtraData"), ("OS-SCH-HNT", "SchedulerHints"),
        ("OS-SRV-USG", "ServerUsage"), ("os-access-ips", "AccessIPs"), ("os-admin-actions", "AdminActions"),
        ("os-admin-password", "AdminPassword"), ("os-aggregates", "Aggregates"), ("os-attach-interfaces", "AttachInterfaces"),
        ("os-availability-zone", "AvailabilityZone"), ("os-block-device-mapping-v2-boot", "BlockDeviceMappingV2Boot"),
        ("os-config-drive", "ConfigDrive"), ("os-console-output", "ConsoleOutput"), ("os-deferred-delete", "DeferredDelete"),
        ("os-extended-hypervisors", "ExtendedHypervisors"), ("os-extended-quotas", "ExtendedQuotas"),
        ("os-extended-services", "ExtendedServices"), ("os-extended-services-delete", "ExtendedServicesDelete"),
        ("os-extended-status", "ExtendedStatus"), ("os-extended-volumes", "ExtendedVolumes"),
        ("os-flavor-access", "FlavorAccess"), ("os-flavor-extra-specs", "FlavorExtraSpecs"),
        ("os-flavor-manage", "FlavorManage"), ("os-flavor-swap", "FlavorSwap"), ("os-hypervisor-status", "HypervisorStatus"),
        ("os-hypervisors", "Hypervisors"), ("os-instance-actions", "InstanceActions"), ("os-keypairs", "Keypairs"),
        ("os-lock-server", "LockServer"), ("os-multinic", "Multinic"), ("os-multiple-create", "MultipleCreate"),
        ("os-pause-server", "PauseServer"),
        ("os-personality", "Personality"), ("os-quota-class-sets", "QuotaClasses"), ("os-quota-sets", "Quotas"),
        ("os-security-groups", "SecurityGroups"), ("os-server-diagnostics", "ServerDiagnostics"),
        ("os-server-external-events", "ServerExternalEvents"), ("os-server-group-quotas", "ServerGroupQuotas"),
        ("os-server-groups", "ServerGroups"),
        ("os-server-list-multi-status", "ServerListMultiStatus"), ("os-server-password", "ServerPassword"),
        ("os-server-sort-keys", "ServerSortKeys"),
        ("os-server-start-stop", "ServerStartStop"), ("os-services", "Services"),
        ("os-simple-tenant-usage", "SimpleTenantUsage"), ("os-suspend-server", "SuspendServer"),
        ("os-used-limits", "UsedLimits"), ("os-used-limits-for-admin", "UsedLimitsForAdmin"), ("os-user-data", "UserData"),
        ("os-volume-attachment-update", "VolumeAttachmentUpdate"), ("os-volumes", "Volumes"),
    ]

    private static func object(_ entry: (alias: String, name: String)) -> JSONValue {
        [
            "alias": .string(entry.alias), "name": .string(entry.name), "description": "", "links": [],
            "namespace": "http://docs.openstack.org/compute/ext/fake_xml", "updated": "2014-12-03T00:00:00Z",
        ]
    }
}
