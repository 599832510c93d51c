import Authorization
import ComputeCore
import Contracts
import Database
import ImageAccess
import JSON
import Kernel
import WebAPI
import Workflow

/// `createImage` and `createBackup`: images of servers.
struct ServerImageRoutes: Sendable {
    let compute: Compute

    private static let createImage = "os_compute_api:servers:create_image"
    private static let createBackup = "os_compute_api:os-create-backup"

    private static let metadata = BodySchema.object([], additional: .values(.text))
    /// The answer from 2.45 on.
    private static let answer = BodySchema.object([.init("image_id", .uuid, required: true)])

    private func route(
        _ key: String, _ action: String, _ properties: [BodySchema.Property], versions: VersionRange, answer: RouteAnswer = .undeclared,
        _ summary: String
    ) -> Route {
        .action(
            ServerActionRoutes.path, key: key, action: action, rule: Rule.member, versions: versions,
            schema: .object(properties + [.init("metadata", ServerImageRoutes.metadata)]), answer: answer, summary
        ) { try await create($0, key: key, action: action) }
    }

    var resource: Resource {
        let image: [BodySchema.Property] = [.init("name", .name, required: true)]
        let backup: [BodySchema.Property] =
            image + [
                .init("backup_type", .text, required: true),
                .init("rotation", .integer(min: 0, max: Int(Int32.max)), required: true),
            ]
        return Resource(
            "server-image",
            routes: [
                route("createImage", ServerImageRoutes.createImage, image, versions: .through(44), "Make an image of a server"),
                route(
                    "createImage", ServerImageRoutes.createImage, image, versions: .from(45), answer: .form(ServerImageRoutes.answer),
                    "Make an image of a server"),
                route("createBackup", ServerImageRoutes.createBackup, backup, versions: .all, "Make a backup of a server"),
            ])
    }

    private func create(_ context: RequestContext, key: String, action: String) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: action)
        let request = try ImageRequest(context, key: key, id: compute.ambient.newUUID().description, server: server)
        let properties = (context.body[key]?["metadata"]?.objectValue ?? [:]).members.filter { !ImageProxy.isAttribute($0.name) }
        try compute.images.checkProperties(JSONObject(properties.map { ($0.name, $0.value) }), for: try context.caller)
        let compute = compute
        return try await context.write(
            compute.database,
            begin: { connection in
                let workflow = try ServerImageRoutes.begin(connection, context, decision, request, compute)
                return BegunWork(
                    ["workflow": .string(workflow.text), "image": .string(request.id)], "server", server.id,
                    content: ["image": .string(request.id)])
            },
            finish: { work in
                let id = work["image"]?.stringValue ?? ""
                let workflow = WorkflowID(work["workflow"]?.stringValue ?? "")
                do { try await compute.await(workflow: workflow, past: ["snapshots", "image"]) } catch let error as ResourceError {
                    try await ServerImageRoutes.judge(compute, workflow, error)
                }
                return try await answer(context, id, backup: request.backup)
            })
    }

    /// Decides how to answer if the workflow has already failed.
    ///
    /// - Returns: normally if the image was created, because a later failure is not a refusal of the request.
    /// - Throws: Image's refusal, for example because a quota is exceeded; otherwise `error`.
    private static func judge(_ compute: Compute, _ workflow: WorkflowID, _ error: ResourceError) async throws {
        let (local, onVolumes) = (ServerSnapshot(compute).workflow, VolumeImage(compute).workflow)
        let copy = try await compute.database.read { connection in
            try Workflows.frame(connection, workflow, of: local)?.copy ?? Workflows.frame(connection, workflow, of: onVolumes)?.copy
        }
        if copy?.isCreated == true { return }
        guard error.code == .badRequest, let code = copy?.refusal.flatMap(ResourceError.Code.init(rawValue:)) else { throw error }
        throw ResourceError(code == .tooLarge ? .forbidden : code, error.message)
    }

    private func answer(_ context: RequestContext, _ id: String, backup: ServerSnapshot.Copy.Backup?) async throws -> Response {
        // With a rotation of 0 the new backup is deleted at once, so there is no image to refer to.
        if backup?.rotation == 0 { return .empty(202) }
        if context.version(atLeast: 2, 45) { return .json(202, ["image_id": .string(id)]) }
        var response = Response.empty(202)
        response.headers["location"] = try await compute.clients.images.address(of: id)
        return response
    }

    private static func begin(
        _ connection: Connection, _ context: RequestContext, _ decision: Authorized<ServerRecord>, _ request: ImageRequest,
        _ compute: Compute
    ) throws -> WorkflowID {
        let policy = request.backup == nil ? createImage : createBackup
        let server = try decision.value(for: policy)
        let ambient = compute.ambient
        let current = try ServerRecord.find(connection, server.id, lock: true)
        try current.require(states: VMState.copied.map(\.rawValue), for: request.action)
        guard current.host != nil, try !Workflows.isActive(connection, subject: server.id) else {
            throw ResourceError.conflict("Cannot '\(request.action)' instance \(server.id) while an earlier operation on it is ending")
        }
        let limit = try compute.quota.state(connection, project: server.project, ComputeQuotas.metadataItems).limit
        if limit >= 0, request.metadata.count > limit {
            throw ResourceError.forbidden("Maximum number of metadata items exceeds \(limit)")
        }
        let source = try ServerImages.source(connection, server.id, images: compute.images)
        guard source.isLocal || request.backup == nil else {
            throw ResourceError.badRequest("Backup is not supported for volume-backed instances.")
        }
        let volumes = source.isLocal ? [] : try VolumeMappings.volumes(connection, of: server.id, imageName: request.name)
        try ServerTasks.enter(connection, decision, for: policy, .imageSnapshotPending, ambient: ambient)
        try ServerActions.begin(
            connection, context, of: decision, for: policy, action: request.action,
            event: request.backup == nil ? "compute_snapshot_instance" : "compute_backup_instance", now: ambient.now)
        guard source.isLocal else {
            var copy = request.copy(of: source, ambient)
            for (name, value) in VolumeMappings.members.members { copy.body[name] = value }
            return try Workflows.start(
                connection, VolumeImage(compute).workflow, subject: server.id, frame: VolumeImage.Copy(copy: copy, volumes: volumes),
                requestID: context.requestID, ambient: ambient)
        }
        return try Workflows.start(
            connection, ServerSnapshot(compute).workflow, subject: server.id,
            frame: ServerSnapshot.Copy(copy: request.copy(of: source, ambient), action: request.action, backup: request.backup),
            requestID: context.requestID, ambient: ambient)
    }
}

/// A request for an image of a server.
private struct ImageRequest: Sendable {
    let id: String
    /// `createImage` or `createBackup`.
    let action: String
    let name: String
    let metadata: JSONObject
    let backup: ServerSnapshot.Copy.Backup?
    /// The owner of the image.
    let requester: ActingSubject

    /// - Throws: 400 for metadata with the name of an image attribute.
    init(_ context: RequestContext, key: String, id: String, server: ServerRecord) throws {
        let body = context.body[key] ?? [:]
        let caller = try context.caller
        self.id = id
        action = key
        name = body["name"]?.stringValue ?? ""
        requester = .accepted(project: caller.projectID ?? server.project, user: caller.userID)
        var metadata = body["metadata"]?.objectValue ?? [:]
        if let wrong = metadata.names.first(where: { ServerImages.attributes.contains($0) }) {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute metadata: '\(wrong)' is an attribute of images, not a property.")
        }
        backup = body["backup_type"]?.stringValue.map { type in
            ServerSnapshot.Copy.Backup(type: type, rotation: body["rotation"]?.intValue ?? 0)
        }
        if let backup { metadata["backup_type"] = .string(backup.type) }
        self.metadata = metadata
    }

    func copy(of source: ServerImages.Source, _ ambient: Ambient) -> DiskCopy {
        DiskCopy(
            image: id,
            body: ServerImages.body(
                id, name: name, of: source, requester: requester, type: backup == nil ? "snapshot" : "backup", metadata: metadata),
            project: requester.project, user: requester.user, job: ambient.newUUID().description, quiesce: ServerImages.quiesce(source))
    }
}
