import Database
import JSON
import Kernel
import WebAPI

/// Hypervisors: what hosts have and what of it is used.
struct HypervisorRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/os-hypervisors"

    var resource: Resource {
        let path = HypervisorRoutes.path
        return Resource(
            "hypervisor",
            routes: [
                Route(.get, path, action: "os_compute_api:os-hypervisors:list", rule: Rule.admin, "List hypervisors") {
                    try await list($0, isDetailed: false)
                },
                Route(
                    .get, path + "/detail", action: "os_compute_api:os-hypervisors:list-detail", rule: Rule.admin,
                    "List hypervisors with details"
                ) {
                    try await list($0, isDetailed: true)
                },
                Route(
                    .get, path + "/statistics", action: "os_compute_api:os-hypervisors:statistics", rule: Rule.admin,
                    versions: .through(87), "Sums over all hypervisors", handler: statistics),
                Route(
                    .get, path + "/{hypervisor_id}", action: "os_compute_api:os-hypervisors:show", rule: Rule.admin, "Show a hypervisor",
                    handler: show),
                Route(
                    .get, path + "/{hypervisor_id}/servers", action: "os_compute_api:os-hypervisors:servers", rule: Rule.admin,
                    versions: .through(52), "List the servers of hypervisors", handler: oldServers),
                Route(
                    .get, path + "/{hypervisor_id}/search", action: "os_compute_api:os-hypervisors:search", rule: Rule.admin,
                    versions: .through(52), "Find hypervisors", handler: oldSearch),
                .unavailable(
                    .get, path + "/{hypervisor_id}/uptime", action: "os_compute_api:os-hypervisors:uptime", rule: Rule.admin,
                    versions: .through(87), "The uptime of hosts is not reported in this cloud."
                ) { _ = try await show($0) },
            ])
    }

    private static func columns(_ compute: Compute) -> SQL {
        """
        SELECT h.id, h.number, h.host, h.hypervisor_type, h.hypervisor_version, h.vcpus, h.memory_mb, h.disk_gb, h.cpu_info,
            coalesce(h.host_ip, '127.0.0.1') AS host_ip, c.id AS service_id, c.number AS service_number, c.enabled,
            c.disabled_reason, \(Hosts.isUp("c", compute)) AS is_up, u.servers, u.vcpus AS vcpus_used, u.ram AS ram_used,
            u.disk AS disk_used, u.building, u.list
        FROM hypervisors h JOIN compute_services c ON c.host = h.host
        LEFT JOIN LATERAL (SELECT count(*) AS servers, coalesce(sum((s.flavor->>'vcpus')::int), 0) AS vcpus,
            coalesce(sum((s.flavor->>'ram')::int), 0) AS ram,
            coalesce(sum((s.flavor->>'disk')::int + (s.flavor->>'ephemeral')::int), 0) AS disk,
            count(*) FILTER (WHERE s.task_state IS NOT NULL) AS building,
            coalesce(json_agg(json_build_object('uuid', s.id, 'name', s.name) ORDER BY s.created_at, s.id), '[]') AS list
            FROM servers s WHERE s.host = h.host AND NOT s.deleted) u ON true
        """
    }

    /// The condition for the hypervisor with this id, which is a number before 2.53.
    private static func named(_ id: String) -> SQL {
        Int(id).map { "h.number = \($0)::bigint" } ?? Field.Filter.uuid("h.id", id)
    }

    private func list(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        try context.authorize(target: .none)
        let isModern = context.version(atLeast: 2, 53)
        let hasLinks = context.version(atLeast: 2, 33)
        let pattern = isModern ? context.query["hypervisor_hostname_pattern"] : nil
        let withServers = isModern && (context.query["with_servers"].flatMap { BodySchema.boolean($0) } ?? false)
        let request = try context.listRequest(filters: [], ignoring: ["hypervisor_hostname_pattern", "with_servers"])
        let limit = min(request.limit ?? Limits.pageSizeMax, Limits.pageSizeMax)
        let compute = compute
        return try await compute.database.read { connection in
            var conditions: [SQL] = ["true"]
            if let pattern { conditions.append("strpos(h.host, \(pattern)) > 0") }
            if let marker = request.marker {
                let row = try connection.query("SELECT h.number FROM hypervisors h WHERE \(HypervisorRoutes.named(marker))")
                    .first
                guard let row else { throw ResourceError.badRequest("marker [\(marker.prefix(64))] not found") }
                conditions.append("h.number > \(try row.int("number"))")
            }
            let rows = try connection.query(
                """
                \(HypervisorRoutes.columns(compute)) WHERE \(SQL.joined(conditions, separator: " AND ")) ORDER BY \
                h.number LIMIT \(limit + 1)
                """
            )
            if let pattern, rows.isEmpty {
                throw ResourceError.notFound("No hypervisor matching '\(pattern.prefix(255))' could be found.")
            }
            let list = try rows.prefix(limit).map {
                try HypervisorRoutes.object($0, context, compute, isDetailed: isDetailed, withServers: withServers)
            }
            var body: JSONObject = ["hypervisors": .array(list)]
            if hasLinks, rows.count > limit, let last = list.last?["id"] {
                let text = last.stringValue ?? last.description
                body["hypervisors_links"] = [["rel": "next", "href": .string(context.nextLink(marker: text))]]
            }
            return .json(200, .object(body))
        }
    }

    private static func object(
        _ row: Row, _ context: RequestContext, _ compute: Compute, isDetailed: Bool, withServers: Bool
    ) throws -> JSONValue {
        let isModern = context.version(atLeast: 2, 53)
        let isUp = try row.bool("is_up")
        var object: JSONObject = [
            "id": isModern ? .string(try row.string("id")) : JSONValue(try row.int("number")),
            "hypervisor_hostname": .string(try row.string("host")), "state": isUp ? "up" : "down",
            "status": try row.bool("enabled") ? "enabled" : "disabled",
        ]
        if withServers, try row.int("servers") > 0 || context.version(atLeast: 2, 75) { object["servers"] = try row.json("list") }
        guard isDetailed else { return .object(object) }
        object["service"] = [
            "id": isModern ? .string(try row.string("service_id")) : JSONValue(try row.int("service_number")),
            "host": .string(try row.string("host")), "disabled_reason": JSONValue(try row.optionalString("disabled_reason")),
        ]
        object["host_ip"] = .string(try row.string("host_ip"))
        object["hypervisor_type"] = .string(try row.string("hypervisor_type"))
        object["hypervisor_version"] = JSONValue(try row.int("hypervisor_version"))
        if context.version(atLeast: 2, 88) {
            object["uptime"] = .null
            return .object(object)
        }
        for (name, value) in try numbers(row) { object[name] = JSONValue(value) }
        let info = try row.json("cpu_info")
        object["cpu_info"] = context.version(atLeast: 2, 28) ? info : .string(info.description)
        return .object(object)
    }

    private static func numbers(_ row: Row) throws -> [(String, Int)] {
        let (vcpus, memory, disk) = (try row.int("vcpus"), try row.int("memory_mb"), try row.int("disk_gb"))
        let (memoryUsed, diskUsed) = (try row.int("ram_used"), try row.int("disk_used"))
        return [
            ("vcpus", vcpus), ("vcpus_used", try row.int("vcpus_used")), ("memory_mb", memory),
            ("memory_mb_used", memoryUsed), ("free_ram_mb", memory - memoryUsed), ("local_gb", disk),
            ("local_gb_used", diskUsed), ("free_disk_gb", disk - diskUsed), ("disk_available_least", disk - diskUsed),
            ("running_vms", try row.int("servers")), ("current_workload", try row.int("building")),
        ]
    }

    private func show(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = context.parameter("hypervisor_id")
        let withServers =
            context.version(atLeast: 2, 53)
            && (context.query["with_servers"].flatMap { BodySchema.boolean($0) } ?? false)
        let compute = compute
        return try await compute.database.read { connection in
            let rows = try connection.query("\(HypervisorRoutes.columns(compute)) WHERE \(HypervisorRoutes.named(id))")
            guard let row = rows.first else {
                throw ResourceError.notFound("Hypervisor with ID '\(id.prefix(64))' could not be found.")
            }
            return .json(
                200,
                [
                    "hypervisor": try HypervisorRoutes.object(row, context, compute, isDetailed: true, withServers: withServers)
                ])
        }
    }

    private func matching(_ context: RequestContext, withServers: Bool) async throws -> Response {
        try context.authorize(target: .none)
        let pattern = context.parameter("hypervisor_id")
        let compute = compute
        return try await compute.database.read { connection in
            let rows = try connection.query("\(HypervisorRoutes.columns(compute)) WHERE strpos(h.host, \(pattern)) > 0 ORDER BY h.number")
            if rows.isEmpty { throw ResourceError.notFound("No hypervisor matching '\(pattern.prefix(255))' could be found.") }
            return .json(
                200,
                [
                    "hypervisors": .array(
                        try rows.map {
                            try HypervisorRoutes.object($0, context, compute, isDetailed: false, withServers: withServers)
                        })
                ])
        }
    }

    private func oldServers(_ context: RequestContext) async throws -> Response { try await matching(context, withServers: true) }
    private func oldSearch(_ context: RequestContext) async throws -> Response { try await matching(context, withServers: false) }

    private func statistics(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        return try await compute.database.read { connection in
            let rows = try connection.query(HypervisorRoutes.columns(compute))
            var sums: [String: Int] = [:]
            for row in rows { for (name, value) in try HypervisorRoutes.numbers(row) { sums[name, default: 0] += value } }
            var object: JSONObject = ["count": JSONValue(rows.count)]
            for name in [
                "vcpus", "vcpus_used", "memory_mb", "memory_mb_used", "free_ram_mb", "local_gb", "local_gb_used",
                "free_disk_gb", "disk_available_least", "running_vms", "current_workload",
            ] {
                object[name] = JSONValue(sums[name] ?? 0)
            }
            return .json(200, ["hypervisor_statistics": .object(object)])
        }
    }
}
