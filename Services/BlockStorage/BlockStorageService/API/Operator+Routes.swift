import Authorization
import BlockStorageCore
import Database
import JSON
import Kernel
import ServiceCatalog
import WebAPI

/// Services, pools and availability zones for operators, and version discovery.
extension BlockStorageHandlers {
    /// A service without a state report for this long is down.
    static let serviceLifetime: Duration = .seconds(60)

    var operatorResource: Resource {
        let admin = BlockStorageHandlers.admin
        let reader = "rule:admin_required or role:reader"
        let change = BodySchema.object(
            [
                .init("host", .nullable(.identifier)), .init("binary", .nullable(.text)), .init("service", .text),
                .init("disabled_reason", .nullable(.text)),
            ])
        return Resource(
            "block storage operation",
            routes: bothPaths([
                Route(
                    .get, "/os-services", action: "volume_extension:services:index", rule: admin, answer: .form(Self.servicesForm),
                    "List services", handler: listServices),
                Route(
                    .put, "/os-services/{change}", action: "volume_extension:services:update", rule: admin, body: .json(change),
                    answer: .form(Self.serviceForm), "Enable or disable a service", handler: changeService),
                Route(
                    .get, "/os-availability-zone", action: "volume:availability_zone_list", rule: reader, answer: .form(Self.zonesForm),
                    "List availability zones"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(
                        200, ["availabilityZoneInfo": [["zoneName": .string(settings.availabilityZone), "zoneState": ["available": true]]]])
                },
                Route(
                    .get, "/scheduler-stats/get_pools", action: "scheduler_extension:scheduler_stats:get_pools", rule: admin,
                    answer: .form(Self.poolsForm), "List storage pools", handler: pools),
                Route(
                    .get, "/capabilities/{host}", action: "volume_extension:capabilities", rule: admin,
                    answer: .form(Self.capabilitiesForm), "Show what a backend can do", handler: capabilities),
                Route(
                    .get, "/resource_filters", action: "volume:resource_filters", rule: reader,
                    versions: VersionRange(from: Microversion(3, 33)),
                    answer: .form(ResourceFilters.form), "List the filters of lists"
                ) { context in
                    try context.authorize(target: .none)
                    return ResourceFilters.answer(context)
                },
                .unavailable(
                    .post, "/workers/cleanup", action: "workers:cleanup", rule: admin, versions: VersionRange(from: Microversion(3, 24)),
                    body: .optionalJSON(.any),
                    "Cleaning up on request is not available in this cloud: interrupted work continues by itself."
                ) { try $0.authorize(target: .none) },
                Route(
                    .get, "/extensions", action: "volume:extensions", rule: reader, answer: .form(Self.extensionsForm), "List extensions"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(200, ["extensions": .array(BlockStorageHandlers.extensions)])
                },
            ]))
    }

    // MARK: forms of answers

    private static func required(_ schema: BodySchema, _ names: [String]) -> [BodySchema.Property] {
        names.map { .init($0, schema, required: true) }
    }

    private static let servicesForm = BodySchema.wrapped(
        "services",
        .list(
            .object(
                required(.text, ["binary", "host", "zone", "replication_status"])
                    + required(.string(min: 0, max: 32, format: .dateTime), ["updated_at"])
                    + required(.enumeration(["enabled", "disabled"]), ["status"]) + required(.enumeration(["up", "down"]), ["state"])
                    + required(.nullable(.text), ["disabled_reason", "active_backend_id"]) + required(.boolean, ["frozen"]) + [
                        .init("cluster", .nullable(.text), versions: VersionRange(from: Microversion(3, 7))),
                        .init("backend_state", .enumeration(["up", "down"]), versions: VersionRange(from: Microversion(3, 49))),
                    ])))

    private static let serviceForm = BodySchema.object(
        required(.text, ["host", "service", "binary"]) + required(.boolean, ["disabled"])
            + required(.enumeration(["enabled", "disabled"]), ["status"]) + required(.nullable(.text), ["disabled_reason"]))

    private static let zonesForm = BodySchema.wrapped(
        "availabilityZoneInfo",
        .list(
            .object([
                .init("zoneName", .text, required: true), .init("zoneState", .wrapped("available", .boolean), required: true),
            ])))

    private static let poolsForm = BodySchema.wrapped(
        "pools",
        .list(
            .object([
                .init("name", .text, required: true),
                .init(
                    "capabilities",
                    .object(
                        required(
                            .text,
                            [
                                "pool_name", "volume_backend_name", "storage_protocol", "driver_version", "vendor_name",
                                "max_over_subscription_ratio",
                            ])
                            + required(
                                .number,
                                [
                                    "total_capacity_gb", "free_capacity_gb", "provisioned_capacity_gb", "allocated_capacity_gb",
                                    "reserved_percentage",
                                ])
                            + required(
                                .boolean, ["thin_provisioning_support", "thick_provisioning_support", "multiattach", "QoS_support"])
                            + required(.string(min: 0, max: 32, format: .dateTime), ["timestamp"])
                            + required(.nullable(.text), ["filter_function", "goodness_function"]))),
            ])))

    private static let capabilitiesForm = BodySchema.object(
        required(
            .text,
            [
                "namespace", "vendor_name", "volume_backend_name", "pool_name", "driver_version", "storage_protocol", "display_name",
                "description", "visibility",
            ])
            + required(.list(.any), ["replication_targets"]) + required(.object([], additional: .allowed), ["properties"]))

    private static let extensionsForm = BodySchema.wrapped(
        "extensions",
        .list(.object(required(.text, ["alias", "name", "description", "updated"]) + required(.list(.any), ["links"]))))

    private static let extensions: [JSONValue] = [
        ("os-volume-actions", "VolumeActions"), ("os-admin-actions", "AdminActions"),
        ("os-extended-snapshot-attributes", "ExtendedSnapshotAttributes"), ("os-vol-tenant-attr", "VolumeTenantAttribute"),
        ("os-vol-host-attr", "VolumeHostAttribute"), ("os-vol-image-meta", "VolumeImageMetadata"),
        ("os-types-manage", "TypesManage"), ("os-types-extra-specs", "TypesExtraSpecs"),
        ("os-volume-type-access", "VolumeTypeAccess"), ("os-quota-sets", "Quotas"), ("os-used-limits", "UsedLimits"),
        ("os-services", "Services"), ("os-availability-zone", "AvailabilityZones"), ("scheduler-stats", "Scheduler_stats"),
    ].map { alias, name in
        ["alias": .string(alias), "name": .string(name), "description": .string(name), "links": [], "updated": "2026-01-01T00:00:00+00:00"]
    }

    private func listServices(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let kind = context.query["binary"] ?? context.query["service"]
        let rows = try await database.read { connection in
            try BlockStorageStore.services(
                connection, host: context.query["host"], kind: kind, now: context.ambient.databaseNow,
                lifetime: BlockStorageHandlers.serviceLifetime
            ).map { row -> JSONValue in
                let seen = try row.timestamp("seen_at")
                let isUp = try row.bool("is_up")
                let kind = try row.string("kind")
                let isBackend = kind == ServiceReportTask.kind
                var service: JSONObject = [
                    "binary": .string(kind), "host": .string(try row.string("host")),
                    "zone": .string(try row.string("availability_zone")),
                    "status": try row.bool("disabled") ? "disabled" : "enabled", "state": isUp ? "up" : "down",
                    "updated_at": .string(seen.iso8601NoZone), "disabled_reason": JSONValue(try row.optionalString("disabled_reason")),
                    "replication_status": isBackend ? "disabled" : "not-capable", "active_backend_id": .null, "frozen": false,
                ]
                if context.version(atLeast: 3, 7) { service["cluster"] = .null }
                if isBackend, context.version(atLeast: 3, 49) { service["backend_state"] = isUp ? "up" : "down" }
                return .object(service)
            }
        }
        return .json(200, ["services": .array(rows)])
    }

    private func changeService(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(target: .none)
        let operation = context.parameter("change")
        guard !["freeze", "thaw", "failover_host", "get-log", "set-log"].contains(operation) else {
            throw ResourceError(.notImplemented, "The action '\(operation)' on services is not available in this cloud.")
        }
        guard ["enable", "disable", "disable-log-reason"].contains(operation) else {
            throw ResourceError.notFound("Unknown action: \(operation.prefix(64))")
        }
        guard let host = context.body["host"]?.stringValue else {
            throw ResourceError.badRequest("Missing required element 'host' in request body.")
        }
        let body = context.body.objectValue ?? [:]
        guard let kind = try body.value(named: ["binary", "service"], of: "body")?.stringValue else {
            throw ResourceError.badRequest("Missing required element 'binary' in request body.")
        }
        let disabled = operation != "enable"
        let reason = disabled ? context.body["disabled_reason"]?.stringValue : nil
        if !disabled, let reason = context.body["disabled_reason"]?.stringValue {
            throw ResourceError.badRequest(
                """
                Invalid input for field/attribute disabled_reason. Value: '\(reason.prefix(64))'. A service that is enabled has no reason \
                for being disabled.
                """)
        }
        if operation == "disable-log-reason", reason?.isEmpty ?? true {
            throw ResourceError.badRequest("Invalid input for field/attribute disabled_reason. It must not be empty.")
        }
        return try await context.write(database) { connection in
            if kind == ServiceReportTask.schedulerKind {
                if try BlockStorageStore.isService(connection, host: host, kind: kind) {
                    throw ResourceError.badRequest(
                        """
                        Invalid input for field/attribute binary. Value: \(kind). Only cinder-volume services can be enabled and disabled: \
                        the schedulers of all machines are equal, and requests do not choose one.
                        """)
                }
            }
            guard try BlockStorageStore.setDisabled(connection, decision, host: host, kind: kind, disabled, reason: reason) else {
                throw ResourceError.notFound("Service \(kind.prefix(64)) could not be found on host \(host.prefix(64)).")
            }
            let answer: JSONValue = [
                "host": .string(host), "service": .string(kind), "binary": .string(kind), "disabled": .bool(disabled),
                "status": disabled ? "disabled" : "enabled", "disabled_reason": JSONValue(reason),
            ]
            return Change(.json(200, answer), "service", nil, content: answer)
        }
    }

    private func pools(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let detail = try context.flag("detail")
        let capacity = try await driver.capacity()
        let allocated = try await database.read { try BlockStorageStore.allocated($0) }
        var pool: JSONObject = ["name": .string(settings.pool)]
        if detail {
            pool["capabilities"] = [
                "pool_name": .string(driver.name), "volume_backend_name": .string(driver.name), "storage_protocol": "file",
                "driver_version": "1.0", "vendor_name": "Wolke", "total_capacity_gb": JSONValue(capacity.total),
                "free_capacity_gb": JSONValue(capacity.free), "provisioned_capacity_gb": JSONValue(allocated),
                "allocated_capacity_gb": JSONValue(allocated), "reserved_percentage": 0,
                "thin_provisioning_support": .bool(driver.capabilities.contains("thin_provisioning_support")),
                "thick_provisioning_support": false, "max_over_subscription_ratio": "20.0",
                "multiattach": .bool(driver.capabilities.contains("multiattach")), "QoS_support": false,
                "timestamp": .string(context.ambient.now.iso8601NoZone), "filter_function": .null,
                "goodness_function": .null,
            ]
        }
        return .json(200, ["pools": [.object(pool)]])
    }

    private func capabilities(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let host = context.parameter("host")
        guard host == settings.serviceHost || host == settings.pool else {
            throw ResourceError.notFound("Can't find service: \(host.prefix(255))")
        }
        return .json(
            200,
            [
                "namespace": .string("OS::Storage::Capabilities::\(settings.serviceHost)"), "vendor_name": "Wolke",
                "volume_backend_name": .string(driver.name), "pool_name": .string(driver.name), "driver_version": "1.0",
                "storage_protocol": "file", "display_name": "Capabilities of Wolke's volume driver 'file'",
                "description": "Volumes as files in a shared directory.", "visibility": "public", "replication_targets": [],
                "properties": [:],
            ])
    }

    // MARK: discovery

    var discoveryResource: Resource {
        Resource(
            "block storage",
            routes: [
                Route(.get, "/", action: nil, status: 300, "Versions") { versions($0, status: 300) },
                Route(.get, "/v3", action: nil, "Version 3") { versions($0, status: 200) },
            ])
    }

    private func versions(_ context: RequestContext, status: Int) -> Response {
        let version: JSONValue = [
            "id": "v3.0", "status": "CURRENT", "version": .string(VersionNegotiation.blockStorage.maximum.description),
            "min_version": .string(VersionNegotiation.blockStorage.minimum.description), "updated": "2026-08-21T00:00:00Z",
            "links": [
                ["rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"],
                ["rel": "self", "href": .string(context.publicURL + "/v3/")],
            ],
            "media-types": [["base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"]],
        ]
        return .json(status, ["versions": [version]])
    }
}
