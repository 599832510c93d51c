import Authorization
import BlockStorageCore
import Database
import JSON
import Kernel
import Logging
import WebAPI

/// Attachments: a volume reserved for a server, connected to its host, and attached to its guest.
extension BlockStorageHandlers {
    private static let connector = BodySchema.object(
        [.init("host", .nullable(.text)), .init("mountpoint", .nullable(.text)), .init("mode", .nullable(.enumeration(["rw", "ro"])))],
        additional: .allowed)

    private static let createSchema = BodySchema.wrapped(
        "attachment",
        .object(
            [
                .init("volume_uuid", .uuid, required: true), .init("instance_uuid", .nullable(.uuid)),
                .init("connector", .nullable(connector)), .init("mode", .nullable(.enumeration(["rw", "ro"]))),
            ]))

    private static let updateSchema = BodySchema.wrapped(
        "attachment",
        .object(
            [.init("connector", connector, required: true), .init("mode", .nullable(.enumeration(["rw", "ro"])))]))

    var attachmentResource: Resource {
        let read = BlockStorageHandlers.read
        let write = BlockStorageHandlers.write
        let one = "/attachments/{attachment_id}"
        // Introduced in 3.27; also available to clients that send no version.
        return Resource(
            "attachment",
            routes: bothPaths([
                Route(
                    .get, "/attachments", action: "volume:attachment_get_all", rule: read, answer: .list(.attachmentSummaries),
                    "List attachments"
                ) { try await ResourceKind.attachmentSummaries.projectList(database, $0) },
                Route(
                    .get, "/attachments/detail", action: "volume:attachment_get_all", rule: read, answer: .list(.attachments),
                    "List attachments in detail"
                ) { try await ResourceKind.attachments.projectList(database, $0) },
                Route(
                    .post, "/attachments", action: BlockStorageStore.createAction, rule: write,
                    body: .json(BlockStorageHandlers.createSchema), answer: .one(.attachments),
                    "Reserve a volume for a server and optionally connect it", handler: createAttachment),
                Route(
                    .get, one, action: "volume:attachment_get", rule: read, answer: .one(.attachments), "Show an attachment",
                    handler: showAttachment),
                Route(
                    .put, one, action: BlockStorageStore.updateAction, rule: write, body: .json(BlockStorageHandlers.updateSchema),
                    answer: .one(.attachments), "Update an attachment with a connector", handler: updateAttachment),
                Route(
                    .delete, one, action: BlockStorageStore.deleteAction, rule: write,
                    answer: .form(.wrapped("attachments", .list(.object([.init("attachment_id", .uuid, required: true)])))),
                    "Delete an attachment",
                    handler: deleteAttachment),
                .action(
                    one, key: "os-complete", action: BlockStorageStore.completeAction, rule: write,
                    schema: BlockStorageHandlers.completion, status: 204, "Mark an attachment as complete",
                    handler: completeAttachment),
            ]))
    }

    /// The value of `os-complete`: nothing, or, as openstacksdk sends it, the id of the attachment.
    private static let completion = BodySchema.nullable(.oneOf([.object([]), .text]))

    /// An attachment that the caller may see, and the decision on the route's action.
    private func visible(
        _ connection: Connection, _ context: RequestContext, _ id: String
    ) throws -> Authorized<Attachment> {
        _ = try context.project()
        guard let found = try BlockStorageStore.attachment(connection, id) else {
            try context.authorize(target: .project(try context.caller.projectID))
            throw ResourceKind.attachments.notFound(id)
        }
        return try context.authorizeVisible(
            found, target: .project(found.projectID), visibleBy: "volume:attachment_get", notFound: ResourceKind.attachments.notFound(id))
    }

    /// An attachment that is to be changed, with the decision on `action` and its locked volume.
    private func attachment(
        _ connection: Connection, _ context: RequestContext, _ id: String, for action: String
    ) throws -> (decision: Authorized<Attachment>, attachment: Attachment, volume: Volume) {
        let found = try visible(connection, context, id).value(for: action)
        // The lock on the volume serializes changes of its attachments. Look the attachment up again, because it may have
        // been deleted meanwhile.
        guard let volume = try BlockStorageStore.volume(connection, found.volumeID.text, locked: true) else {
            throw ResourceKind.attachments.notFound(id)
        }
        let decision = try visible(connection, context, id)
        return (decision, try decision.value(for: action), volume)
    }

    private func showAttachment(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("attachment_id", of: "Attachment")
        return try await database.read { connection in
            _ = try visible(connection, context, id)
            return try ResourceKind.attachments.one(connection, context, id)
        }
    }

    private func createAttachment(_ context: RequestContext) async throws -> Response {
        let project = try context.project()
        let body = context.body["attachment"] ?? [:]
        let volumeID = body["volume_uuid"]?.stringValue.flatMap { UUID128($0) }?.description ?? ""
        let server = body["instance_uuid"]?.stringValue.flatMap { UUID128($0) }?.description
        let id: AttachmentID = context.ambient.newID()
        @Sendable func decide(_ volume: Volume) throws -> Authorized<Attachment> {
            let draft = Attachment(id: id, volumeID: volume.id, projectID: volume.projectID, serverID: server, status: .reserved)
            let decision = try context.authorize(draft, target: .project(volume.projectID))
            try decision.value(for: BlockStorageStore.createAction)
            return decision
        }
        if body["connector"]?.objectValue?.isEmpty == false {
            let volume = try await database.read { connection in
                let volume = try givenVolume(connection, context, volumeID, project: project, locked: false)
                _ = try decide(volume)
                return volume
            }
            try await restoreSize(volume, context)
        }
        return try await context.write(database) { connection in
            let volume = try givenVolume(connection, context, volumeID, project: project)
            let decision = try decide(volume)
            try volume.requireFree(for: .attach)
            try BlockStorageStore.requireIdle(connection, volume)
            try authorizeFurther(context, volume)
            if let server { try BlockStorageStore.refuseForeign(connection, server: server, project: volume.projectID) }
            let now = context.ambient.now
            let mode = try BlockStorageHandlers.mode(volume, body)
            try BlockStorageStore.insert(connection, decision, mode: body["mode"]?.stringValue, at: now)
            if let connector = body["connector"]?.objectValue, !connector.isEmpty {
                try connect(connection, decision, volume, connector, mode: mode, now: now)
            }
            try BlockStorageStore.settle(connection, decision, now: now)
            return try ResourceKind.attachments.changed(connection, context, id.text)
        }
    }

    /// Restores the size of a volume's disk before a host gets the volume (`VolumeDriver.restoreSize`).
    ///
    /// - Throws: 503 while something else has the disk open.
    private func restoreSize(_ volume: Volume, _ context: RequestContext) async throws {
        guard [.available, .reserved].contains(volume.status) else { return }
        do { try await driver.restoreSize(volume.object) } catch {
            context.log.warning("the size of a disk is not restored", metadata: ["volume": "\(volume.id)", "error": "\(error)"])
            throw ResourceError(.unavailable, "The disk of volume \(volume.id) is in use or cannot be read; try again.", retryAfter: 5)
        }
    }

    /// Checks the policy for attaching a bootable volume that is in use to one more server.
    ///
    /// - Throws: 403 if the policy does not allow it.
    func authorizeFurther(_ context: RequestContext, _ volume: Volume) throws {
        guard volume.isMultiattach, volume.isBootable, volume.status == .inUse else { return }
        let action = BlockStorageHandlers.multiattachBootableAction
        try context.authorize(target: .project(volume.projectID), action: action).value(for: action)
    }

    /// The mode that a request names, in the attachment or in its connector; nil for none.
    ///
    /// - Parameter body: the member `attachment`.
    /// - Throws: 400 if the two differ, or for writing to a volume that is read-only.
    private static func mode(_ volume: Volume, _ body: JSONValue) throws -> String? {
        let (mode, inConnector) = (body["mode"]?.stringValue, body["connector"]?["mode"]?.stringValue)
        if let mode, let inConnector, mode != inConnector {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute connector.mode. Value: \(inConnector.prefix(64)). The attachment's mode is \(mode).")
        }
        let wanted = mode ?? inConnector
        guard wanted == nil || ["ro", "rw"].contains(wanted) else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute connector.mode. Value: \(wanted?.prefix(64) ?? ""). It must be ro or rw.")
        }
        if volume.isReadOnly, wanted == "rw" {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute mode. Value: rw. Volume \(volume.id) is read-only; the mode must be ro.")
        }
        return wanted
    }

    /// Hands out the connection for a host.
    private func connect(
        _ connection: Connection, _ decision: Authorized<Attachment>, _ volume: Volume, _ connector: JSONObject, mode: String?,
        now: Timestamp
    ) throws {
        guard let host = connector["host"]?.stringValue, !host.isEmpty else {
            throw ResourceError.badRequest("Invalid input received: The connector needs the name of a 'host'.")
        }
        let mode = mode ?? (volume.isReadOnly ? "ro" : "rw")
        let info = driver.connection(volume.object, readOnly: mode == "ro", isShared: volume.isMultiattach)
        try BlockStorageStore.connect(
            connection, decision, host: host, mode: mode, connector: connector, connection: info, at: now)
    }

    private func updateAttachment(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("attachment_id", of: "Attachment")
        let body = context.body["attachment"] ?? [:]
        let found = try await database.read { connection in
            let attachment = try visible(connection, context, id).value(for: BlockStorageStore.updateAction)
            return try BlockStorageStore.volume(connection, attachment.volumeID.text)
        }
        if let found { try await restoreSize(found, context) }
        return try await context.write(database) { connection in
            let (decision, _, volume) = try attachment(connection, context, id, for: BlockStorageStore.updateAction)
            let now = context.ambient.now
            try connect(
                connection, decision, volume, body["connector"]?.objectValue ?? [:], mode: try BlockStorageHandlers.mode(volume, body),
                now: now)
            try BlockStorageStore.settle(connection, decision, now: now)
            return try ResourceKind.attachments.changed(connection, context, id)
        }
    }

    private func completeAttachment(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("attachment_id", of: "Attachment")
        if let named = context.body["os-complete"]?.stringValue, !named.isEmpty {
            try (context.body.objectValue ?? [:]).requireRepeated(id, in: ["os-complete"], of: "body")
        }
        return try await context.write(database) { connection in
            let (decision, attachment, _) = try attachment(connection, context, id, for: BlockStorageStore.completeAction)
            // As in Cinder, a connector is not required, for clients that connect by other means.
            guard attachment.status != .detaching else {
                throw ResourceError.badRequest("Invalid volume: The attachment \(id) is detaching; it cannot be complete.")
            }
            let now = context.ambient.now
            try BlockStorageStore.complete(connection, decision, at: now)
            try BlockStorageStore.settle(connection, decision, now: now)
            return Change(.empty(204), "attachment", id, content: ["status": "attached"])
        }
    }

    private func deleteAttachment(_ context: RequestContext) async throws -> Response {
        let id = try context.identifier("attachment_id", of: "Attachment")
        return try await context.write(database) { connection in
            let (decision, attachment, volume) = try attachment(connection, context, id, for: BlockStorageStore.deleteAction)
            // Only Compute may detach a disk from a running guest. As in Cinder, the project may delete attachments that
            // were never connected or that no server uses, because nothing else would remove them.
            if let server = attachment.serverID, try BlockStorageStore.isRecordedByCompute(connection, attachment),
                !context.allows("volume:detach_from_server", target: .project(attachment.projectID))
            {
                throw ResourceError.conflict("Detach volume from instance \(server) using the Compute API")
            }
            try BlockStorageStore.delete(connection, decision)
            try BlockStorageStore.settle(connection, decision, now: context.ambient.now)
            let rest = try BlockStorageStore.attachments(connection, of: volume.id).map {
                JSONValue.object(["attachment_id": .string($0.id.text)])
            }
            return Change(.json(200, ["attachments": .array(rest)]), "attachment", id)
        }
    }
}
