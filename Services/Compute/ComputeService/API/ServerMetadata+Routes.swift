import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

/// A server's metadata: what its owner writes to it, for itself and for the guest.
struct ServerMetadataRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        let action = "os_compute_api:server-metadata:"
        let map = MapRoutes(
            "/v2.1/servers/{server_id}/metadata", name: "metadata", item: "meta",
            actions: .init(
                list: action + "index", add: action + "create", replace: action + "update_all", show: action + "show",
                set: action + "update", remove: action + "delete", readRule: Rule.reader, writeRule: Rule.member),
            body: ServerSchema.metadata, answer: .textMap, removedStatus: 204,
            missing: { _, _ in .notFound("Metadata item was not found") }, read: read, change: change)
        return Resource("server-metadata", routes: map.routes)
    }

    @Sendable private func read(_ context: RequestContext) async throws -> JSONObject {
        let server = try await compute.authorizedServer(context).value
        return try await compute.database.read { try ServerStore.metadata($0, of: server.id) }
    }

    @Sendable private func change(
        _ context: RequestContext, for action: String, _ change: @escaping MapRoutes.Mutation
    ) async throws -> Response {
        let server = try await compute.authorizedServer(context)
        let id = server.value.id
        return try await context.write(compute.database) { connection in
            try ServerRecord.find(connection, id, lock: true).requireUnlocked(context)
            var response = Response.empty()
            let metadata = try ServerStore.changeMetadata(connection, of: server, for: action, compute) { response = try change(&$0) }
            return Change(response, "server", id, content: ["metadata": .object(metadata)])
        }
    }
}

/// A server's tags (from 2.26), in the order in which they were added.
struct ServerTagRoutes: TagRoutes {
    let compute: Compute
    var database: Database { compute.database }

    let path = "/v2.1/servers/{server_id}/tags"
    let versions = VersionRange.from(26)
    let readRule = Rule.reader
    let writeRule = Rule.member
    let tag = ServerSchema.tag
    let countMax = ServerSchema.tagsMax

    var resource: Resource { Resource("server-tag", routes: routes) }

    func action(_ operation: TagOperation) -> String? {
        let name: String? =
            switch operation {
            case .list: "index"
            case .replace: "update_all"
            case .clear: "delete_all"
            case .show: "show"
            case .set: "update"
            case .remove: "delete"
            case .add: nil
            }
        return name.map { "os_compute_api:os-server-tags:" + $0 }
    }

    var tooMany: ResourceError { .badRequest("The number of tags exceeded the per-server limit \(countMax)") }

    func check(_ tags: [String]) throws { try tags.forEach(ServerRequest.check(tag:)) }

    func ordered(_ tags: [String]) -> [String] { tags.uniqued }

    func added(_ context: RequestContext, isNew: Bool) -> Response {
        isNew ? .empty(201, headers: ["location": "\(context.publicURL)\(context.path)"]) : .empty(204)
    }

    func missing(_ context: RequestContext, _ tag: String) -> ResourceError {
        .notFound("Server \(context.parameter("server_id")) has no tag '\(tag.prefix(64))'")
    }

    func find(_ context: RequestContext, isChange: Bool) async throws -> Authorized<ServerRecord> {
        try await compute.authorizedServer(context)
    }

    func load(_ connection: Connection, _ server: ServerRecord, isChange: Bool) throws -> [String] {
        if isChange { _ = try ServerRecord.find(connection, server.id, lock: true) }
        return try ServerStore.tags(connection, of: server.id)
    }

    func store(_ connection: Connection, _ tags: [String], of server: Authorized<ServerRecord>, for action: String) throws {
        try ServerStore.setTags(connection, of: server, tags, for: action, at: compute.ambient.now)
    }

    func subject(_ server: ServerRecord) -> (name: String, id: String) { ("server", server.id) }
}
