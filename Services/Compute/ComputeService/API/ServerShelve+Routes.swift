import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// `shelve`, `shelveOffload` and `unshelve`.
struct ServerShelveRoutes: Sendable {
    let compute: Compute

    private static let shelve = "os_compute_api:os-shelve:shelve"
    private static let offload = "os_compute_api:os-shelve:shelve_offload"
    private static let unshelve = "os_compute_api:os-shelve:unshelve"
    /// The policy action for naming the host of an unshelved server.
    static let toHost = "os_compute_api:os-shelve:unshelve_to_host"

    var resource: Resource {
        let path = ServerActionRoutes.path
        let zone = BodySchema.object([.init("availability_zone", .identifier, required: true)])
        let place = BodySchema.object([.init("availability_zone", .nullable(.identifier)), .init("host", .identifier)])
        return Resource(
            "server-shelve",
            routes: [
                .action(
                    path, key: "shelve", action: ServerShelveRoutes.shelve, rule: Rule.member, "Shelve a server", handler: shelve),
                .action(
                    path, key: "shelveOffload", action: ServerShelveRoutes.offload, rule: Rule.admin,
                    "Remove a shelved server from its host", handler: offload),
                unshelve(.through(76), .noMembers), unshelve(.between(77, 90), .nullable(zone)), unshelve(.from(91), .nullable(place)),
            ])
    }

    private func unshelve(_ versions: VersionRange, _ schema: BodySchema) -> Route {
        .action(
            ServerActionRoutes.path, key: "unshelve", action: ServerShelveRoutes.unshelve, rule: Rule.member, versions: versions,
            schema: schema, "Restore a shelved server", handler: unshelve)
    }

    /// The server's row, locked, if the action is possible in its state.
    private static func current(
        _ connection: Connection, _ context: RequestContext, _ id: String, states: [VMState], for action: String
    ) throws -> ServerRecord {
        let current = try ServerRecord.find(connection, id, lock: true)
        try current.requireUnlocked(context)
        try current.require(states: states.map(\.rawValue), for: action)
        guard try !Workflows.isActive(connection, subject: id) else {
            throw ResourceError.conflict("Cannot '\(action)' instance \(id) while an earlier operation on it is ending")
        }
        return current
    }

    private static let events = [
        "shelve": "compute_shelve_instance", "shelveOffload": "compute_shelve_offload_instance", "unshelve": "compute_unshelve_instance",
    ]

    private static func enter(
        _ connection: Connection, _ context: RequestContext, _ server: Authorized<ServerRecord>, for policy: String, _ task: TaskState,
        action: String, _ ambient: Ambient
    ) throws {
        try ServerTasks.enter(connection, server, for: policy, task, ambient: ambient)
        try ServerActions.begin(
            connection, context, of: server, for: policy, action: action, event: events[action] ?? "", now: ambient.now)
    }

    // MARK: actions

    private func shelve(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerShelveRoutes.shelve)
        let compute = compute
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            let current = try ServerShelveRoutes.current(connection, context, server.id, states: VMState.copied, for: "shelve")
            guard current.host != nil else {
                throw ResourceError.conflict("Instance \(server.id) is not on a host: 'shelve' is not possible.")
            }
            try MoveChecks.require(connection, server.id, without: [.tpm])
            let source = try ServerImages.source(connection, server.id, images: compute.images)
            let isRunning = current.vmState == VMState.active.rawValue
            let frame = ServerShelve.Shelving(
                copy: source.isLocal ? ServerShelveRoutes.copy(of: source, ambient) : nil, wasRunning: isRunning)
            try ServerShelveRoutes.enter(
                connection, context, decision, for: ServerShelveRoutes.shelve, .shelving, action: "shelve", ambient)
            try Workflows.start(
                connection, ServerShelve(compute).workflow, subject: server.id, frame: frame, requestID: context.requestID,
                ambient: ambient)
            return Change(.empty(202), "server", server.id, content: ["action": "shelve"])
        }
    }

    /// The image belongs to the server's project, even if another project's user shelves the server. The guest is off, so its file systems
    /// need not be frozen.
    private static func copy(of source: ServerImages.Source, _ ambient: Ambient) -> DiskCopy {
        let id = ambient.newUUID().description
        let owner = ActingSubject.accepted(project: source.project, user: source.user)
        let name = String("\(source.name)-shelved".suffix(255))
        return DiskCopy(
            image: id, body: ServerImages.body(id, name: name, of: source, requester: owner, type: "snapshot"),
            project: source.project, user: source.user, job: ambient.newUUID().description, quiesce: .never)
    }

    private func offload(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerShelveRoutes.offload)
        let compute = compute
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            _ = try ServerShelveRoutes.current(connection, context, server.id, states: [.shelved], for: "shelveOffload")
            try ServerShelveRoutes.enter(
                connection, context, decision, for: ServerShelveRoutes.offload, .shelvingOffloading, action: "shelveOffload", ambient)
            try Workflows.start(
                connection, ServerOffload(compute).workflow, subject: server.id, requestID: context.requestID, ambient: ambient)
            return Change(.empty(202), "server", server.id, content: ["action": "shelveOffload"])
        }
    }

    private func unshelve(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: ServerShelveRoutes.unshelve)
        let place = context.body["unshelve"]?.objectValue
        if let place, place.isEmpty {
            throw ResourceError.badRequest("Invalid input for field/attribute unshelve. It must name availability_zone or host.")
        }
        if place?["host"] != nil, !context.allows(ServerShelveRoutes.toHost, target: server.target) {
            throw ResourceError.forbidden("Policy doesn't allow \(ServerShelveRoutes.toHost) to be performed.")
        }
        let compute = compute
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            let current = try ServerShelveRoutes.current(
                connection, context, server.id, states: [.shelved, .shelvedOffloaded], for: "unshelve")
            let isOffloaded = current.vmState == VMState.shelvedOffloaded.rawValue
            var written: JSONObject = ["action": "unshelve"]
            if let place {
                guard isOffloaded else {
                    throw ResourceError.conflict(
                        "Cannot unshelve instance \(server.id) to another place: it is \(current.vmState), not shelved_offloaded.")
                }
                written["place"] = .object(try ServerTasks.place(connection, decision, place, compute.settings))
            }
            try ServerShelveRoutes.enter(
                connection, context, decision, for: ServerShelveRoutes.unshelve, .unshelving, action: "unshelve", ambient)
            try Workflows.start(
                connection, ServerUnshelve(compute).workflow, subject: server.id,
                frame: ServerUnshelve.Unshelving(isOffloaded: isOffloaded), requestID: context.requestID, ambient: ambient)
            return Change(.empty(202), "server", server.id, content: .object(written))
        }
    }
}
