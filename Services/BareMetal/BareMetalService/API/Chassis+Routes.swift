import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// Groups of nodes that are in one chassis.
extension ResourceKind {
    static let chassis = ResourceKind(
        "chassis", plural: "chassis",
        table: Table(
            "bare_metal_chassis t", defaultSort: [("created_at", false)],
            fields: [
                Field("uuid", .text, "t.id", sortable: true), Field("description", sortable: true, isSettable: true),
                Field("extra", .json, isSettable: true), Field("created_at", .timestampMicroseconds, sortable: true),
                Field("updated_at", .timestampMicroseconds, sortable: true),
                Field("links", .links([.absolute("self", "/v1/chassis"), .absolute("bookmark", "/chassis")])),
            ]), relation: "bare_metal_chassis", envelope: .bare, visibility: .everything, grammar: .bareMetal, pages: .bareMetal
    ) { .notFound("Chassis \($0.prefix(64)) could not be found.") }

    static let chassisSummaries = chassis.showing(["uuid", "description", "links"])
}

struct ChassisRoutes: Sendable {
    let bareMetal: BareMetal
    private var database: Database { bareMetal.database }

    var resource: Resource {
        let (all, one) = ("/v1/chassis", "/v1/chassis/{chassis}")
        let get = "baremetal:chassis:get"
        return Resource(
            "chassis",
            routes: [
                Route(.get, all, action: get, rule: NodePolicy.admin, answer: .list(.chassisSummaries), "List chassis") {
                    try await ($0.query.wantsDetails() ? ResourceKind.chassis : .chassisSummaries).list(database, $0)
                },
                Route(.get, all + "/detail", action: get, rule: NodePolicy.admin, answer: .list(.chassis), "List chassis in detail") {
                    try await ResourceKind.chassis.list(database, $0)
                },
                Route(
                    .post, all, action: "baremetal:chassis:create", rule: NodePolicy.admin, body: .json(ChassisRoutes.new), status: 201,
                    answer: .one(.chassis), "Create a chassis", handler: create),
                Route(.get, one, action: get, rule: NodePolicy.admin, answer: .one(.chassis), "Show a chassis") { context in
                    let id = try id(context).value
                    return try await database.read { try ResourceKind.chassis.one($0, context, where: "t.id = \(id)", id: "\(id)") }
                },
                Route(
                    .patch, one, action: "baremetal:chassis:update", rule: NodePolicy.admin, body: .json(.any), answer: .one(.chassis),
                    "Change a chassis", handler: update),
                Route(
                    .delete, one, action: "baremetal:chassis:delete", rule: NodePolicy.admin, status: 204, "Remove a chassis"
                ) { context in
                    let chassis = try id(context)
                    return try await context.write(database) { connection in
                        try ChassisStore.delete(connection, chassis)
                        return Change(.empty(204), "chassis", chassis.value.description)
                    }
                },
            ])
    }

    private static let settable: [BodySchema.Property] = [
        .init("description", .nullable(.text)), .init("extra", .nullable(.object([], additional: .allowed))),
    ]
    private static let new = BodySchema.object([.init("uuid", .nullable(.uuid))] + settable)

    /// Chassis have no owner, so the decision does not depend on the row.
    private func id(_ context: RequestContext) throws -> Authorized<UUID128> {
        guard let id = UUID128(context.parameter("chassis")) else {
            try context.authorize(target: .none)
            throw ResourceKind.chassis.notFound(context.parameter("chassis"))
        }
        return try context.authorize(id, target: .none)
    }

    private static func settings(_ body: JSONObject) throws -> [Setting] {
        var body = body
        if let value = body["extra"] { body["extra"] = .object(try NodeRules.document(value, "extra")) }
        return ResourceKind.chassis.settings(body)
    }

    private func create(_ context: RequestContext) async throws -> Response {
        let body = context.body.objectValue ?? [:]
        let id = body["uuid"]?.stringValue.flatMap { UUID128($0) } ?? context.ambient.newUUID()
        let chassis = try context.authorize(id, target: .none)
        let changes = Changes(try ChassisRoutes.settings(body))
        return try await context.write(database) { connection in
            try ChassisStore.insert(connection, chassis, changes, at: context.ambient.now)
            return try change(connection, context, id, status: 201)
        }
    }

    private func update(_ context: RequestContext) async throws -> Response {
        let chassis = try id(context)
        let patch = try JSONPatch(context.body)
        return try await context.write(database) { connection in
            guard let old = try ChassisStore.document(connection, chassis.value) else {
                throw ResourceKind.chassis.notFound("\(chassis.value)")
            }
            let new = try patch.applied(to: old, members: Set(ChassisRoutes.settable.map(\.name)))
            let checked = try BodySchema.object(ChassisRoutes.settable).validate(.object(new), version: context.version).objectValue ?? [:]
            try ChassisStore.update(connection, chassis, Changes(try ChassisRoutes.settings(checked)), at: context.ambient.now)
            return try change(connection, context, chassis.value, status: 200)
        }
    }

    private func change(_ connection: Connection, _ context: RequestContext, _ id: UUID128, status: Int) throws -> Change {
        var response = try ResourceKind.chassis.one(connection, context, where: "t.id = \(id)", id: "\(id)", status: status)
        if status == 201 { response.headers["location"] = "\(context.publicURL)/v1/chassis/\(id)" }
        return Change(answer: response, "chassis", id.description)
    }
}
