import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    static let instanceActions = ResourceKind(
        "instanceAction",
        table: Table(
            "server_actions t", key: "t.request_id", keyType: .text, defaultSort: [("number", true)],
            fields: [
                Field("action"), Field("instance_uuid", .text, "t.server_id"), Field("request_id"), Field("user_id"),
                Field("project_id"), Field("start_time", .timestampMicroseconds), Field("message"),
                Field("updated_at", .timestampMicroseconds, versions: .from(58)), .sortKey("number", "t.id"),
                .filter("changes-since", .time { "t.updated_at >= \($0)" }.from(Microversion(2, 58))),
                .filter("changes-before", .time { "t.updated_at <= \($0)" }.from(Microversion(2, 66))),
            ]), relation: "server_actions", visibility: .everything, grammar: .compute(), pages: .next.from(Microversion(2, 58))
    ) { .notFound("Action for request_id \($0.prefix(64)) not found") }

    /// Only a single action has events; its route adds them.
    static let instanceActionsWithEvents = instanceActions.adding([
        Field(
            "events", .json, "NULL", presence: .whenSet,
            shape: .many(
                .object([
                    .required("event", .anyText), .required("start_time", .nullable(.anyText)),
                    .required("finish_time", .nullable(.anyText)),
                    .required("result", .nullable(.anyText)), .init("traceback", .nullable(.anyText)), .init("hostId", .anyText),
                    .init("host", .nullable(.anyText)), .init("details", .nullable(.anyText)),
                ])))
    ])
}

extension Field.Filter {
    /// A filter by a time.
    static func time(_ condition: @escaping @Sendable (Timestamp) -> SQL) -> Field.Filter {
        .custom { value in
            guard let time = Timestamp(value) else {
                throw ResourceError.badRequest("Invalid filter value '\(value.prefix(64))': expected ISO 8601 (2026-01-31T12:00:00Z).")
            }
            return condition(time)
        }
    }
}

/// The actions on a server, with their user and result.
struct InstanceActionRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/servers/{server_id}/os-instance-actions"

    var resource: Resource {
        let path = InstanceActionRoutes.path
        return Resource(
            "instance-action",
            routes: [
                Route(
                    .get, path, action: "os_compute_api:os-instance-actions:list", rule: Rule.reader, answer: .list(.instanceActions),
                    "List what was done with a server", handler: list),
                Route(
                    .get, path + "/{request_id}", action: "os_compute_api:os-instance-actions:show", rule: Rule.reader,
                    answer: .one(.instanceActionsWithEvents), "Show one action with its events", handler: show),
            ])
    }

    /// Actions of servers that have ended are kept and can still be read.
    private func server(_ context: RequestContext) async throws -> String {
        let id = try context.uuidParameter("server_id", of: "Instance")
        let project = try await compute.database.read { try ServerStore.project($0, of: id) }
        guard let project else {
            try context.authorize(target: .project(try context.caller.projectID))
            throw ServerRecord.missing(id)
        }
        return try context.authorizeVisible(
            id, target: .project(project), visibleBy: "os_compute_api:servers:show", notFound: ServerRecord.missing(id)
        ).value
    }

    private func list(_ context: RequestContext) async throws -> Response {
        let id = try await server(context)
        return try await compute.database.read {
            try ResourceKind.instanceActions.list($0, context, where: ["t.server_id = \(id)"])
        }
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let id = try await server(context)
        let request = context.parameter("request_id")
        let seesEvents = context.version(atLeast: 2, 51) || context.allows("os_compute_api:os-instance-actions:events")
        let seesDetails = context.allows("os_compute_api:os-instance-actions:events:details")
        return try await compute.database.read { connection in
            let table = ResourceKind.instanceActions.table
            let fields = table.visible(context)
            let rows = try ServerActions.first(connection, table, fields, server: id, requestID: request)
            guard !rows.isEmpty else {
                throw ResourceError.notFound("Action for request_id \(request.prefix(64)) on instance \(id) not found")
            }
            let events = try ServerActions.events(connection, server: id, requestID: request)
            return try .object { writer in
                try writer.objectField("instanceAction") { action in
                    try RowWriter(fields, context).members(rows, row: 0, into: &action)
                    guard seesEvents else { return }
                    action.arrayField("events") { list in
                        for event in events { list.value(InstanceActionRoutes.json(event, context, seesDetails: seesDetails)) }
                    }
                }
            }
        }
    }

    private static func json(_ event: ServerActions.Event, _ context: RequestContext, seesDetails: Bool) -> JSONValue {
        var object: JSONObject = [
            "event": JSONValue(event.name), "start_time": JSONValue(event.startTime.iso8601NoZone),
            "finish_time": JSONValue(event.finishTime?.iso8601NoZone), "result": JSONValue(event.result),
        ]
        if seesDetails || !context.version(atLeast: 2, 51) {
            object["traceback"] = seesDetails ? JSONValue(event.details) : .null
        }
        if context.version(atLeast: 2, 62) {
            object["hostId"] = .string(event.hostID ?? "")
            if seesDetails { object["host"] = JSONValue(event.host) }
        }
        if context.version(atLeast: 2, 84) {
            object["details"] = seesDetails ? JSONValue(event.details) : .null
        }
        return .object(object)
    }
}
