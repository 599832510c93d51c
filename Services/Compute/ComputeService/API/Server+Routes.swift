import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// Servers: making, reading, changing and ending them.
struct ServerRoutes: Sendable {
    let compute: Compute
    let kind: ResourceKind
    /// `/servers` and `/servers/detail`.
    private let short: ResourceKind
    private let detailed: ResourceKind

    init(compute: Compute) {
        self.compute = compute
        kind = .servers(hostDownAfter: compute.settings.hostDownAfter)
        short = kind.showing(ServerFields.short)
        detailed = kind.hiding(["server_groups"])
    }

    private static let path = "/v2.1/servers"
    private static let one = "/v2.1/servers/{server_id}"

    var resource: Resource {
        let path = ServerRoutes.path
        let one = ServerRoutes.one
        return Resource(
            "server",
            routes: [
                Route(.get, path, action: "os_compute_api:servers:index", rule: Rule.reader, answer: .list(short), "List servers") {
                    try await list($0, short)
                },
                Route(
                    .get, path + "/detail", action: "os_compute_api:servers:detail", rule: Rule.reader, answer: .list(detailed),
                    "List servers with details"
                ) { try await list($0, detailed) },
                Route(
                    .post, path, action: "os_compute_api:servers:create", rule: Rule.member,
                    body: .json(ServerSchema.create), status: 202, answer: .form(ServerRoutes.accepted), "Create servers", handler: create),
                Route(
                    .get, one, action: "os_compute_api:servers:show", rule: Rule.reader, answer: .one(kind), "Show a server",
                    handler: show),
                Route(
                    .put, one, action: "os_compute_api:servers:update", rule: Rule.member,
                    body: .json(ServerSchema.update), answer: .one(kind), "Change a server", handler: update),
                Route(.delete, one, action: "os_compute_api:servers:delete", rule: Rule.member, status: 204, "Delete a server") {
                    try await delete($0, isForced: false)
                },
                .action(
                    one, key: "forceDelete", action: "os_compute_api:os-deferred-delete:force", rule: Rule.member, "Delete a server at once"
                ) { try await delete($0, isForced: true, status: 202) },
                Route(
                    .get, one + "/ips", action: "os_compute_api:ips:index", rule: Rule.reader,
                    answer: .form(.wrapped("addresses", ServerRoutes.addresses)), "List addresses"
                ) { context in
                    let addresses = try await self.addresses(context)
                    return .json(200, ["addresses": addresses])
                },
                Route(
                    .get, one + "/ips/{network}", action: "os_compute_api:ips:show", rule: Rule.reader,
                    answer: .form(ServerRoutes.addresses), "List addresses on a network"
                ) { context in
                    let name = context.parameter("network")
                    guard let list = try await self.addresses(context)[name] else {
                        throw ResourceError.notFound("Network \(name.prefix(255)) not found")
                    }
                    return .json(200, .object([name: list]))
                },
            ])
    }

    // MARK: reading

    private static let accepted = BodySchema.oneOf([
        .object([.required("reservation_id", .anyText)]),
        .wrapped(
            "server",
            .object([
                .required("id", .anyText), .required("links", .links), .required("OS-DCF:diskConfig", .anyText),
                .required("security_groups", .many(.object([.required("name", .anyText)]))), .required("adminPass", .anyText),
            ])),
    ])

    private static let addresses = BodySchema.object(
        [], additional: .values(.many(.object([.required("version", .count), .required("addr", .anyText)]))))

    private func list(_ context: RequestContext, _ kind: ResourceKind) async throws -> Response {
        try context.authorize(target: .project(try context.caller.projectID))
        let request = try kind.listRequest(context)
        if let long = request.filters.first(where: { $0.value.utf8.count > 1024 }) {
            throw ResourceError.badRequest("The value of the filter '\(long.name)' is longer than 1024 bytes.")
        }
        let scope = try kind.visibility.rows(context)
        return try await compute.database.read { try kind.list($0, context, request, scope: scope).response }
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        return try await compute.database.read { try response($0, context, id: server.id) }
    }

    /// `{"server": {…}}`
    /// - Parameter isChange: the answer to a change, which has all fields from 2.75 on.
    private func response(
        _ connection: Connection, _ context: RequestContext, id: String, isChange: Bool = false, without hidden: Set<String> = []
    ) throws -> Response {
        let (fields, rows) = try row(connection, context, id: id, isChange: isChange, without: hidden)
        return try .object(capacity: 4096) {
            $0.name("server")
            try RowWriter(fields, context).object(rows, row: 0, into: &$0)
        }
    }

    /// A server's row with the fields that the caller sees.
    ///
    /// - Parameter added: fields that only this answer has.
    /// - Throws: 404.
    func row(
        _ connection: Connection, _ context: RequestContext, id: String, isChange: Bool, adding added: [Field] = [],
        without hidden: Set<String> = []
    ) throws -> (fields: [Field], rows: Rows) {
        let isOperator = context.allows("os_compute_api:os-extended-server-attributes")
        let isBrief = isChange && !context.version(atLeast: 2, 75)
        let fields = kind.table.visible(context).filter {
            !hidden.contains($0.name) && (!isBrief || !ServerFields.isShownOnly($0))
        }.map { field in
            if isBrief, field.name == "addresses" { return ServerFields.briefAddresses }
            guard field.name == "fault", isOperator else { return field }
            return Field("fault", .json, "CASE WHEN t.vm_state IN ('error', 'deleted') THEN t.fault END", presence: .whenSet)
        }
        let all = fields + added
        let rows = try kind.table.query(connection, all, where: "t.id = \(id)")
        guard !rows.isEmpty else { throw ServerRecord.missing(id) }
        return (all, rows)
    }

    private func addresses(_ context: RequestContext) async throws -> JSONValue {
        let server = try await compute.authorizedServer(context).value
        let fields = kind.table.fields.filter { $0.name == "addresses" }
        let all = try await compute.database.read { connection -> JSONValue in
            let rows = try kind.table.query(connection, fields, where: "t.id = \(server.id)")
            guard let bytes = rows.utf8(row: 0, column: 0) else { return [:] }
            return try JSONValue.parse(Array(bytes))
        }
        var result: JSONObject = [:]
        for member in all.objectValue?.members ?? [] {
            result[member.name] = .array(
                (member.value.arrayValue ?? []).map { entry in
                    ["version": entry["version"] ?? 4, "addr": entry["addr"] ?? ""]
                })
        }
        return .object(result)
    }

    // MARK: creating

    /// The policy action for a host of the zone, and that for a host of its own member (2.74).
    static let forcedHost = "os_compute_api:servers:create:forced_host"
    static let requestedDestination = "compute:servers:create:requested_destination"

    /// - Throws: 403 if the caller may not choose the host.
    static func requireTarget(_ context: RequestContext, _ zone: ZoneRequest) throws {
        guard zone.target != nil else { return }
        let action = zone.isForced ? forcedHost : requestedDestination
        guard context.allows(action) else { throw ResourceError.forbidden("Policy doesn't allow \(action) to be performed.") }
    }

    private func create(_ context: RequestContext) async throws -> Response {
        let project = try context.caller.requireProject()
        let decision = try context.authorize(project, target: .project(project))
        let request = try ServerRequest(
            context.body, networksRequired: context.version(atLeast: 2, 37), knowsMultiattach: context.version(atLeast: 2, 60))
        try ServerRoutes.requireTarget(context, request.zone)
        let owner = try ServerOwner(context, project: project)
        let workflow = ServerCreate(compute).workflow
        let compute = compute
        return try await context.write(compute.database) { connection in
            let ids = try ServerCreation(
                connection: connection, ambient: compute.ambient, settings: compute.settings, images: compute.images,
                workflow: workflow, owner: owner, request: request
            ).run(decision)
            return Change(
                try ServerRoutes.accepted(connection, context, ids, request, compute.ambient), "server", ids[0],
                content: [
                    "ids": JSONValue(ids), "name": .string(request.name), "flavor": .string(request.flavorRef),
                    "image": JSONValue(request.imageID), "availability_zone": JSONValue(request.zone.zone), "tags": JSONValue(request.tags),
                ])
        }
    }

    private static func accepted(
        _ connection: Connection, _ context: RequestContext, _ ids: [String], _ request: ServerRequest, _ ambient: Ambient
    ) throws -> Response {
        if request.returnsReservation {
            return .json(202, ["reservation_id": .string(try ServerStore.reservation(connection, of: ids[0]))])
        }
        let groups = request.securityGroups.isEmpty ? ["default"] : request.securityGroups
        var response = Response.object(202) {
            $0.objectField("server") { server in
                server.field("id", ids[0])
                server.name("links")
                Link.write(Field.links("servers").links, ids[0], context, into: &server)
                server.field("OS-DCF:diskConfig", request.diskConfig)
                server.field("security_groups", .array(groups.map { ["name": .string($0)] }))
                server.field("adminPass", request.adminPass ?? ambient.newSecret(length: 12))
            }
        }
        response.headers["location"] = "\(context.publicURL)/v2.1/servers/\(ids[0])"
        return response
    }

    // MARK: changing

    private func update(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:servers:update")
        let body = context.body["server"] ?? [:]
        let now = compute.ambient.now
        try ServerRequest.checkAccessAddresses(body)
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            _ = try ServerRecord.find(connection, server.id, lock: true)
            var changes = Changes()
            if let name = body["name"]?.stringValue { changes.set("name", name) }
            if let description = body["description"] { changes.set("description", description.stringValue) }
            if let config = body["OS-DCF:diskConfig"]?.stringValue { changes.set("disk_config", config) }
            if let address = body["accessIPv4"] { changes.set("access_ip_v4", address.stringValue) }
            if let address = body["accessIPv6"] {
                changes.set("access_ip_v6", address.stringValue.map { IPAddress($0)?.description ?? $0 })
            }
            if let hostname = body["hostname"]?.stringValue { changes.set("hostname", hostname) }
            if let zone = body["pinned_availability_zone"] {
                try ServerRoutes.checkPin(connection, server.id, zone: zone.stringValue)
                changes.set("pinned_zone", zone.stringValue)
            }
            try ServerStore.update(connection, decision, changes, at: now)
            if body["name"] != nil || body["hostname"] != nil {
                try DesiredState.change(connection, of: decision, for: "os_compute_api:servers:update", ambient: ambient)
            }
            // User data may hold secrets.
            let record = try response(
                connection, context, id: server.id, isChange: true, without: ["OS-EXT-SRV-ATTR:user_data"])
            return Change(answer: record, "server", server.id, member: "server")
                .answering(try response(connection, context, id: server.id, isChange: true), holdsSecret: false)
        }
    }

    /// Checks that a server can be pinned to a zone: only to its current zone, and only if it is not pinned to another one.
    ///
    /// - Throws: 409 with Nova's message.
    private static func checkPin(_ connection: Connection, _ id: String, zone: String?) throws {
        guard let zone else { return }
        let (pinned, current) = try ServerStore.zones(connection, of: id)
        if let pinned {
            if pinned == zone { return }
            throw ResourceError.conflict(
                "Cannot change pinned availability zone directly. Unpin first by setting pinned_availability_zone to null.")
        }
        guard current == zone else {
            throw ResourceError.conflict(
                "Server can only be pinned to its current availability zone '\(current)', but '\(zone.prefix(255))' was requested.")
        }
    }

    /// - Parameter isForced: whether the server is removed at once, even if deleted servers are kept for a restore.
    private func delete(_ context: RequestContext, isForced: Bool, status: Int = 204) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:servers:delete", "os_compute_api:os-deferred-delete:force")
        let deletion = ServerDeletion(compute)
        let origin = try ActionOrigin(context)
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.id, lock: true)
            try current.requireUnlocked(context)
            if try isForced || !deletion.keep(connection, decision, current, origin) {
                try deletion.begin(connection, decision, current, origin)
            }
            return Change(.empty(status), "server", server.id)
        }
    }
}
