import Authorization
import Contracts
import Database
import JSON
import Kernel
import Messaging
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
                    "Forget a host", handler: delete),
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

    /// Zone of a host: its aggregate's, or its own.
    static let zoneSQL = """
        coalesce((SELECT a.availability_zone FROM aggregates a JOIN aggregate_hosts g ON g.aggregate_id = a.id
            WHERE g.host = t.host AND a.availability_zone IS NOT NULL ORDER BY a.id LIMIT 1), t.availability_zone)
        """

    // MARK: services

    /// Hosts' services, and the plane's own: schedulers and conductors, whose zone is Nova's `internal`.
    ///
    /// - Parameter compute: for what counts as silence.
    fileprivate static func source(_ compute: Compute) -> String {
        """
        (SELECT t.id, t.number, 'nova-compute' AS kind, t.host, t.enabled, t.disabled_reason, t.forced_down,
            coalesce(t.last_seen_at, t.updated_at) AS seen_at, \(Hosts.isUpText("t", compute)) AS is_up, \(zoneSQL) AS zone
        FROM compute_services t
        UNION ALL
        SELECT p.id, p.number, p.kind, p.host, true, NULL, false, p.last_seen_at,
            p.last_seen_at > \(Hosts.latestSilence(compute)), '\(internalZone)'
        FROM plane_services p) t
        """
    }

    private static let internalZone = "internal"

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

    /// - Throws: 400 if the service is not on a host; only hosts can be disabled for scheduling.
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
        let other = try await compute.database.read { connection in
            try connection.query("SELECT kind FROM plane_services WHERE id = \(uuid)").first?.string("kind")
        }
        if let other { try HostRoutes.refuse(other) }
        return try await change(
            context, decision, where: "t.id = \(uuid)", missing: "Service \(id) not found.",
            enabled: body["status"].map { $0.stringValue == "enabled" }, reason: reason,
            forcedDown: body["forced_down"]?.boolValue)
    }

    private func oldUpdate(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(target: .none)
        try HostRoutes.refuse(context.body["binary"]?.stringValue ?? "")
        let host = context.body["host"]?.stringValue ?? ""
        let reason = context.body["disabled_reason"]?.stringValue
        let command = context.parameter("command")
        var enabled: Bool?
        var forced: Bool?
        switch command {
        case "enable": enabled = true
        case "disable": enabled = false
        case "disable-log-reason":
            guard reason != nil else { throw ResourceError.badRequest("Missing disabled reason field") }
            enabled = false
        case "force-down":
            guard context.version(atLeast: 2, 11), let value = context.body["forced_down"]?.boolValue else {
                throw ResourceError.badRequest("Missing forced_down field")
            }
            forced = value
        default: throw ResourceError.notFound("Unknown action")
        }
        return try await change(
            context, decision, where: "t.host = \(host)", missing: "Could not find binary nova-compute on host \(host.prefix(255)).",
            enabled: enabled, reason: reason, forcedDown: forced)
    }

    private func change(
        _ context: RequestContext, _ decision: Authorized<Void>, where condition: SQL, missing: String, enabled: Bool?, reason: String?,
        forcedDown: Bool?
    ) async throws -> Response {
        try decision.value(for: "os_compute_api:os-services:update")
        let compute = compute
        return try await context.write(compute.database) { connection in
            var changes = Changes()
            if let enabled {
                changes.set("enabled", enabled)
                changes.set("disabled_reason", reason)
            }
            if let forcedDown { changes.set("forced_down", forcedDown) }
            let update = changes.statement("compute_services t", where: condition, at: compute.ambient.now, touching: true) ?? ""
            let rows = try connection.query(
                """
                \(update) RETURNING t.id, t.host
                """)
            guard let row = rows.first else { throw ResourceError.notFound(missing) }
            let id = try row.string("id")
            try Hosts.announce(connection, host: try row.string("host"), ambient: compute.ambient)
            let response = try kind(context).one(connection, context, where: "t.id = \(id)", id: id)
            return Change(response, "compute-service", id, content: context.body)
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "os_compute_api:os-services:delete")
        let id = context.parameter("service_id")
        let isModern = context.version(atLeast: 2, 53)
        let uuid = isModern ? UUID128(id)?.description : nil
        let number = isModern ? nil : Int32(id).map { Int($0) }
        guard uuid != nil || number != nil else {
            throw ResourceError.badRequest("Invalid \(isModern ? "uuid" : "id") \(id.prefix(64))")
        }
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            let rows = try connection.query(
                """
                SELECT t.id, t.host, (SELECT count(*) FROM servers s WHERE s.host = t.host AND NOT s.deleted) AS servers,
                    (SELECT h.id FROM hypervisors h WHERE h.host = t.host) AS provider
                FROM compute_services t WHERE t.id = \(uuid)::uuid OR t.number = \(number)::int FOR UPDATE
                """)
            guard let row = rows.first else {
                // A process that is still running registers again with its next state report.
                let forgotten = try connection.execute(
                    "DELETE FROM plane_services WHERE id = \(uuid)::uuid OR number = \(number)::int")
                guard forgotten > 0 else { throw ResourceError.notFound("Service \(id.prefix(64)) not found.") }
                return Change(.empty(204), "compute-service", id)
            }
            let host = try row.string("host")
            if try row.int("servers") > 0 {
                throw ResourceError.conflict(
                    "Unable to delete compute service that is hosting instances. Migrate or delete the instances first.")
            }
            let removed = HostRemoved(host: host, providerID: try row.optionalString("provider"))
            try Outbox.add(connection, removed, to: .placementHosts, ambient: ambient)
            try connection.execute("DELETE FROM aggregate_hosts WHERE host = \(host)")
            try connection.execute("DELETE FROM compute_services WHERE host = \(host)")
            return Change(.empty(204), "compute-service", id)
        }
    }

    // MARK: zones

    private func zones(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        try context.authorize(target: .none)
        let compute = compute
        return try await compute.database.read { connection in
            let rows = try connection.query(
                """
                SELECT t.host, t.enabled, t.last_seen_at, \(Hosts.isUp("t", compute)) AS is_up, \(raw: HostRoutes.zoneSQL) AS zone
                FROM compute_services t ORDER BY zone, t.host
                """)
            var zones: [(name: String, hosts: JSONObject, available: Bool)] = []
            for row in rows {
                let zone = try row.string("zone")
                if zones.last?.name != zone { zones.append((zone, [:], false)) }
                let isUp = try row.bool("is_up")
                let entry: JSONValue = [
                    "active": .bool(try row.bool("enabled")), "available": .bool(isUp),
                    "updated_at": JSONValue(try row.optionalTimestamp("last_seen_at")?.iso8601NoZone),
                ]
                zones[zones.count - 1].hosts[try row.string("host")] = ["nova-compute": entry]
                if try row.bool("enabled") { zones[zones.count - 1].available = true }
            }
            if isDetailed { zones.append(try HostRoutes.internalZone(connection, compute)) }
            let list = zones.map { zone -> JSONValue in
                [
                    "zoneName": .string(zone.name), "zoneState": ["available": .bool(zone.available)],
                    "hosts": isDetailed ? .object(zone.hosts) : .null,
                ]
            }
            return .json(200, ["availabilityZoneInfo": .array(list)])
        }
    }

    /// The zone of the plane's own services, which only operators see.
    private static func internalZone(
        _ connection: Connection, _ compute: Compute
    ) throws -> (name: String, hosts: JSONObject, available: Bool) {
        var hosts: JSONObject = [:]
        let rows = try connection.query(
            "SELECT * FROM \(raw: source(compute)) WHERE t.kind <> 'nova-compute' ORDER BY t.host, t.kind")
        for row in rows {
            let host = try row.string("host")
            var kinds = hosts[host]?.objectValue ?? [:]
            kinds[try row.string("kind")] = [
                "active": true, "available": .bool(try row.bool("is_up")),
                "updated_at": JSONValue(try row.timestamp("seen_at").iso8601NoZone),
            ]
            hosts[host] = .object(kinds)
        }
        return (internalZone, hosts, true)
    }
}

extension ResourceKind {
    /// - Parameter hasNumbers: whether clients name services by number, as before 2.53, and not by UUID.
    static func computeServices(_ compute: Compute, hasNumbers: Bool = false) -> ResourceKind {
        func filter(_ column: String) -> Field.Filter { .custom { $0.isEmpty ? "TRUE" : "\(raw: column) = \($0)" } }
        return ResourceKind(
            "service",
            table: Table(
                HostRoutes.source(compute), key: hasNumbers ? "t.number" : "t.id", keyType: hasNumbers ? .integer : .uuid,
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
