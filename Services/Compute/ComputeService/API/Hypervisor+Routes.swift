import Authorization
import Contracts
import Database
import JSON
import Kernel
import Logging
import Messaging
import Telemetry
import WebAPI

/// Hypervisors: capacity and usage of hosts.
struct HypervisorRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/os-hypervisors"

    var resource: Resource {
        let path = HypervisorRoutes.path
        let detailed = ResourceKind.hypervisors(compute)
        let short = detailed.showing(["id", "hypervisor_hostname", "state", "status", "servers"])
        return Resource(
            "hypervisor",
            routes: [
                Route(
                    .get, path, action: "os_compute_api:os-hypervisors:list", rule: Rule.admin, answer: .list(short), "List hypervisors"
                ) { try await list($0, isDetailed: false) },
                Route(
                    .get, path + "/detail", action: "os_compute_api:os-hypervisors:list-detail", rule: Rule.admin,
                    answer: .list(detailed), "List hypervisors with details"
                ) { try await list($0, isDetailed: true) },
                Route(
                    .get, path + "/statistics", action: "os_compute_api:os-hypervisors:statistics", rule: Rule.admin,
                    versions: .through(87),
                    answer: .form(
                        .wrapped(
                            "hypervisor_statistics",
                            .object([.required("count", .count)] + HypervisorStore.numbers.map { .required($0.name, .integer) }))),
                    "Sums over all hypervisors", handler: statistics),
                Route(
                    .get, path + "/{hypervisor_id}", action: "os_compute_api:os-hypervisors:show", rule: Rule.admin,
                    answer: .one(detailed), "Show a hypervisor", handler: show),
                Route(
                    .get, path + "/{hypervisor_id}/servers", action: "os_compute_api:os-hypervisors:servers", rule: Rule.admin,
                    versions: .through(52), answer: .list(short.withoutQuery), "List the servers of hypervisors"
                ) { try await matching($0, withServers: true) },
                Route(
                    .get, path + "/{hypervisor_id}/search", action: "os_compute_api:os-hypervisors:search", rule: Rule.admin,
                    versions: .through(52), answer: .list(short.withoutQuery), "Find hypervisors"
                ) { try await matching($0, withServers: false) },
                Route(
                    .get, path + "/{hypervisor_id}/uptime", action: "os_compute_api:os-hypervisors:uptime", rule: Rule.admin,
                    versions: .through(87), answer: .form(HypervisorRoutes.uptimeSchema), "Show how long a host has been running",
                    handler: uptime),
            ])
    }

    private func kind(_ context: RequestContext, withServers: Bool, isDetailed: Bool = true, uptime: String? = nil) -> ResourceKind {
        let kind = ResourceKind.hypervisors(compute, hasNumbers: !context.version(atLeast: 2, 53), uptime: uptime)
        let shown = isDetailed ? kind : kind.showing(["id", "hypervisor_hostname", "state", "status", "servers"])
        return withServers ? shown : shown.hiding(["servers"])
    }

    private func asksServers(_ context: RequestContext) throws -> Bool {
        try context.version(atLeast: 2, 53) && context.flag("with_servers")
    }

    private func list(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        try context.authorize(target: .none)
        let pattern = context.version(atLeast: 2, 53) ? context.query["hypervisor_hostname_pattern"] : nil
        let kind = kind(context, withServers: try asksServers(context), isDetailed: isDetailed)
        let request = try kind.listRequest(context)
        return try await compute.database.read { connection in
            let scope = try pattern.map { try HypervisorRoutes.matching(connection, $0) } ?? "true"
            return try kind.list(connection, context, request, scope: scope).response
        }
    }

    /// The condition for hypervisors whose names contain `pattern`.
    ///
    /// - Throws: 404 if there is none.
    private static func matching(_ connection: Connection, _ pattern: String) throws -> SQL {
        guard try HypervisorStore.isMatched(connection, by: pattern) else {
            throw ResourceError.notFound("No hypervisor matching '\(pattern.prefix(255))' could be found.")
        }
        return "strpos(t.host, \(pattern)) > 0"
    }

    private func show(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = context.parameter("hypervisor_id")
        var uptime: String?
        if context.version(atLeast: 2, 88), let host = try await compute.database.read({ try HypervisorStore.place($0, id, compute) }),
            host.isUp
        {
            uptime = try await uptimeText(of: host.name)
        }
        let kind = kind(context, withServers: try asksServers(context), uptime: uptime)
        return try await compute.database.read { try kind.one($0, context, where: HypervisorStore.condition(id), id: id) }
    }

    private static let uptimeSchema = BodySchema.wrapped(
        "hypervisor",
        .object([
            .required("id", .oneOf([.count, .anyText])), .required("hypervisor_hostname", .anyText), .required("state", .anyText),
            .required("status", .anyText), .required("uptime", .nullable(.anyText)),
        ]))

    private func uptime(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = context.parameter("hypervisor_id")
        guard let host = try await compute.database.read({ try HypervisorStore.place($0, id, compute) }) else {
            throw ResourceError.notFound("Hypervisor with ID '\(id.prefix(64))' could not be found.")
        }
        guard host.isUp else {
            throw ResourceError.badRequest("The host \(host.name) is down: it cannot report its uptime.")
        }
        guard let text = try await uptimeText(of: host.name) else {
            throw ResourceError.unavailable("The host \(host.name) does not report its uptime.")
        }
        return .json(
            200,
            [
                "hypervisor": [
                    "id": context.version(atLeast: 2, 53) ? .string(host.id) : JSONValue(host.number),
                    "hypervisor_hostname": .string(host.name), "state": "up", "status": host.isEnabled ? "enabled" : "disabled",
                    "uptime": .string(text),
                ]
            ])
    }

    /// In the format of uptime(1), which clients parse; nil if the host's agent does not answer.
    private func uptimeText(of host: String) async throws -> String? {
        do {
            let answer = try await compute.bus.request(
                HostUptimeQuestion(), to: .agent(host: host), id: compute.ambient.newUUID(), timeout: .seconds(5), expiration: .seconds(10))
            return HostUptimeText.text(answer, at: compute.ambient.now)
        } catch let error as ResourceError {
            compute.log.info("a host did not report its uptime", metadata: ["host": "\(host)", "error": "\(error.message)"])
            return nil
        }
    }

    private func matching(_ context: RequestContext, withServers: Bool) async throws -> Response {
        try context.authorize(target: .none)
        let pattern = context.parameter("hypervisor_id")
        let kind = kind(context, withServers: withServers, isDetailed: false)
        var request = ListRequest()
        request.isWhole = true
        let whole = request
        return try await compute.database.read { connection in
            let scope = try HypervisorRoutes.matching(connection, pattern)
            return try kind.list(connection, context, whole, scope: scope).response
        }
    }

    private func statistics(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let sums = try await compute.database.read { try HypervisorStore.statistics($0) }
        return .json(200, ["hypervisor_statistics": sums])
    }
}

extension ResourceKind {
    /// - Parameters:
    ///   - hasNumbers: whether clients name hypervisors by number, as before 2.53, and not by UUID.
    ///   - uptime: the text for the only hypervisor that is shown.
    static func hypervisors(_ compute: Compute, hasNumbers: Bool = false, uptime: String? = nil) -> ResourceKind {
        let shownUptime = uptime.map { "to_json('\($0.replacing("'", with: "''"))'::text)" } ?? "NULL"
        func service(_ id: String) -> String {
            "json_build_object('id', \(id), 'host', t.host, 'disabled_reason', c.disabled_reason)"
        }
        func serviceShape(_ id: BodySchema) -> BodySchema {
            .object([.required("id", id), .required("host", .anyText), .required("disabled_reason", .nullable(.anyText))])
        }
        let servers = BodySchema.many(.object([.required("uuid", .anyText), .required("name", .anyText)]))
        let fields: [Field] = [
            Field("id", .number, "t.number", versions: .through(52)), Field("id", .text, "t.id", versions: .from(53)),
            Field("hypervisor_hostname", .text, "t.host"),
            Field("state", .text, "CASE WHEN \(Hosts.isUpText("c", compute)) THEN 'up' ELSE 'down' END"),
            Field("status", .text, "CASE WHEN c.enabled THEN 'enabled' ELSE 'disabled' END"),
            Field(
                "servers", .json, "CASE WHEN u.servers > 0 THEN u.list END", presence: .whenSet, versions: .through(74), shape: servers),
            Field("servers", .json, "u.list", presence: .whenSet, versions: .from(75), shape: servers),
            Field("service", .json, service("c.number"), versions: .through(52), shape: serviceShape(.count)),
            Field("service", .json, service("c.id"), versions: .from(53), shape: serviceShape(.anyText)),
            Field("host_ip", .text, "coalesce(t.host_ip, '127.0.0.1')"), Field("hypervisor_type"), Field("hypervisor_version", .number),
            Field("cpu_info", .text, "t.cpu_info::text", versions: .through(27)),
            Field("cpu_info", .json, "t.cpu_info", versions: .between(28, 87), shape: .object([], additional: .allowed)),
            Field("uptime", .json, shownUptime, versions: .from(88)), .sortKey("number", "t.number"),
        ]
        return ResourceKind(
            "hypervisor", path: "os-hypervisors",
            table: Table(
                HypervisorStore.source, key: hasNumbers ? "t.number" : "t.id", keyType: hasNumbers ? .integer : .uuid,
                defaultSort: [("number", false)],
                fields: fields + HypervisorStore.numbers.map { Field($0.name, .number, $0.expression, versions: .through(87)) }),
            visibility: .everything, grammar: .compute(ignoring: ["hypervisor_hostname_pattern", "with_servers"], hasFields: false),
            pages: .next.from(Microversion(2, 33)), bytesPerRow: 1024
        ) { .notFound("Hypervisor with ID '\($0.prefix(64))' could not be found.") }
    }
}
