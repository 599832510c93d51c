import Authorization
import BlockStorageCore
import Database
import ImageAccess
import JSON
import Kernel
import WebAPI
import Workflow

extension BlockStorageHandlers {
    /// There is a single backend, so all volumes are on it.
    private static let hints = BodySchema.object([.init("same_host", .oneOf([.uuid, .array(.uuid, min: 0, max: 64)]))])

    private static let createSchema = BodySchema.object(
        [
            .init(
                "volume",
                .object([
                    .init("size", .nullable(.integer(min: 1, max: BlockStorageLimits.sizeMax))),
                    .init("name", .nullable(.text)), .init("description", .nullable(.text)),
                    .init("display_name", .nullable(.text)), .init("display_description", .nullable(.text)),
                    .init("availability_zone", .nullable(.text)), .init("imageRef", .nullable(.text)),
                    .init("image_id", .nullable(.text)), .init("snapshot_id", .nullable(.text)),
                    .init("source_volid", .nullable(.text)), .init("volume_type", .nullable(.text)),
                    .init("metadata", .nullable(.stringMap)), .init("multiattach", .nullable(.boolean)),
                    .init("consistencygroup_id", .nullable(.text)), .init("group_id", .nullable(.text)),
                    .init("backup_id", .nullable(.text)), .init("source_replica", .nullable(.text)),
                    // Older clients send the value that always applies.
                    .init("status", .nullable(.enumeration(["creating"]))), .init("user_id", .nullable(.text)),
                    .init("project_id", .nullable(.text)), .init("attach_status", .nullable(.enumeration(["detached"]))),
                ]), required: true),
            .init("OS-SCH-HNT:scheduler_hints", .nullable(hints)),
        ])

    private static let updateSchema = BodySchema.wrapped(
        "volume",
        .object([
            .init("name", .nullable(.text)), .init("description", .nullable(.text)),
            .init("display_name", .nullable(.text)), .init("display_description", .nullable(.text)),
            .init("metadata", .nullable(.stringMap)),
        ]))

    private static let summaryForm = BodySchema.wrapped(
        "volume-summary",
        .object([
            .init("total_count", .integer, required: true), .init("total_size", .integer, required: true),
            .init("metadata", .object([], additional: .values(.list(.text)))),
        ]))

    var volumeResource: Resource {
        let read = BlockStorageHandlers.read
        let write = BlockStorageHandlers.write
        let one = "/volumes/{volume_id}"
        return Resource(
            "volume",
            routes: bothPaths(
                [
                    Route(.get, "/volumes", action: "volume:get_all", rule: read, answer: .list(.volumeSummaries), "List volumes") {
                        try await ResourceKind.volumeSummaries.projectList(database, $0)
                    },
                    Route(
                        .get, "/volumes/detail", action: "volume:get_all", rule: read, answer: .list(.volumes), "List volumes in detail"
                    ) { try readable(try await ResourceKind.volumes($0).projectList(database, $0), $0) },
                    Route(
                        .get, "/volumes/summary", action: "volume:get_all", rule: read, versions: VersionRange(from: Microversion(3, 12)),
                        answer: .form(BlockStorageHandlers.summaryForm), "Count volumes", handler: summarizeVolumes),
                    Route(
                        .post, "/volumes", action: "volume:create", rule: write, body: .json(BlockStorageHandlers.createSchema),
                        status: 202, answer: .one(.changedVolumes), "Create a volume", handler: createVolume),
                    Route(.get, one, action: "volume:get", rule: read, answer: .one(.volumes), "Show a volume", handler: showVolume),
                    Route(
                        .put, one, action: "volume:update", rule: write, body: .json(BlockStorageHandlers.updateSchema),
                        answer: .one(.changedVolumes), "Change a volume", handler: updateVolume),
                    Route(.delete, one, action: "volume:delete", rule: write, status: 202, "Delete a volume") { context in
                        try await deleteVolume(context, force: context.flag("force"))
                    },
                ]
                    + [
                        Route(
                            .get, one + "/encryption", action: "volume_extension:volume_encryption_metadata", rule: read,
                            answer: .form(.object([.init("encryption_key_id", .nullable(.text), required: true)])),
                            "Encryption of a volume: none"
                        ) { context in
                            let id = try context.identifier("volume_id", of: "Volume")
                            return try await database.read { connection in
                                _ = try volume(connection, context, id, locked: false)
                                return .json(200, ["encryption_key_id": .null])
                            }
                        }
                    ]
                    + metadataRoutes(
                        one + "/metadata", .volume, read: "volume:get_volume_metadata",
                        write: "volume:update_volume_metadata", remove: "volume:delete_volume_metadata")))
    }

    // MARK: reading

    private func summarizeVolumes(_ context: RequestContext) async throws -> Response {
        let project = try context.project()
        try context.authorize(target: .project(project))
        let scope = try context.listScope(project, allProjects: "volume:get_all_tenants")
        return try await database.read { connection in
            let (count, size) = try BlockStorageStore.sum(connection, scope: scope)
            var summary: JSONObject = ["total_count": JSONValue(count), "total_size": JSONValue(size)]
            if context.version(atLeast: 3, 36) {
                summary["metadata"] = .object(try BlockStorageStore.metadataValues(connection, scope: scope))
            }
            return .json(200, ["volume-summary": .object(summary)])
        }
    }

    private func showVolume(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("volume_id", of: "Volume")
        return try await database.read { connection in
            _ = try volume(connection, context, id, locked: false)
            return try readable(try ResourceKind.volumes(context).one(connection, context, id), context)
        }
    }

    // MARK: create

    private func createVolume(_ context: RequestContext) async throws -> Response {
        let project = try context.project()
        let decision = try context.authorize(target: .project(project))
        try decision.value(for: "volume:create")
        let body = context.body["volume"] ?? [:]
        try refuseUnavailableFeatures(body)
        for (name, own) in [("project_id", project), ("user_id", try context.caller.userID)] {
            guard let value = body[name]?.stringValue, !value.isEmpty, value != own else { continue }
            throw ResourceError.badRequest(
                "Invalid input for field/attribute \(name). Value: '\(value.prefix(64))'. It must be the token's, \(own).")
        }
        let source = try volumeSource(body)
        let names = try (body.objectValue ?? [:]).descriptions(of: "volume")
        let id: VolumeID = context.ambient.newID()
        return try await context.write(database) { connection in
            try requireHinted(connection, context, project: project)
            var volume = NewVolume(
                id: id, project: project, user: decision.caller.userID,
                name: names.name,
                description: names.description, typeID: "",
                metadata: body["metadata"]?.objectValue ?? [:], source: source)
            try resolve(connection, context, body, &volume)
            try quota.reserveVolume(connection, project: project, size: volume.size)
            try BlockStorageStore.insert(connection, decision, volume, settings, at: context.ambient.now)
            try Workflows.start(
                connection, workflows.create, subject: id.text, requestID: context.requestID, ambient: context.ambient)
            return try ResourceKind.changedVolumes(context).changed(connection, context, id.text, status: 202)
        }
    }

    /// - Throws: 400 naming a member that needs a feature which this cloud does not have.
    private func refuseUnavailableFeatures(_ body: JSONValue) throws {
        for name in ["consistencygroup_id", "group_id", "backup_id", "source_replica"] {
            if let value = body[name]?.stringValue, !value.isEmpty {
                throw ResourceError.badRequest(
                    "Invalid input for field/attribute \(name). Value: \(value.prefix(64)). There is no such resource in this cloud.")
            }
        }
        if body["multiattach"]?.boolValue == true {
            throw ResourceError.badRequest(
                """
                Invalid input for field/attribute multiattach. Value: true. Choose a volume type with the extra spec \
                multiattach='<is> True' instead.
                """
            )
        }
        if let zone = body["availability_zone"]?.stringValue, !zone.isEmpty, zone != settings.availabilityZone {
            throw ResourceError.badRequest("Invalid input received: Availability zone '\(zone.prefix(64))' is invalid.")
        }
    }

    private func volumeSource(_ body: JSONValue) throws -> VolumeSource {
        func id(_ name: String) throws -> String? {
            guard let text = body[name]?.stringValue, !text.isEmpty else { return nil }
            guard let uuid = UUID128(text) else {
                throw ResourceError.badRequest("Invalid input for field/attribute \(name). Value: \(text.prefix(64)). It is not a 'uuid'.")
            }
            return uuid.description
        }
        let images = Set([try id("imageRef"), try id("image_id")].compactMap { $0 })
        guard images.count <= 1 else { throw ResourceError.badRequest("imageRef and image_id name different images.") }
        let image = images.first
        let sources: [VolumeSource] = [
            image.map { .image($0) }, try id("snapshot_id").map { .snapshot($0) }, try id("source_volid").map { .volume($0) },
        ].compactMap { $0 }
        guard sources.count <= 1 else {
            throw ResourceError.badRequest("A volume can have only one source: imageRef, snapshot_id or source_volid.")
        }
        return sources.first ?? .blank
    }

    /// Scheduler hints may only refer to volumes of the project, because they would reveal where other projects' volumes
    /// are.
    private func requireHinted(_ connection: Connection, _ context: RequestContext, project: String) throws {
        let hint = context.body["OS-SCH-HNT:scheduler_hints"]?["same_host"]
        let ids = (hint?.arrayValue ?? [hint].compactMap { $0 }).compactMap(\.stringValue).compactMap { UUID128($0)?.description }
        guard !ids.isEmpty else { return }
        let isAdmin = try context.caller.isAdmin
        let known = try BlockStorageStore.known(connection, ids, project: project, all: isAdmin)
        if let unknown = ids.first(where: { !known.contains($0) }) {
            throw ResourceError.badRequest("Invalid input for scheduler hint same_host: Volume \(unknown) could not be found.")
        }
    }

    /// Looks up everything that the request names, in its own transaction, and completes the volume.
    private func resolve(_ connection: Connection, _ context: RequestContext, _ body: JSONValue, _ result: inout NewVolume) throws {
        let project = result.project
        let type = body["volume_type"]?.stringValue.flatMap { $0.isEmpty ? nil : $0 }
        setType(try self.type(connection, type ?? settings.defaultType, project: project), &result)
        let asked = body["size"]?.intValue
        switch result.source {
        case .blank: result.size = asked ?? 0
        case .image(let id):
            let caller = try context.caller
            guard let found = try workflows.images.image(connection, id, for: caller) else {
                throw ResourceError.badRequest("Invalid image identifier or unable to access requested image: \(id)")
            }
            if let snapshot = try ImageOfSnapshots.bootSnapshot(found, context) {
                result.source = .snapshot(snapshot)
                return try resolve(connection, context, body, &result)
            }
            let image = SourceImage(found, as: ActingSubject(project: project, user: caller.userID, grounds: .accepted))
            result.size = asked ?? 0
            if let asked { try image.check(volumeSize: asked) }
            result.isBootable = true
            result.imageMetadata = image.metadata
        case .snapshot(let id):
            guard let snapshot = try BlockStorageStore.snapshot(connection, id, locked: true),
                context.allows("volume:get_snapshot", target: .project(snapshot.projectID))
            else { throw ResourceKind.snapshots.notFound(id) }
            guard snapshot.status == .available else {
                throw ResourceError.badRequest(
                    "Invalid snapshot: Originating snapshot status must be one of 'available' values, not '\(snapshot.status.rawValue)'.")
            }
            result.size = asked ?? snapshot.size
            try require(result.size, atLeast: snapshot.size, of: "snapshot")
            try inherit(connection, from: snapshot.volumeID.text, &result, type: type)
        case .volume(let id):
            guard let volume = try BlockStorageStore.volume(connection, id, locked: true),
                context.allows("volume:get", target: .project(volume.projectID))
            else { throw ResourceKind.volumes.notFound(id) }
            try volume.status.require(.clone, of: volume.id)
            result.size = asked ?? volume.size
            try require(result.size, atLeast: volume.size, of: "source volume")
            try inherit(connection, from: id, &result, type: type)
        }
        guard result.size >= 1 else {
            throw ResourceError.badRequest("Invalid input received: Volume size 'None' must be an integer and greater than 0")
        }
        if result.isMultiattach {
            try context.authorize(target: .project(project), action: BlockStorageHandlers.multiattachAction)
                .value(for: BlockStorageHandlers.multiattachAction)
        }
    }

    private func setType(_ type: VolumeTypeRecord, _ result: inout NewVolume) {
        result.typeID = type.id
        result.isMultiattach = TypeRequirements.areMultiattach(type.specs)
    }

    private func require(_ size: Int, atLeast least: Int, of source: String) throws {
        guard size >= least else {
            throw ResourceError.badRequest(
                """
                Invalid input received: Volume size '\(size)'GB cannot be smaller than the \(source) size \
                \(least)GB. They must be >= original \(source) size.
                """
            )
        }
    }

    private func inherit(_ connection: Connection, from id: String, _ result: inout NewVolume, type: String?) throws {
        guard let volume = try BlockStorageStore.volume(connection, id) else { return }
        result.isBootable = volume.isBootable
        result.imageMetadata = volume.imageMetadata
        guard type == nil else { return }
        // Types created before the check existed may require a capability that the backend lacks.
        if let type = try self.type(connection, of: volume) { setType(type, &result) }
    }

    // MARK: change and delete

    private func updateVolume(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("volume_id", of: "Volume")
        let body = context.body["volume"]?.objectValue ?? [:]
        return try await context.write(database) { connection in
            let decision = try volume(connection, context, id)
            guard !body.isEmpty else { throw ResourceError.badRequest("The body must name something to change.") }
            try BlockStorageStore.change(connection, decision, for: "volume:update", at: context.ambient.now) { changes in
                if let name = try body.value(named: ["name", "display_name"], of: "volume") { changes.set("name", name.stringValue) }
                if let text = try body.value(named: ["description", "display_description"], of: "volume") {
                    changes.set("description", text.stringValue)
                }
                if let metadata = body["metadata"], metadata.objectValue != nil { changes.set(json: "metadata", metadata) }
            }
            return try ResourceKind.changedVolumes(context).changed(connection, context, id)
        }
    }

    /// - Parameter force: deletes from any state; for administrators.
    func deleteVolume(_ context: RequestContext, force: Bool) async throws -> Response {
        let id = try context.identifier("volume_id", of: "Volume")
        let cascade = try context.flag("cascade")
        return try await context.write(database) { connection in
            let decision = try volume(connection, context, id)
            let volume = try decision.value(for: "volume:delete", "volume:force_delete")
            let forced = force && context.allows("volume:force_delete", target: .project(volume.projectID))
            if force, !forced { try context.authorize(target: .project(volume.projectID), action: "volume:force_delete") }
            if volume.status == .deleting { return Change(.empty(202), "volume", id) }
            let attachments = try BlockStorageStore.attachments(connection, of: volume.id)
            let snapshots = try BlockStorageStore.snapshots(connection, of: volume.id)
            guard
                (forced || volume.status.allows(.delete))
                    && (attachments.isEmpty || forced && !attachments.contains { $0.status == .attached }),
                snapshots.isEmpty || cascade && snapshots.allSatisfy({ $0.status.isDeletable && $0.status != .creating })
            else {
                throw ResourceError.badRequest(
                    """
                    Invalid volume: Volume status must be available or error or error_restoring or error_extending \
                    or error_managing and must not be migrating, attached, belong to a group, have snapshots, \
                    awaiting a transfer, or be disassociated from snapshots after volume transfer.
                    """
                )
            }
            try BlockStorageStore.requireIdle(connection, volume)
            try BlockStorageStore.beginDeletion(connection, decision, now: context.ambient.now)
            try Workflows.startOrIntend(
                connection, workflows.delete, intent: VolumeWorkflows.deleteIntent, subject: id,
                requestID: context.requestID, ambient: context.ambient)
            return Change(.empty(202), "volume", id, content: ["status": "deleting"])
        }
    }
}
