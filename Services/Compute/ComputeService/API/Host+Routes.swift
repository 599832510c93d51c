import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The operator's view of hosts: services and hypervisors; and the tenant's: availability zones.
struct HostRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        let services = "/v2.1/os-services"
        return Resource(
            "compute-service",
            routes: [
                Route(
                    .get, services, action: "os_compute_api:os-services:list", rule: Rule.admin, answer: .list(.computeServices(compute)),
                    "List hosts' services", handler: list),
                Route(
                    .put, services + "/{service_id}", action: "os_compute_api:os-services:update", rule: Rule.admin,
                    versions: .from(53),
                    body: .json(
                        .object([
                            .init("status", .enumeration(["enabled", "disabled"])),
                            .init("disabled_reason", .string(min: 1, max: 255, format: nil)),
                            .init("forced_down", .boolean),
                        ])), answer: .one(.computeServices(compute)), "Enable, disable or force down a host", handler: update),
                Route(
                    .put, services + "/{command}", action: "os_compute_api:os-services:update", rule: Rule.admin,
                    versions: .through(52),
                    body: .json(
                        .object([
                            .init("host", .identifier, required: true), .init("binary", .identifier, required: true),
                            .init("disabled_reason", .string(min: 1, max: 255, format: nil)),
                            .init("forced_down", .boolean, versions: .from(11)),
                        ])), answer: .one(.computeServices(compute)), "Enable, disable or force down a host", handler: oldUpdate),
                Route(
                    .delete, services + "/{service_id}", action: "os_compute_api:os-services:delete", rule: Rule.admin, status: 204,
                    "Delete a compute service", handler: delete),
                Route(
                    .get, "/v2.1/os-availability-zone", action: "os_compute_api:os-availability-zone:list", rule: Rule.anybody,
                    answer: .form(HostRoutes.zonesSchema), "List availability zones"
                ) {
                    try await zones($0, isDetailed: false)
                },
                Route(
                    .get, "/v2.1/os-availability-zone/detail", action: "os_compute_api:os-availability-zone:detail", rule: Rule.admin,
                    answer: .form(HostRoutes.zonesSchema), "List availability zones with their hosts"
                ) {
                    try await zones($0, isDetailed: true)
                },
            ])
    }

    private static let zonesSchema = BodySchema.wrapped(
        "availabilityZoneInfo",
        .many(
            .object([
                .required("zoneName", .anyText), .required("zoneState", .object([.required("available", .boolean)])),
                // Services by host and kind.
                .required("hosts", .nullable(.object([], additional: .values(.object([], additional: .values(zoneService)))))),
            ])))

    private static let zoneService = BodySchema.object([
        .required("active", .boolean), .required("available", .boolean), .required("updated_at", .nullable(.anyText)),
    ])

    // MARK: services

    private func kind(_ context: RequestContext) -> ResourceKind {
        .computeServices(compute, hasNumbers: !context.version(atLeast: 2, 53))
    }

    private func list(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let kind = kind(context)
        var request = try kind.listRequest(context)
        // Nova returns this list as a whole, without links to further pages.
        request.isWhole = request.limit == nil && request.marker == nil && request.sort.isEmpty && request.descending == nil
        let asked = request
        return try await compute.database.read { try kind.list($0, context, asked, scope: "true").response }
    }

    /// - Throws: 400 if the service does not run on a host; only hosts can be disabled for scheduling.
    private static func refuse(_ binary: String) throws {
        guard binary != "nova-compute" else { return }
        throw ResourceError.badRequest(
            "Updating a \(binary.prefix(64)) service is not supported. Only nova-compute services can be updated.")
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(target: .none)
        let id = context.parameter("service_id")
        guard let uuid = UUID128(id) else { throw ResourceError.badRequest("Invalid uuid \(id.prefix(64))") }
        let body = context.body
        guard body["status"] != nil || body["forced_down"] != nil else {
            throw ResourceError.badRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
        }
        let reason = body["disabled_reason"]?.stringValue
        if reason != nil, body["status"]?.stringValue != "disabled" {
            throw ResourceError.badRequest("Specifying disabled_reason requires that status is 'disabled'.")
        }
        let other = try await compute.database.read { try ComputeServiceStore.planeKind($0, of: uuid) }
        if let other { try HostRoutes.refuse(other) }
        let draft = ComputeServiceStore.Draft(
            isEnabled: body["status"].map { $0.stringValue == "enabled" }, reason: reason, isForcedDown: body["forced_down"]?.boolValue)
        return try await change(context, decision, .id(uuid), draft, missing: "Service \(id) not found.")
    }

    private func oldUpdate(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(target: .none)
        try HostRoutes.refuse(context.body["binary"]?.stringValue ?? "")
        let host = context.body["host"]?.stringValue ?? ""
        let reason = context.body["disabled_reason"]?.stringValue
        let command = context.parameter("command")
        var draft = ComputeServiceStore.Draft(reason: reason)
        switch command {
        case "enable": draft.isEnabled = true
        case "disable": draft.isEnabled = false
        case "disable-log-reason":
            guard reason != nil else { throw ResourceError.badRequest("Missing disabled reason field") }
            draft.isEnabled = false
        case "force-down":
            guard context.version(atLeast: 2, 11), let value = context.body["forced_down"]?.boolValue else {
                throw ResourceError.badRequest("Missing forced_down field")
            }
            draft.isForcedDown = value
        default: throw ResourceError.notFound("Unknown action")
        }
        return try await change(
            context, decision, .host(host), draft, missing: "Could not find binary nova-compute on host \(host.prefix(255)).")
    }

    private func change(
        _ context: RequestContext, _ decision: Authorized<Void>, _ name: ComputeServiceStore.Name, _ draft: ComputeServiceStore.Draft,
        missing: String
    ) async throws -> Response {
        let compute = compute
        return try await context.write(compute.database) { connection in
            guard let id = try ComputeServiceStore.update(connection, name, draft, decision, ambient: compute.ambient) else {
                throw ResourceError.notFound(missing)
            }
            let response = try kind(context).one(connection, context, where: "t.id = \(id)", id: id)
            return Change(answer: response, "compute-service", id, member: "service")
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(target: .none)
        let id = context.parameter("service_id")
        let isModern = context.version(atLeast: 2, 53)
        let uuid = isModern ? UUID128(id) : nil
        let number = isModern ? nil : Int32(id).map { Int($0) }
        guard uuid != nil || number != nil else {
            throw ResourceError.badRequest("Invalid \(isModern ? "uuid" : "id") \(id.prefix(64))")
        }
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            guard try ComputeServiceStore.delete(connection, id: uuid, number: number, decision, ambient: ambient) else {
                throw ResourceError.notFound("Service \(id.prefix(64)) not found.")
            }
            return Change(.empty(204), "compute-service", id)
        }
    }

    // MARK: zones

    private func zones(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        try context.authorize(target: .none)
        let compute = compute
        return try await compute.database.read { connection in
            var zones: [Zone] = []
            for service in try ComputeServiceStore.onHosts(connection, compute) {
                if zones.last?.name != service.zone { zones.append(Zone(name: service.zone)) }
                zones[zones.count - 1].add(service)
            }
            // Only operators see the zone of the control plane's services.
            if isDetailed {
                var plane = Zone(name: ComputeServiceStore.planeZone, isAvailable: true)
                for service in try ComputeServiceStore.ofPlane(connection, compute) { plane.add(service) }
                zones.append(plane)
            }
            return .json(200, ["availabilityZoneInfo": .array(zones.map { $0.json(isDetailed: isDetailed) })])
        }
    }

    /// An availability zone with its hosts.
    private struct Zone {
        let name: String
        private var isAvailable: Bool
        /// Services by host and kind.
        private var hosts: JSONObject = [:]

        init(name: String, isAvailable: Bool = false) {
            self.name = name
            self.isAvailable = isAvailable
        }

        mutating func add(_ service: ComputeServiceStore.Entry) {
            var kinds = hosts[service.host]?.objectValue ?? [:]
            kinds[service.kind] = [
                "active": .bool(service.isEnabled), "available": .bool(service.isUp),
                "updated_at": JSONValue(service.seenAt?.iso8601NoZone),
            ]
            hosts[service.host] = .object(kinds)
            if service.isEnabled { isAvailable = true }
        }

        func json(isDetailed: Bool) -> JSONValue {
            [
                "zoneName": .string(name), "zoneState": ["available": .bool(isAvailable)],
                "hosts": isDetailed ? .object(hosts) : .null,
            ]
        }
    }
}

extension ResourceKind {
    /// - Parameter hasNumbers: whether clients name services by number, as before 2.53, and not by UUID.
    static func computeServices(_ compute: Compute, hasNumbers: Bool = false) -> ResourceKind {
        func filter(_ column: String) -> Field.Filter { .custom { $0.isEmpty ? "TRUE" : "\(raw: column) = \($0)" } }
        return ResourceKind(
            "service",
            table: Table(
                ComputeServiceStore.source(compute), key: hasNumbers ? "t.number" : "t.id", keyType: hasNumbers ? .integer : .uuid,
                defaultSort: [("number", false)],
                fields: [
                    Field("id", .number, "t.number", sortable: hasNumbers, versions: .through(52)),
                    Field("id", .text, "t.id", sortable: !hasNumbers, versions: .from(53)),
                    Field("binary", .text, "t.kind", filter: filter("t.kind"), sortable: true),
                    Field("host", filter: filter("t.host"), sortable: true), Field("zone", sortable: true),
                    Field("status", .text, "CASE WHEN t.enabled THEN 'enabled' ELSE 'disabled' END", sortable: true),
                    Field("state", .text, "CASE WHEN t.is_up THEN 'up' ELSE 'down' END", sortable: true),
                    Field("updated_at", .timestampMicroseconds, "t.seen_at", sortable: true), Field("disabled_reason"),
                    Field("forced_down", .boolean, sortable: true, versions: .from(11)), .sortKey("number", "t.number"),
                ]), relation: "compute_services", visibility: .everything, grammar: .compute(hasFields: false)
        ) { .notFound("Service \($0.prefix(64)) not found.") }
    }
}
