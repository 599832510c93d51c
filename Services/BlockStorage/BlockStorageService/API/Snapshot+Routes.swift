import Authorization
import BlockStorageCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

extension BlockStorageHandlers {
    private static let createSchema = BodySchema.wrapped(
        "snapshot",
        .object([
            .init("volume_id", .nullable(.uuid), required: true), .init("name", .nullable(.text)),
            .init("description", .nullable(.text)), .init("display_name", .nullable(.text)),
            .init("display_description", .nullable(.text)), .init("metadata", .nullable(.stringMap)),
            .init("force", .nullable(.boolean)),
        ]))

    private static let updateSchema = BodySchema.wrapped(
        "snapshot",
        .object([
            .init("name", .nullable(.text)), .init("description", .nullable(.text)),
            .init("display_name", .nullable(.text)), .init("display_description", .nullable(.text)),
        ]))

    var snapshotResource: Resource {
        let read = BlockStorageHandlers.read
        let write = BlockStorageHandlers.write
        let admin = BlockStorageHandlers.admin
        let one = "/snapshots/{snapshot_id}"
        return Resource(
            "snapshot",
            routes: bothPaths(
                [
                    Route(
                        .get, "/snapshots", action: "volume:get_all_snapshots", rule: read, answer: .list(.snapshotSummaries),
                        "List snapshots"
                    ) { try await ResourceKind.snapshotSummaries.projectList(database, $0) },
                    Route(
                        .get, "/snapshots/detail", action: "volume:get_all_snapshots", rule: read, answer: .list(.snapshots),
                        "List snapshots in detail"
                    ) { try await ResourceKind.snapshots.projectList(database, $0) },
                    Route(
                        .post, "/snapshots", action: "volume:create_snapshot", rule: write, body: .json(BlockStorageHandlers.createSchema),
                        status: 202, answer: .one(.changedSnapshots), "Create a snapshot", handler: createSnapshot),
                    Route(
                        .get, one, action: "volume:get_snapshot", rule: read, answer: .one(.snapshots), "Show a snapshot",
                        handler: showSnapshot),
                    Route(
                        .put, one, action: "volume:update_snapshot", rule: write, body: .json(BlockStorageHandlers.updateSchema),
                        answer: .one(.changedSnapshots), "Change a snapshot", handler: updateSnapshot),
                    Route(.delete, one, action: "volume:delete_snapshot", rule: write, status: 202, "Delete a snapshot") {
                        try await deleteSnapshot($0, force: false)
                    },
                    .action(
                        one, key: "os-force_delete", action: "volume_extension:snapshot_admin_actions:force_delete", rule: admin,
                        "Delete from any state"
                    ) { try await deleteSnapshot($0, force: true) },
                    .action(
                        one, key: "os-update_snapshot_status", action: "volume_extension:snapshot_actions:update_snapshot_status",
                        rule: write,
                        schema: .object([
                            .init("status", .text, required: true),
                            .init("progress", .nullable(.oneOf([.text, .integer(min: 0, max: 100)]))),
                        ]),
                        "Update the status of a snapshot", handler: updateStatus),
                    .action(
                        one, key: "os-reset_status", action: "volume_extension:snapshot_admin_actions:reset_status", rule: admin,
                        schema: .object([.init("status", .enumeration(SnapshotStatus.allCases.map(\.rawValue)), required: true)]),
                        "Reset the status of a snapshot", handler: resetSnapshot),
                ]
                    + metadataRoutes(
                        one + "/metadata", .snapshot, read: "volume:get_snapshot_metadata",
                        write: "volume:update_snapshot_metadata", remove: "volume:delete_snapshot_metadata")))
    }

    private func showSnapshot(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("snapshot_id", of: "Snapshot")
        return try await database.read { connection in
            _ = try snapshot(connection, context, id, locked: false)
            return try ResourceKind.snapshots.one(connection, context, id)
        }
    }

    private func createSnapshot(_ context: RequestContext) async throws -> Response {
        let project = try context.project()
        let body = context.body["snapshot"] ?? [:]
        guard let volumeID = body["volume_id"]?.stringValue.flatMap({ UUID128($0) })?.description else {
            try context.authorize(target: .project(project))
            throw ResourceKind.volumes.notFound("None")
        }
        if context.version(atLeast: 3, 66), body["force"]?.boolValue == false {
            throw ResourceError.badRequest("Invalid input for field/attribute force. Value: false. It is not valid from 3.66 on.")
        }
        let names = try (body.objectValue ?? [:]).descriptions(of: "snapshot")
        let id: SnapshotID = context.ambient.newID()
        return try await context.write(database) { connection in
            let volume = try givenVolume(connection, context, volumeID, project: project)
            let decision = try context.authorize(volume, target: .project(volume.projectID))
            try decision.value(for: "volume:create_snapshot")
            // From 3.66 on, snapshots of volumes in use need no 'force'.
            let isForced = body["force"]?.boolValue == true || context.version(atLeast: 3, 66)
            var hostCopy: HostCopyState?
            if volume.status == .inUse, isForced {
                // The storage cannot read a disk that a guest writes.
                guard try BlockStorageStore.canBeCopiedByHost(connection, volume.id) else {
                    throw ResourceError.badRequest(
                        """
                        Invalid volume: Volume \(volume.id) is in use by several servers, or by a machine outside this cloud, so no \
                        host can take a consistent copy.
                        """
                    )
                }
                hostCopy = .pending
            } else {
                try volume.status.require(.snapshot, of: volume.id)
            }
            try quota.reserveSnapshot(connection, project: volume.projectID, size: volume.size)
            try BlockStorageStore.insertSnapshot(
                connection, id, of: decision, name: names.name,
                description: names.description,
                metadata: body["metadata"]?.objectValue ?? [:], hostCopy: hostCopy, at: context.ambient.now)
            try Workflows.start(
                connection, workflows.snapshotCreate, subject: id.text, requestID: context.requestID,
                ambient: context.ambient)
            return try ResourceKind.changedSnapshots.changed(connection, context, id.text, status: 202)
        }
    }

    private func updateSnapshot(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("snapshot_id", of: "Snapshot")
        let body = context.body["snapshot"]?.objectValue ?? [:]
        return try await context.write(database) { connection in
            let decision = try snapshot(connection, context, id)
            guard !body.isEmpty else { throw ResourceError.badRequest("The body must name something to change.") }
            try BlockStorageStore.change(connection, decision, for: "volume:update_snapshot", at: context.ambient.now) { changes in
                if let name = try body.value(named: ["name", "display_name"], of: "snapshot") { changes.set("name", name.stringValue) }
                if let text = try body.value(named: ["description", "display_description"], of: "snapshot") {
                    changes.set("description", text.stringValue)
                }
            }
            return try ResourceKind.changedSnapshots.changed(connection, context, id)
        }
    }

    private func deleteSnapshot(_ context: RequestContext, force: Bool) async throws -> Response {
        let id = try context.identifier("snapshot_id", of: "Snapshot")
        return try await context.write(database) { connection in
            let decision = try snapshot(connection, context, id)
            let snapshot = try decision.value(for: "volume:delete_snapshot", "volume_extension:snapshot_admin_actions:force_delete")
            if snapshot.status == .deleting, try !force || Workflows.isActive(connection, subject: id) {
                return Change(.empty(202), "snapshot", id)
            }
            guard force || snapshot.status.isDeletable else {
                throw ResourceError.badRequest(
                    "Invalid snapshot: Snapshot status must be available or error, but it is \(snapshot.status.rawValue).")
            }
            // The host would continue to write its copy. Compute, which orders the copy, may delete the snapshot after the copy has ended.
            if snapshot.status == .creating, snapshot.hostCopy == .pending, !force, try !context.caller.has(role: "service") {
                throw ResourceError.badRequest(
                    "Invalid snapshot: A host is copying the volume for snapshot \(id); it can be deleted when the copy is complete.")
            }
            if try BlockStorageStore.isBeingCopied(connection, snapshot.id) {
                throw ResourceError.badRequest("Invalid snapshot: A volume is being created from snapshot \(id).")
            }
            try BlockStorageStore.set(connection, decision, .deleting, now: context.ambient.now)
            try Workflows.startOrIntend(
                connection, workflows.snapshotDelete, intent: VolumeWorkflows.deleteIntent + "_snapshot", subject: id,
                requestID: context.requestID, ambient: context.ambient)
            return Change(.empty(202), "snapshot", id, content: ["status": "deleting"])
        }
    }

    /// A storage backend may only report state changes that follow from its own operation.
    private func updateStatus(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("snapshot_id", of: "Snapshot")
        let report = context.body["os-update_snapshot_status"]
        let text = report?["status"]?.stringValue ?? ""
        let progress = try report?["progress"].flatMap { try Self.progress($0) }
        return try await context.write(database) { connection in
            let decision = try snapshot(connection, context, id)
            let snapshot = try decision.value(for: "volume_extension:snapshot_actions:update_snapshot_status")
            if snapshot.hostCopy == .pending {
                try reportHostCopy(connection, context, snapshot, text)
                return Change(.empty(202), "snapshot", id, content: ["status": .string(text)])
            }
            guard let status = SnapshotStatus(rawValue: text), snapshot.status.mayBeReported(as: status) else {
                throw ResourceError.badRequest(
                    "Provided snapshot status \(text.prefix(64)) not allowed for snapshot with status \(snapshot.status.rawValue).")
            }
            guard try !Workflows.isActive(connection, subject: id) else {
                throw ResourceError.badRequest(
                    "Invalid snapshot: An operation on snapshot \(id) is in progress and will set its status.")
            }
            try BlockStorageStore.set(connection, decision, status, progress: progress, now: context.ambient.now)
            return Change(
                .empty(202), "snapshot", id, content: ["status": .string(text), "progress": progress.map { JSONValue($0) } ?? .null])
        }
    }

    /// Compute's report of the end of a copy that a host makes: the workflow that waits for it publishes or discards the copy.
    ///
    /// - Throws: 403 for other callers, which cannot know whether the copy is complete.
    private func reportHostCopy(_ connection: Connection, _ context: RequestContext, _ snapshot: Snapshot, _ text: String) throws {
        let decision = try context.authorize(
            snapshot, target: .project(snapshot.projectID), action: BlockStorageStore.reportHostCopyAction)
        guard let status = SnapshotStatus(rawValue: text), let state = [.available: HostCopyState.done, .error: .failed][status] else {
            throw ResourceError.badRequest(
                "Provided snapshot status \(text.prefix(64)) not allowed for a copy of a volume in use: it must be available or error.")
        }
        if try BlockStorageStore.reportHostCopy(connection, decision, state, now: context.ambient.now) {
            Workflows.wake(connection, service: VolumeWorkflows.service, subject: snapshot.id.text)
        }
    }

    /// - Returns: percent; nil for null.
    /// - Throws: 400.
    private static func progress(_ value: JSONValue) throws -> Int? {
        if value.isNull { return nil }
        let text = value.stringValue ?? value.intValue.map { "\($0)%" } ?? ""
        guard text.last == "%", text.utf8.count <= 4, text.utf8.dropLast().allSatisfy({ (48...57).contains($0) }),
            let percent = Int(text.dropLast()), percent <= 100
        else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute progress. Value: \(text.prefix(64)). It must be a whole number from 0 to 100 with a '%'."
            )
        }
        return percent
    }

    private func resetSnapshot(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("snapshot_id", of: "Snapshot")
        let status = context.body["os-reset_status"]?["status"]?.stringValue.flatMap(SnapshotStatus.init) ?? .error
        return try await context.write(database) { connection in
            let decision = try snapshot(connection, context, id)
            try decision.value(for: "volume_extension:snapshot_admin_actions:reset_status")
            guard try !Workflows.isActive(connection, subject: id) else {
                throw ResourceError.badRequest(
                    "Invalid snapshot: An operation on snapshot \(id) is in progress and will set its status.")
            }
            try BlockStorageStore.set(connection, decision, status, now: context.ambient.now)
            return Change(.empty(202), "snapshot", id, content: ["status": .string(status.rawValue)])
        }
    }
}
