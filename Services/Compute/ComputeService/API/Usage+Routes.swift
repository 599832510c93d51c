import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// The usage of servers over a period, by project: `os-simple-tenant-usage`.
///
/// Pages are counted in servers, ordered by project, creation and id; the marker is a server's id. If a project's servers span two pages,
/// both have a report for the project and clients add them up, as in Nova from 2.40 on. Nova ignores `limit` and `marker` before 2.40; here
/// they apply in all versions, and only the links depend on the version.
extension QuotaRoutes {
    /// The maximum number of servers in an answer without pages.
    private static let usageMax = 100_000

    func usage(_ context: RequestContext, project: String?) async throws -> Response {
        try context.authorize(target: .project(project))
        let period = try UsagePeriod(context, now: compute.ambient.now)
        let request = try context.listRequest(filters: [], ignoring: ["start", "end", "detailed"])
        if !request.sort.isEmpty || request.descending != nil { throw ListRequest.unknownSortKey(request.sort.first?.name ?? "", []) }
        let hasLinks = context.version(atLeast: 2, 40)
        let limit = hasLinks || request.limit != nil ? min(request.limit ?? Limits.pageSizeMax, Limits.pageSizeMax) : QuotaRoutes.usageMax
        let isDetailed = try context.flag("detailed") || project != nil
        return try await compute.database.read { connection in
            let rows = try UsageStore.servers(connection, period, project: project, after: request.marker, limit: limit)
            var reports: [UsageReport] = []
            for row in rows {
                let owner = try row.string("project_id")
                if reports.last?.project != owner { reports.append(UsageReport(project: owner)) }
                try reports[reports.count - 1].add(row, end: period.end)
            }
            let objects = reports.map { $0.object(period, isDetailed: isDetailed) }
            var body: JSONObject = project == nil ? ["tenant_usages": .array(objects)] : ["tenant_usage": objects.first ?? [:]]
            if hasLinks, limit > 0, rows.count == limit {
                let link = context.nextLink(marker: try rows[rows.count - 1].string("id"))
                body[project == nil ? "tenant_usages_links" : "tenant_usage_links"] = [["rel": "next", "href": .string(link)]]
            }
            return .json(200, .object(body))
        }
    }
}

/// The period of a usage request.
struct UsagePeriod: Sendable {
    let start: Timestamp
    let end: Timestamp

    /// - Throws: 400 naming an invalid time, or if the period is empty.
    init(_ context: RequestContext, now: Timestamp) throws {
        func time(_ name: String, _ fallback: Timestamp) throws -> Timestamp {
            guard let text = context.query[name], !text.isEmpty else { return fallback }
            guard let time = Timestamp(text) else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for query parameters \(name). Value: '\(text.prefix(64))'. It must be a time in \
                    ISO 8601, for example 2026-01-31T12:00:00.
                    """
                )
            }
            return time
        }
        end = try time("end", now)
        start = try time("start", end + .seconds(-4 * 7 * 86_400))
        guard start < end else {
            throw ResourceError.badRequest(
                "Invalid input for query parameters start. Value: '\(start.iso8601)'. It must be before end ('\(end.iso8601)').")
        }
    }
}

/// A project's servers over a period.
struct UsageReport {
    let project: String
    var hours = 0.0
    var memory = 0.0
    var disk = 0.0
    var vcpus = 0.0
    var servers: [JSONValue] = []

    init(project: String) { self.project = project }

    private static let serverShape = BodySchema.object([
        .required("instance_id", .anyText), .required("name", .anyText), .required("hours", .number), .required("tenant_id", .anyText),
        .required("flavor", .anyText), .required("memory_mb", .count), .required("local_gb", .count), .required("vcpus", .count),
        .required("started_at", .anyText), .required("ended_at", .nullable(.anyText)), .required("state", .anyText),
        .required("uptime", .integer(min: Int.min, max: Int.max)),
    ])

    private static let shape = BodySchema.object([
        .required("tenant_id", .anyText), .required("start", .anyText), .required("stop", .anyText), .required("total_hours", .number),
        .required("total_memory_mb_usage", .number), .required("total_local_gb_usage", .number),
        .required("total_vcpus_usage", .number), .init("server_usages", .many(serverShape)),
    ])

    static let listSchema = BodySchema.object([.required("tenant_usages", .many(shape)), .init("tenant_usages_links", .links)])
    /// Without servers in the period, the response is an empty object.
    static let schema = BodySchema.object([.required("tenant_usage", .oneOf([shape, .object([])])), .init("tenant_usage_links", .links)])

    fileprivate mutating func add(_ row: Row, end: Timestamp) throws {
        let flavor = try row.json("flavor")
        let span = max(0, try row.optionalDouble("hours") ?? 0)
        func number(_ name: String) -> Double { flavor[name]?.doubleValue ?? 0 }
        hours += span
        memory += span * number("ram")
        disk += span * (number("disk") + number("ephemeral"))
        vcpus += span * number("vcpus")
        let ended = try row.optionalTimestamp("terminated_at")
        servers.append([
            "instance_id": .string(try row.string("id")), "name": .string(try row.string("name")), "hours": .double(span),
            "tenant_id": .string(project), "flavor": flavor["original_name"] ?? "",
            "memory_mb": flavor["ram"] ?? 0, "local_gb": .integer(Int64(number("disk") + number("ephemeral"))),
            "vcpus": flavor["vcpus"] ?? 0, "started_at": JSONValue(try row.timestamp("launched_at").iso8601NoZone),
            "ended_at": JSONValue(ended?.iso8601NoZone), "state": .string(ended == nil ? try row.string("vm_state") : "terminated"),
            "uptime": .integer((ended ?? end).seconds - (try row.timestamp("launched_at")).seconds),
        ])
    }

    fileprivate func object(_ period: UsagePeriod, isDetailed: Bool) -> JSONValue {
        var object: JSONObject = [
            "tenant_id": .string(project), "start": .string(period.start.iso8601NoZone), "stop": .string(period.end.iso8601NoZone),
            "total_hours": .double(hours), "total_memory_mb_usage": .double(memory),
            "total_local_gb_usage": .double(disk), "total_vcpus_usage": .double(vcpus),
        ]
        if isDetailed { object["server_usages"] = .array(servers) }
        return .object(object)
    }
}
