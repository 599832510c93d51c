import ComputeCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// Servers: making, reading, changing and ending them.
struct ServerRoutes: Sendable {
    let compute: Compute
    private let table: Table

    init(compute: Compute) {
        self.compute = compute
        table = ServerTable.table(hostDownAfter: compute.settings.hostDownAfter)
    }

    private static let path = "/v2.1/servers"
    private static let one = "/v2.1/servers/{server_id}"

    var resource: Resource {
        let path = ServerRoutes.path
        let one = ServerRoutes.one
        return Resource(
            "server",
            routes: [
                Route(.get, path, action: "os_compute_api:servers:index", rule: Rule.reader, "List servers") {
                    try await list($0, only: ServerTable.short)
                },
                Route(.get, path + "/detail", action: "os_compute_api:servers:detail", rule: Rule.reader, "List servers with details") {
                    try await list($0, only: nil)
                },
                Route(
                    .post, path, action: "os_compute_api:servers:create", rule: Rule.member,
                    body: .json(ServerSchema.create), status: 202, "Create servers", handler: create),
                Route(.get, one, action: "os_compute_api:servers:show", rule: Rule.reader, "Show a server", handler: show),
                Route(
                    .put, one, action: "os_compute_api:servers:update", rule: Rule.member,
                    body: .json(ServerSchema.update), "Change a server", handler: update),
                Route(.delete, one, action: "os_compute_api:servers:delete", rule: Rule.member, status: 204, "Delete a server") {
                    try await delete($0, action: "delete")
                },
                Route(
                    .post, one + "/action", key: "forceDelete", action: "os_compute_api:os-deferred-delete:force",
                    rule: Rule.member, body: .json(.wrapped("forceDelete", .any)), status: 202, "Delete a server at once"
                ) { try await delete($0, action: "forceDelete", status: 202) },
                Route(.get, one + "/ips", action: "os_compute_api:ips:index", rule: Rule.reader, "List addresses") { context in
                    let addresses = try await self.addresses(context)
                    return .json(200, ["addresses": addresses])
                },
                Route(.get, one + "/ips/{network}", action: "os_compute_api:ips:show", rule: Rule.reader, "List addresses on a network") {
                    context in
                    let name = context.parameter("network")
                    guard let list = try await self.addresses(context)[name] else {
                        throw ResourceError.notFound("Network \(name.prefix(255)) not found")
                    }
                    return .json(200, .object([name: list]))
                },
            ])
    }

    // MARK: reading

    private static let ignored: Set<String> = ["all_tenants", "all_projects", "deleted"]

    private func list(_ context: RequestContext, only names: Set<String>?) async throws -> Response {
        try context.authorize(target: .project(try context.caller.projectID))
        let isOperator = context.allows("os_compute_api:servers:allow_all_filters")
        let request = try context.listRequest(
            filters: ServerTable.names(context, isOperator: isOperator),
            ignoring: ServerRoutes.ignored.union(ServerTable.everything))
        if let long = request.filters.first(where: { $0.value.utf8.count > 1024 }) {
            throw ResourceError.badRequest("The value of the filter '\(long.name)' is longer than 1024 bytes.")
        }
        let scope = try scope(context, isOperator: isOperator, request)
        let fields = table.visible(context, only: names).filter { $0.name != "server_groups" }
        return try await compute.database.read { connection in
            try table.list(
                connection, context, collection: "servers", request, fields: fields, scope: scope, bytesPerRow: names == nil ? 2048 : 384)
        }
    }

    private func scope(_ context: RequestContext, isOperator: Bool, _ request: ListRequest) throws -> SQL {
        var conditions: [SQL] = []
        let all = context.query["all_tenants"] ?? context.query["all_projects"]
        if let all, all.isEmpty || BodySchema.boolean(all) ?? false {
            let action = (context.route.action ?? "") + ":get_all_tenants"
            guard context.allows(action) else {
                throw ResourceError.forbidden("Policy doesn't allow \(action) to be performed.")
            }
        } else {
            if let all, BodySchema.boolean(all) == nil {
                throw ResourceError.badRequest("Invalid value '\(all.prefix(64))' for all_tenants: it must be a boolean.")
            }
            conditions.append("t.project_id = \(try context.caller.requireProject())")
        }
        let deleted = context.query["deleted"].flatMap { BodySchema.boolean($0) }
        let hasTimes = request.filters.contains { $0.name == "changes-since" }
        let asksDeleted = request.filters.contains { $0.name == "status" && $0.value.uppercased() == "DELETED" }
        if asksDeleted, !isOperator { throw ResourceError.forbidden("Only administrators may list deleted instances") }
        switch deleted {
        case true? where isOperator: conditions.append("t.deleted")
        case false? where isOperator: conditions.append("NOT t.deleted")
        default: if !hasTimes, !asksDeleted { conditions.append("NOT t.deleted") }
        }
        return conditions.isEmpty ? "true" : SQL.joined(conditions, separator: " AND ")
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        return try await compute.database.read { try response($0, context, id: server.id) }
    }

    /// `{"server": {…}}`
    /// - Parameter isChange: the answer to a change, which has all fields from 2.75 on.
    private func response(
        _ connection: Connection, _ context: RequestContext, id: String, isChange: Bool = false
    ) throws -> Response {
        let isOperator = context.allows("os_compute_api:os-extended-server-attributes")
        let isBrief = isChange && !context.version(atLeast: 2, 75)
        let fields = table.visible(context).filter { !isBrief || !ServerTable.isShownOnly($0) }.map { field in
            guard field.name == "fault", isOperator else { return field }
            return Field("fault", .json, "CASE WHEN t.vm_state IN ('error', 'deleted') THEN t.fault END", presence: .whenSet)
        }
        let rows = try table.query(connection, fields, where: "t.id = \(id)")
        guard !rows.isEmpty else { throw ServerRecord.missing(id) }
        return try .object(capacity: 4096) {
            $0.name("server")
            try RowWriter(fields, context).object(rows, row: 0, into: &$0)
        }
    }

    private func addresses(_ context: RequestContext) async throws -> JSONValue {
        let server = try await compute.authorizedServer(context).value
        let fields = table.fields.filter { $0.name == "addresses" }
        let all = try await compute.database.read { connection -> JSONValue in
            let rows = try table.query(connection, fields, where: "t.id = \(server.id)")
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

    private func create(_ context: RequestContext) async throws -> Response {
        let project = try context.caller.requireProject()
        let decision = try context.authorize(project, target: .project(project))
        let request = try ServerRequest(context.body, networksRequired: context.version(atLeast: 2, 37))
        if request.zone.target != nil, !context.allows("os_compute_api:servers:create:forced_host") {
            throw ResourceError.forbidden("Policy doesn't allow os_compute_api:servers:create:forced_host to be performed.")
        }
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
                content: ["ids": JSONValue(ids), "name": .string(request.name), "flavor": .string(request.flavorRef)])
        }
    }

    private static func accepted(
        _ connection: Connection, _ context: RequestContext, _ ids: [String], _ request: ServerRequest, _ ambient: Ambient
    ) throws -> Response {
        if request.returnsReservation {
            let row = try connection.query("SELECT reservation_id FROM servers WHERE id = \(ids[0])")[0]
            return .json(202, ["reservation_id": .string(try row.string("reservation_id"))])
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
        let server = try await compute.authorizedServer(context).value(for: "os_compute_api:servers:update")
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
            try changes.apply(connection, "servers", server.id, at: now, touching: true)
            if body["name"] != nil || body["hostname"] != nil {
                try DesiredState.change(connection, server: server.id)
                try DesiredState.publish(connection, server: server.id, ambient: ambient)
            }
            return Change(
                try response(connection, context, id: server.id, isChange: true), "server", server.id, content: body)
        }
    }

    private func delete(_ context: RequestContext, action: String, status: Int = 204) async throws -> Response {
        let server = try await compute.authorizedServer(context)
            .value(for: "os_compute_api:servers:delete", "os_compute_api:os-deferred-delete:force")
        let workflow = ServerDelete(compute).workflow
        let ambient = compute.ambient
        let user = try context.caller.userID
        let project = try context.caller.projectID
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.id, lock: true)
            try current.requireUnlocked(context)
            if current.taskState != "deleting" {
                try connection.execute(
                    "UPDATE servers SET task_state = 'deleting', updated_at = \(ambient.now) WHERE id = \(server.id)")
                try ServerActions.begin(
                    connection, server: server.id, action: "delete", event: "compute_terminate_instance",
                    requestID: context.requestID, user: user, project: project, now: ambient.now)
                try Workflows.startOrIntend(
                    connection, workflow, intent: ServerCreate.deleteIntent, subject: server.id,
                    requestID: context.requestID, ambient: ambient)
            }
            return Change(.empty(status), "server", server.id)
        }
    }
}
