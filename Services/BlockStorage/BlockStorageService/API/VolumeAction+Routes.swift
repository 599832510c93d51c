import Authorization
import BlockStorageCore
import Database
import ImageAccess
import JSON
import Kernel
import WebAPI
import Workflow

/// `POST /volumes/{id}/action`
extension BlockStorageHandlers {
    private func action(
        _ key: String, _ action: String, rule: String = BlockStorageHandlers.write, _ schema: BodySchema,
        status: Int = 202, _ summary: String,
        _ handler: @escaping @Sendable (RequestContext, JSONValue) async throws -> Response
    ) -> Route {
        .action("/volumes/{volume_id}", key: key, action: action, rule: rule, schema: schema, status: status, summary) { context in
            try await handler(context, context.body[key] ?? .null)
        }
    }

    var volumeActionResource: Resource {
        let admin = BlockStorageHandlers.admin
        let attaching = BlockStorageHandlers.admin
        let size = BodySchema.integer(min: 1, max: BlockStorageLimits.sizeMax)
        func object(_ properties: [BodySchema.Property]) -> BodySchema { .object(properties) }
        return Resource(
            "volume action",
            routes: bothPaths(
                [
                    action("os-extend", "volume:extend", object([.init("new_size", size, required: true)]), "Extend a volume", extend),
                    action(
                        "os-set_bootable", "volume_extension:volume_actions:set_bootable",
                        object([.init("bootable", .boolean, required: true)]), status: 200, "Set the bootable flag of a volume", setBootable
                    ),
                    action(
                        "os-update_readonly_flag", "volume:update_readonly_flag", object([.init("readonly", .boolean, required: true)]),
                        "Set the read-only flag of a volume", setReadOnly),
                    action(
                        "os-reset_status", "volume_extension:volume_admin_actions:reset_status", rule: admin,
                        object([
                            .init("status", .nullable(.text)), .init("attach_status", .nullable(.text)),
                            .init("migration_status", .nullable(.text)),
                        ]),
                        "Reset the status of a volume", resetStatus),
                    action("os-force_delete", "volume:force_delete", rule: admin, .noMembers, "Delete a volume in any status") {
                        context, _ in
                        try await deleteVolume(context, force: true)
                    },
                    action(
                        "os-retype", "volume:retype",
                        object([
                            .init("new_type", .text, required: true),
                            .init("migration_policy", .nullable(.enumeration(["never", "on-demand"]))),
                        ]),
                        "Change the type of a volume", retype),
                    action("os-reserve", "volume_extension:volume_actions:reserve", .noMembers, "Reserve a volume for a server") {
                        context, _ in
                        try await move(context, for: "reserve", from: .available, to: .attaching)
                    },
                    action("os-unreserve", "volume_extension:volume_actions:unreserve", .noMembers, "Release the reservation") {
                        context, _ in
                        try await move(context, for: "unreserve", from: .attaching, to: .available)
                    },
                    action(
                        "os-begin_detaching", "volume_extension:volume_actions:begin_detaching", rule: attaching, .noMembers,
                        "Begin to detach"
                    ) { context, _ in
                        try await move(context, for: "begin_detaching", from: .inUse, to: .detaching)
                    },
                    action(
                        "os-roll_detaching", "volume_extension:volume_actions:roll_detaching", rule: attaching, .noMembers,
                        "Cancel a detachment"
                    ) { context, _ in
                        try await move(context, for: "roll_detaching", from: .detaching, to: .inUse)
                    },
                    action(
                        "os-attach", BlockStorageStore.attachAction, rule: attaching,
                        object([
                            .init("instance_uuid", .nullable(.uuid)), .init("mountpoint", .text),
                            .init("mode", .nullable(.enumeration(["rw", "ro"]))), .init("host_name", .nullable(.text)),
                        ]),
                        "Record an attachment", legacyAttach),
                    action(
                        "os-detach", BlockStorageStore.detachAction, rule: attaching,
                        .nullable(object([.init("attachment_id", .nullable(.uuid))])), "Detach a volume (legacy)", legacyDetach),
                    action(
                        "os-initialize_connection", "volume_extension:volume_actions:initialize_connection", rule: attaching,
                        object([.init("connector", .object([], additional: .allowed), required: true)]), status: 200,
                        "Show the connection information of a volume", initializeConnection),
                    action(
                        "os-terminate_connection", "volume_extension:volume_actions:terminate_connection", rule: attaching,
                        object([.init("connector", .nullable(.object([], additional: .allowed)), required: true)]),
                        "End a host's connection"
                    ) { context, _ in
                        let id = try context.identifier("volume_id", of: "Volume")
                        return try await database.read { connection in
                            _ = try volume(connection, context, id, locked: false)
                            return .empty(202)
                        }
                    },
                    reimageRoute,
                    .action(
                        "/volumes/{volume_id}", key: "os-volume_upload_image", action: BlockStorageHandlers.uploadAction,
                        rule: BlockStorageHandlers.write, schema: BlockStorageHandlers.uploadSchema,
                        answer: .form(BlockStorageHandlers.uploadAnswer), "Make an image of a volume", handler: uploadImage),
                    action(
                        "os-set_image_metadata", "volume_extension:volume_image_metadata:set",
                        object([
                            .init(
                                "metadata", .object([], additional: .values(.text(BlockStorageLimits.imageMetadataBytesMax))),
                                required: true)
                        ]),
                        status: 200, "Add image metadata"
                    ) { context, body in
                        let added = body["metadata"]?.objectValue ?? [:]
                        return try await imageMetadata(context, for: "volume_extension:volume_image_metadata:set") { metadata in
                            try BlockStorageHandlers.checkImageMetadata(added)
                            for member in added.members { metadata[member.name] = member.value }
                        }
                    },
                    action(
                        "os-unset_image_metadata", "volume_extension:volume_image_metadata:remove",
                        object([.init("key", .text, required: true)]), status: 200, "Remove image metadata"
                    ) { context, body in
                        let key = body["key"]?.stringValue ?? ""
                        return try await imageMetadata(
                            context, for: "volume_extension:volume_image_metadata:remove", isShown: false
                        ) { metadata in
                            guard try readable(metadata, context)[key] != nil else {
                                throw ResourceError.notFound("Metadata item \(key) was not found.")
                            }
                            metadata[key] = nil
                        }
                    },
                    action(
                        "os-show_image_metadata", "volume_extension:volume_image_metadata:show", rule: BlockStorageHandlers.read,
                        .noMembers,
                        status: 200, "Show image metadata"
                    ) { context, _ in
                        let id = try context.identifier("volume_id", of: "Volume")
                        return try await database.read { connection in
                            let metadata = try volume(connection, context, id, locked: false).value.imageMetadata ?? [:]
                            return .json(200, ["metadata": .object(try readable(metadata, context))])
                        }
                    },
                ]
                    + BlockStorageHandlers.absentActions.map { absent in
                        .unavailable(
                            .post, "/volumes/{volume_id}/action", key: absent.key, action: absent.action,
                            rule: absent.isAdmin ? admin : BlockStorageHandlers.write,
                            versions: VersionRange(from: Microversion(3, absent.minor)),
                            body: .json(.wrapped(absent.key, .any)), "\(absent.what) is not available in this cloud."
                        ) { context in
                            let id = try context.identifier("volume_id", of: "Volume")
                            _ = try await database.read { try volume($0, context, id, locked: false) }
                        }
                    }))
    }

    /// Actions of Cinder's API that this service does not have, with the version that introduced them.
    private static let absentActions: [(key: String, action: String, isAdmin: Bool, minor: Int, what: String)] = [
        ("os-migrate_volume", "volume_extension:volume_admin_actions:migrate_volume", true, 0, "Migrating volumes to another backend"),
        (
            "os-migrate_volume_completion", "volume_extension:volume_admin_actions:migrate_volume_completion", true, 0,
            "Migrating volumes to another backend"
        ),
        ("os-force_detach", "volume_extension:volume_admin_actions:force_detach", true, 0, "Detaching a volume behind Compute's back"),
        ("os-unmanage", "volume_extension:volume_unmanage", true, 0, "Giving up a volume but not its disk"),
        ("revert", "volume:revert_to_snapshot", false, 40, "Reverting a volume to a snapshot"),
    ]

    /// Runs a change on the locked volume, after the decision on `action`, and answers `status` without a body.
    private func changing(
        _ context: RequestContext, for action: String, status: Int = 202,
        _ body: @escaping @Sendable (Connection, Authorized<Volume>, Volume) throws -> JSONValue?
    ) async throws -> Response {
        let id = try context.identifier("volume_id", of: "Volume")
        return try await context.write(database) { connection in
            let decision = try volume(connection, context, id)
            let volume = try decision.value(for: action)
            return Change(.empty(status), "volume", id, content: try body(connection, decision, volume))
        }
    }

    private func extend(_ context: RequestContext, _ body: JSONValue) async throws -> Response {
        let size = body["new_size"]?.intValue ?? 0
        return try await changing(context, for: "volume:extend") { connection, decision, volume in
            let extendsInUse = context.version(atLeast: 3, 42)
            try volume.status.require(.extend, of: volume.id, or: extendsInUse ? [.inUse] : [])
            try BlockStorageStore.requireIdle(connection, volume)
            guard size > volume.size else {
                throw ResourceError.badRequest(
                    """
                    Invalid input received: New size for extend must be greater than current size. (current: \
                    \(volume.size), extended: \(size)).
                    """
                )
            }
            try quota.requireSize(connection, project: volume.projectID, size: size)
            try quota.quota.reserve(connection, project: volume.projectID, [(BlockStorageQuotas.gigabytes, size - volume.size)])
            if volume.status == .inUse {
                // The hosts of its servers extend the disk, because their QEMUs have it open. A disk that is still smaller when the volume
                // is connected again is extended then.
                try BlockStorageStore.change(connection, decision, for: "volume:extend", at: context.ambient.now) { $0.set("size", size) }
                return ["status": "in-use", "new_size": JSONValue(size)]
            }
            try BlockStorageStore.change(connection, decision, for: "volume:extend", at: context.ambient.now) {
                $0.set("status", VolumeStatus.extending.rawValue)
                $0.set("extending_to", size)
            }
            try Workflows.start(
                connection, workflows.extend, subject: volume.id.text, frame: VolumeWorkflows.Extension(size: size),
                requestID: context.requestID, ambient: context.ambient)
            return ["status": "extending", "new_size": JSONValue(size)]
        }
    }

    private func setBootable(_ context: RequestContext, _ body: JSONValue) async throws -> Response {
        let bootable = body["bootable"]?.boolValue ?? false
        let action = "volume_extension:volume_actions:set_bootable"
        return try await changing(context, for: action, status: 200) { connection, decision, _ in
            try BlockStorageStore.change(connection, decision, for: action, at: context.ambient.now) { $0.set("bootable", bootable) }
            return ["bootable": .bool(bootable)]
        }
    }

    private func setReadOnly(_ context: RequestContext, _ body: JSONValue) async throws -> Response {
        let readOnly = body["readonly"]?.boolValue ?? false
        let action = "volume:update_readonly_flag"
        return try await changing(context, for: action) { connection, decision, volume in
            try volume.status.require(.setReadOnly, of: volume.id)
            try BlockStorageStore.change(connection, decision, for: action, at: context.ambient.now) { $0.set("read_only", readOnly) }
            return ["read_only": .bool(readOnly)]
        }
    }

    private func resetStatus(_ context: RequestContext, _ body: JSONValue) async throws -> Response {
        let wanted = body["status"]?.stringValue?.lowercased()
        @Sendable func refuse(_ name: String, _ value: String, _ reason: String) -> ResourceError {
            .badRequest("Invalid input for field/attribute \(name). Value: \(value.prefix(64)). It cannot be set: \(reason).")
        }
        if let value = body["migration_status"]?.stringValue, value.lowercased() != "none" {
            throw refuse("migration_status", value, "volumes are not migrated here")
        }
        let action = "volume_extension:volume_admin_actions:reset_status"
        return try await changing(context, for: action) { connection, decision, volume in
            // Clients that repair a volume also send fields whose value does not change.
            if let value = body["attach_status"]?.stringValue, value.lowercased() != "none" {
                let isAttached = try !BlockStorageStore.attachments(connection, of: volume.id).isEmpty
                guard value.lowercased() == (isAttached ? "attached" : "detached") else {
                    throw refuse("attach_status", value, "it follows from the volume's attachments")
                }
            }
            guard let status = wanted, VolumeStatus.declarable.contains(status) else {
                throw ResourceError.badRequest("Must specify 'status' as one of \(VolumeStatus.declarable.sorted()).")
            }
            guard try !Workflows.isActive(connection, subject: volume.id.text) else {
                throw ResourceError.badRequest(
                    "Invalid volume: An operation on volume \(volume.id) is in progress and will set its status.")
            }
            try BlockStorageStore.set(
                connection, decision, VolumeStatus(rawValue: status) ?? .error, for: action, now: context.ambient.now)
            return ["status": .string(status)]
        }
    }

    private func retype(_ context: RequestContext, _ body: JSONValue) async throws -> Response {
        let name = body["new_type"]?.stringValue ?? ""
        return try await changing(context, for: "volume:retype") { connection, decision, volume in
            try volume.status.require(.retype, of: volume.id)
            let type = try type(connection, name, project: volume.projectID)
            guard type.id != volume.typeID else {
                throw ResourceError.badRequest("Invalid input received: New volume_type same as original: \(name.prefix(255)).")
            }
            let isMultiattach = TypeRequirements.areMultiattach(type.specs)
            if isMultiattach != volume.isMultiattach { try requireSharing(context, volume, isMultiattach) }
            // All types use the same backend, so no data is migrated.
            try BlockStorageStore.change(connection, decision, for: "volume:retype", at: context.ambient.now) {
                $0.set("volume_type_id", sql: BlockStorageStore.uuid(type.id))
                $0.set("multiattach", isMultiattach)
            }
            return ["volume_type_id": .string(type.id)]
        }
    }

    /// Checks that a volume's multiattach property can change. It cannot while the volume is in use, because hosts learn it when they
    /// connect.
    ///
    /// - Throws: 400, 403.
    private func requireSharing(_ context: RequestContext, _ volume: Volume, _ isMultiattach: Bool) throws {
        guard volume.status == .available else {
            throw ResourceError.badRequest(
                """
                Invalid input received: Invalid volume_type passed, retypes affecting multiattach are only allowed on available \
                volumes, the specified volume however currently has a status of: \(volume.status.rawValue).
                """
            )
        }
        guard isMultiattach else { return }
        let action = BlockStorageHandlers.multiattachAction
        try context.authorize(target: .project(volume.projectID), action: action).value(for: action)
        guard volume.format.canBeShared else {
            throw ResourceError.badRequest(
                """
                Invalid volume: Volume \(volume.id) is stored as \(volume.format.rawValue), which several servers cannot share. Create \
                a new volume of that type from it.
                """
            )
        }
    }

    private func move(_ context: RequestContext, for action: String, from: VolumeStatus, to: VolumeStatus) async throws -> Response {
        let action = "volume_extension:volume_actions:\(action)"
        return try await changing(context, for: action) { connection, decision, volume in
            var to = to
            if from == .available {
                try BlockStorageStore.requireIdle(connection, volume)
                try volume.requireFree(for: .reserve)
            } else if volume.status != from {
                throw ResourceError.badRequest(
                    """
                    Invalid volume: Volume \(volume.id) status must be \(from.rawValue), but the current status is \
                    \(volume.status.rawValue).
                    """
                )
            }
            if to == .available {
                let attachments = try BlockStorageStore.attachments(connection, of: volume.id)
                if volume.isMultiattach, attachments.contains(where: { $0.status == .attached }) {
                    to = .inUse
                } else if !attachments.isEmpty {
                    // The volume becomes available when the attachment is deleted.
                    throw ResourceError.badRequest("Invalid volume: Volume \(volume.id) is reserved by an attachment.")
                }
            }
            try BlockStorageStore.set(connection, decision, to, for: action, now: context.ambient.now)
            return ["status": .string(to.rawValue)]
        }
    }

    private func initializeConnection(_ context: RequestContext, _ body: JSONValue) async throws -> Response {
        let id = try context.identifier("volume_id", of: "Volume")
        return try await database.read { connection in
            let volume = try volume(connection, context, id, locked: false).value
            return .json(
                200,
                ["connection_info": .object(driver.connection(volume.object, readOnly: volume.isReadOnly, isShared: volume.isMultiattach))])
        }
    }

    private func legacyAttach(_ context: RequestContext, _ body: JSONValue) async throws -> Response {
        let wanted = body["instance_uuid"]?.stringValue.flatMap { UUID128($0) }?.description
        return try await changing(context, for: BlockStorageStore.attachAction) { connection, _, volume in
            guard let server = wanted else {
                throw ResourceError.badRequest("Invalid request to attach volume to an invalid target: instance_uuid is needed.")
            }
            let attachments = try BlockStorageStore.attachments(connection, of: volume.id)
            guard
                [.available, .reserved, .attaching].contains(volume.status) && (attachments.isEmpty || volume.isMultiattach)
                    || volume.isMultiattach && volume.status == .inUse
            else {
                throw ResourceError.badRequest(
                    "Invalid volume: Volume status must be available, reserved or attaching, but it is \(volume.status.rawValue).")
            }
            guard !attachments.contains(where: { $0.serverID == server }) else {
                throw ResourceError.badRequest("Invalid volume: Volume \(volume.id) is already attached to server \(server).")
            }
            try BlockStorageStore.requireIdle(connection, volume)
            try authorizeFurther(context, volume)
            let now = context.ambient.now
            let mode = body["mode"]?.stringValue ?? (volume.isReadOnly ? "ro" : "rw")
            guard mode == "ro" || !volume.isReadOnly else {
                throw ResourceError.badRequest("Invalid attaching mode '\(mode)' for volume \(volume.id): the volume is read-only.")
            }
            let info = driver.connection(volume.object, readOnly: mode == "ro", isShared: volume.isMultiattach)
            let attachment = try context.authorize(
                Attachment(
                    id: context.ambient.newID(), volumeID: volume.id, projectID: volume.projectID, serverID: server, status: .attached),
                target: .project(volume.projectID))
            try BlockStorageStore.insert(
                connection, attached: attachment, mode: mode, device: body["mountpoint"]?.stringValue,
                host: body["host_name"]?.stringValue, connection: info, at: now)
            try BlockStorageStore.settle(connection, attachment, now: now)
            return ["status": "in-use", "server_id": .string(server)]
        }
    }

    private func legacyDetach(_ context: RequestContext, _ body: JSONValue) async throws -> Response {
        let wanted = body["attachment_id"]?.stringValue.flatMap { UUID128($0) }?.description
        return try await changing(context, for: BlockStorageStore.detachAction) { connection, _, volume in
            let attachments = try BlockStorageStore.attachments(connection, of: volume.id)
            guard wanted != nil || attachments.count <= 1 else {
                throw ResourceError.badRequest(
                    "Invalid volume: Detach volume failed: More than one attachment, but no attachment_id provided.")
            }
            guard let attachment = wanted.map({ id in attachments.first { $0.id.text == id } }) ?? attachments.first else {
                throw ResourceError.badRequest("Invalid volume: Volume \(volume.id) has no such attachment.")
            }
            let detached = try context.authorize(attachment, target: .project(volume.projectID))
            try BlockStorageStore.delete(connection, detached)
            try BlockStorageStore.settle(connection, detached, now: context.ambient.now)
            return ["attachment_id": .string(attachment.id.text)]
        }
    }

    /// Image metadata is stored in Cinder's terms: names of letters, digits and `-_:. /`, values of up to 65 535 bytes.
    ///
    /// - Throws: 400 naming the item and the rule.
    private static func checkImageMetadata(_ added: JSONObject) throws {
        for member in added.members {
            let isName =
                !member.name.isEmpty && member.name.utf8.count <= 255
                && member.name.utf8.allSatisfy { byte in
                    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
                        || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || "-_:. /".utf8.contains(byte)
                }
            guard isName else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for field/attribute metadata. The name '\(member.name.prefix(64))' must have 1 \
                    to 255 letters, digits and characters of '-_:. /'.
                    """
                )
            }
            let length = member.value.stringValue?.utf8.count ?? 0
            guard length <= BlockStorageLimits.imageMetadataBytesMax else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for field/attribute metadata. The value of '\(member.name)' has \(length) bytes; \
                    it may have \(BlockStorageLimits.imageMetadataBytesMax) at most.
                    """
                )
            }
        }
    }

    private func imageMetadata(
        _ context: RequestContext, for action: String, isShown: Bool = true, _ body: @escaping @Sendable (inout JSONObject) throws -> Void
    ) async throws -> Response {
        let id = try context.identifier("volume_id", of: "Volume")
        return try await context.write(database) { connection in
            let decision = try volume(connection, context, id)
            let volume = try decision.value(for: action)
            var metadata = volume.imageMetadata ?? [:]
            try body(&metadata)
            func properties(_ metadata: JSONObject) -> JSONObject {
                JSONObject(metadata.members.filter { BlockStorageHandlers.isImageProperty($0.name) }.map { ($0.name, $0.value) })
            }
            try workflows.images.checkProperties(
                properties(metadata), before: properties(volume.imageMetadata ?? [:]), for: try context.caller)
            guard metadata.count <= BlockStorageLimits.metadataItemsMax else {
                throw ResourceError(.tooLarge, "Image metadata has at most \(BlockStorageLimits.metadataItemsMax) items.")
            }
            let new = JSONValue.object(metadata)
            try BlockStorageStore.change(connection, decision, for: action, at: context.ambient.now) { $0.set(json: "image_metadata", new) }
            let answer: JSONValue = ["metadata": .object(try readable(metadata, context))]
            return Change(isShown ? .json(200, answer) : .empty(200), "volume", id, content: ["metadata": new])
        }
    }
}
