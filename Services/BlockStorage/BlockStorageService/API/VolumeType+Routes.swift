import Authorization
import BlockStorageCore
import Database
import JSON
import Kernel
import WebAPI

extension BlockStorageHandlers {
    private static let properties: [BodySchema.Property] = [
        .init("description", .nullable(.text)), .init("is_public", .nullable(.boolean)),
        .init("os-volume-type-access:is_public", .nullable(.boolean)),
    ]
    private static let createSchema = BodySchema.wrapped(
        "volume_type",
        .object(properties + [.init("name", .name, required: true), .init("extra_specs", .nullable(.stringMap))]))
    private static let updateSchema = BodySchema.wrapped(
        "volume_type", .object(properties + [.init("name", .nullable(.name))]))

    var typeResource: Resource {
        let read = "rule:admin_required or role:reader"
        let admin = BlockStorageHandlers.admin
        let one = "/types/{type_id}"
        let specs = one + "/extra_specs"
        let project = BodySchema.object([.init("project", .identifier, required: true)])
        let access = BodySchema.object([.init("volume_type_id", .uuid, required: true), .init("project_id", .text, required: true)])
        let allSpecs = BodySchema.wrapped("extra_specs", .stringMap)
        return Resource(
            "volume type",
            routes: bothPaths([
                Route(
                    .get, "/types", action: "volume_extension:type_get_all", rule: read, answer: .list(.volumeTypes), "List types",
                    handler: listTypes),
                Route(
                    .post, "/types", action: "volume_extension:type_create", rule: admin, body: .json(BlockStorageHandlers.createSchema),
                    answer: .one(.createdVolumeTypes), "Create a type", handler: createType),
                Route(
                    .get, one, action: "volume_extension:type_get", rule: read, answer: .one(.volumeTypes), "Show a type",
                    handler: showType),
                Route(
                    .put, one, action: "volume_extension:type_update", rule: admin, body: .json(BlockStorageHandlers.updateSchema),
                    answer: .one(.changedVolumeTypes), "Change a type", handler: updateType),
                Route(.delete, one, action: "volume_extension:type_delete", rule: admin, status: 202, "Delete a type", handler: deleteType),
                Route(
                    .get, one + "/encryption", action: "volume_extension:volume_type_encryption:get", rule: admin,
                    answer: .form(.object([])), "Encryption of a type: none"
                ) { context in
                    try context.authorize(target: .none)
                    return try await database.read { connection in
                        _ = try type(connection, context.parameter("type_id"))
                        return .json(200, [:])
                    }
                },
                Route(
                    .get, one + "/encryption/{absent_id}", action: "volume_extension:volume_type_encryption:get", rule: admin,
                    "Not available; always 404",
                    handler: noEncryption),
                .unavailable(
                    .post, one + "/encryption", action: "volume_extension:volume_type_encryption:create", rule: admin,
                    body: .optionalJSON(.any), "Encrypted volume types are not available in this cloud."
                ) { context in
                    try context.authorize(target: .none)
                    _ = try await database.read { try type($0, context.parameter("type_id")) }
                },
                Route(
                    .put, one + "/encryption/{absent_id}", action: "volume_extension:volume_type_encryption:update", rule: admin,
                    body: .optionalJSON(.any),
                    "Not available; always 404", handler: noEncryption),
                Route(
                    .delete, one + "/encryption/{absent_id}", action: "volume_extension:volume_type_encryption:delete", rule: admin,
                    "Not available; always 404", handler: noEncryption),
                Route(
                    .get, specs, action: "volume_extension:types_extra_specs:index", rule: admin, answer: .form(allSpecs),
                    "List extra specs"
                ) { context in
                    try context.authorize(target: .none)
                    return try await database.read {
                        .json(200, ["extra_specs": .object(try type($0, context.parameter("type_id")).specs)])
                    }
                },
                Route(
                    .post, specs, action: "volume_extension:types_extra_specs:create", rule: admin,
                    body: .json(allSpecs), answer: .form(allSpecs), "Add extra specs"
                ) { context in
                    let new = context.body["extra_specs"]?.objectValue ?? [:]
                    return try await changeSpecs(
                        context, for: "create",
                        { specs in
                            for member in new.members { specs[member.name] = member.value }
                        }, answer: .json(200, ["extra_specs": .object(new)]))
                },
                Route(
                    .get, specs + "/{key}", action: "volume_extension:types_extra_specs:show", rule: admin, answer: .form(.stringMap),
                    "Show an extra spec"
                ) { context in
                    try context.authorize(target: .none)
                    let key = context.parameter("key")
                    return try await database.read { connection in
                        guard let value = try type(connection, context.parameter("type_id")).specs[key] else { throw noSpec(key) }
                        return .json(200, .object(JSONObject([(key, value)])))
                    }
                },
                Route(
                    .put, specs + "/{key}", action: "volume_extension:types_extra_specs:update", rule: admin, body: .json(.stringMap),
                    answer: .form(.stringMap), "Set an extra spec"
                ) { context in
                    let key = context.parameter("key")
                    guard let body = context.body.objectValue, body.count == 1, let value = body[key] else {
                        try context.authorize(target: .none)
                        throw ResourceError.badRequest(
                            "Request body and URI mismatch: the body must contain exactly the item '\(key.prefix(64))'.")
                    }
                    return try await changeSpecs(context, for: "update", { $0[key] = value }, answer: .json(200, .object(body)))
                },
                Route(
                    .delete, specs + "/{key}", action: "volume_extension:types_extra_specs:delete", rule: admin, status: 202,
                    "Remove an extra spec"
                ) { context in
                    let key = context.parameter("key")
                    return try await changeSpecs(
                        context, for: "delete",
                        { specs in
                            guard specs[key] != nil else { throw noSpec(key) }
                            specs[key] = nil
                        }, answer: .empty(202))
                },
                Route(
                    .get, one + "/os-volume-type-access", action: "volume_extension:volume_type_access:get_all_for_type", rule: admin,
                    answer: .form(.wrapped("volume_type_access", .list(access))), "List projects with access", handler: listAccess),
                .action(
                    one, key: "addProjectAccess", action: "volume_extension:volume_type_access:addProjectAccess", rule: admin,
                    schema: project, "Give a project access to a type"
                ) { context in
                    let project = context.body["addProjectAccess"]?["project"]?.stringValue ?? ""
                    return try await changeAccess(context, for: "addProjectAccess", of: project) { connection, decision, type in
                        guard try BlockStorageStore.addAccess(connection, decision, to: type, project: project) else {
                            throw ResourceError.conflict(
                                "Volume type access for \(type) / \(project.prefix(64)) combination already exists.")
                        }
                    }
                },
                .action(
                    one, key: "removeProjectAccess", action: "volume_extension:volume_type_access:removeProjectAccess", rule: admin,
                    schema: project, "Revoke a project's access"
                ) { context in
                    let project = context.body["removeProjectAccess"]?["project"]?.stringValue ?? ""
                    return try await changeAccess(context, for: "removeProjectAccess", of: project) { connection, decision, type in
                        guard try BlockStorageStore.removeAccess(connection, decision, to: type, project: project) else {
                            throw ResourceError.notFound("Volume type access not found for \(type) / \(project.prefix(64)) combination.")
                        }
                    }
                },
            ]))
    }

    // MARK: looking up

    private func noSpec(_ key: String) -> ResourceError { .notFound("Volume type has no extra specs with key \(key.prefix(64)).") }

    /// By id, or `default`.
    private func type(_ connection: Connection, _ id: String) throws -> VolumeTypeRecord {
        let found =
            if id == "default" {
                try BlockStorageStore.type(connection, named: settings.defaultType)
            } else {
                try UUID128(id).flatMap { try BlockStorageStore.type(connection, $0.description) }
            }
        guard let found else { throw ResourceKind.volumeTypes.notFound(id) }
        return found
    }

    /// - Throws: 400 if the extra specs require a capability that the storage does not have.
    private func requireCapabilities(_ specs: JSONObject) throws {
        guard let unmet = TypeRequirements.unmetCapability(specs, capabilities: driver.capabilities) else { return }
        throw ResourceError.badRequest(
            """
            Invalid input for field/attribute extra_specs: the storage of this cloud does not have the capability \
            that \(String(unmet.prefix(160))) requires.
            """
        )
    }

    /// A type that the project may use for a volume, by name or id.
    ///
    /// - Throws: 404; 400 if the type requires a backend or capability that the storage does not have.
    func type(_ connection: Connection, _ name: String, project: String) throws -> VolumeTypeRecord {
        guard let found = try BlockStorageStore.usableType(connection, name, project: project) else {
            throw ResourceError.notFound("Volume type with name \(name.prefix(255)) could not be found.")
        }
        try requireBackend(found.specs, type: name)
        return found
    }

    /// The type that another volume has.
    ///
    /// - Throws: 400 if the type requires a backend or capability that the storage does not have.
    func type(_ connection: Connection, of volume: Volume) throws -> VolumeTypeRecord? {
        guard let found = try BlockStorageStore.type(connection, volume.typeID) else { return nil }
        try requireBackend(found.specs, type: found.name)
        return found
    }

    private func requireBackend(_ specs: JSONObject, type name: String) throws {
        if let unmet = TypeRequirements.unmetCapability(specs, capabilities: driver.capabilities) {
            throw ResourceError.badRequest(
                "Invalid volume_type: No backend satisfies the volume type \(name.prefix(255)): it requires \(String(unmet.prefix(160))).")
        }
        if let backend = TypeRequirements.otherBackend(specs, backend: driver.name) {
            throw ResourceError.badRequest(
                """
                Invalid volume_type: No backend satisfies the volume type \(name.prefix(255)): it requires the \
                backend '\(backend.prefix(64))', and this cloud's is '\(driver.name)'.
                """
            )
        }
    }

    private func visibleTypes(_ context: RequestContext) throws -> SQL {
        if context.allows("volume_extension:see_all_types") { return "true" }
        let project = try context.caller.projectID ?? ""
        return BlockStorageStore.usableTypes(by: project)
    }

    // MARK: handlers

    private func listTypes(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let types = ResourceKind.volumeTypes(context)
        let request = try types.listRequest(context)
        let isAsked = context.query["is_public"] != nil || !context.allows("volume_extension:see_all_types")
        let scope = try isAsked ? visibleTypes(context) : "t.is_public"
        return try await database.read { try types.countedList($0, context, request, scope: scope) }
    }

    private func response(_ connection: Connection, _ context: RequestContext, _ id: String, as kind: ResourceKind) throws -> Response {
        try kind.one(connection, context, where: try visibleTypes(context) + " AND t.id = \(id)::uuid", id: id)
    }

    private func noEncryption(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        return try await database.read { connection in
            let found = try type(connection, context.parameter("type_id"))
            throw ResourceError.notFound("Volume type encryption for type \(found.id) does not exist.")
        }
    }

    private func showType(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        return try await database.read { connection in
            let id = try type(connection, context.parameter("type_id")).id
            return try response(connection, context, id, as: .volumeTypes(context))
        }
    }

    private func createType(_ context: RequestContext) async throws -> Response {
        let body = context.body["volume_type"] ?? [:]
        let type = VolumeTypeRecord(
            id: context.ambient.newUUID().description, name: body["name"]?.stringValue ?? "",
            isPublic: try Self.isPublic(body.objectValue ?? [:]) ?? true,
            specs: body["extra_specs"]?.objectValue ?? [:])
        let decision = try context.authorize(type, target: .none)
        try requireCapabilities(type.specs)
        return try await context.write(database) { connection in
            let description = body["description"]?.stringValue
            guard try BlockStorageStore.insertType(connection, decision, description: description, at: context.ambient.now) else {
                throw ResourceError.conflict("Volume Type \(type.name) already exists.")
            }
            return Change(answer: try response(connection, context, type.id, as: .createdVolumeTypes(context)), "volume_type", type.id)
        }
    }

    private static func isPublic(_ body: JSONObject) throws -> Bool? {
        try body.value(named: ["is_public", "os-volume-type-access:is_public"], of: "volume_type")?.boolValue
    }

    private func updateType(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(target: .none)
        let body = context.body["volume_type"]?.objectValue ?? [:]
        return try await context.write(database) { connection in
            let id = try type(connection, context.parameter("type_id")).id
            guard !body.isEmpty else {
                throw ResourceError.badRequest("Specify volume type name, description, is_public or a combination thereof.")
            }
            var changes = Changes()
            if let name = body["name"]?.stringValue {
                guard try !BlockStorageStore.isTaken(connection, typeName: name, except: id) else {
                    throw ResourceError.conflict("Volume Type \(name) already exists.")
                }
                changes.set("name", name)
            }
            if let text = body["description"] { changes.set("description", text.stringValue) }
            if let flag = try Self.isPublic(body) {
                changes.set("is_public", flag)
            }
            try BlockStorageStore.updateType(connection, decision, id, changes, at: context.ambient.now)
            return Change(answer: try response(connection, context, id, as: .changedVolumeTypes(context)), "volume_type", id)
        }
    }

    private func deleteType(_ context: RequestContext) async throws -> Response {
        let decision = try context.authorize(target: .none)
        return try await context.write(database) { connection in
            let found = try type(connection, context.parameter("type_id"))
            let id = found.id
            guard found.name != settings.defaultType else {
                throw ResourceError.badRequest("The volume type \(id) is the default volume type and cannot be deleted.")
            }
            guard try !BlockStorageStore.isUsed(connection, type: id) else {
                throw ResourceError.badRequest("Target volume type is still in use.")
            }
            try BlockStorageStore.deleteType(connection, decision, id)
            return Change(.empty(202), "volume_type", id)
        }
    }

    private func changeSpecs(
        _ context: RequestContext, for action: String, _ body: @escaping @Sendable (inout JSONObject) throws -> Void,
        answer: Response
    ) async throws -> Response {
        let decision = try context.authorize(target: .none)
        let policy = "volume_extension:types_extra_specs:\(action)"
        return try await context.write(database) { connection in
            let found = try type(connection, context.parameter("type_id"))
            // Volumes keep the properties that their type had when they were created.
            guard try !BlockStorageStore.isUsed(connection, type: found.id) else {
                throw ResourceError.badRequest("Volume Type is currently in use.")
            }
            var specs = found.specs
            try body(&specs)
            try requireCapabilities(specs)
            guard specs.count <= BlockStorageLimits.metadataItemsMax else {
                throw ResourceError.badRequest("A type has at most \(BlockStorageLimits.metadataItemsMax) extra specs.")
            }
            try BlockStorageStore.setSpecs(connection, decision, for: policy, type: found.id, specs, at: context.ambient.now)
            return Change(answer, "volume_type", found.id, content: ["extra_specs": .object(specs)])
        }
    }

    private func listAccess(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        return try await database.read { connection in
            let found = try type(connection, context.parameter("type_id"))
            guard !found.isPublic else { throw ResourceError.notFound("Access list not available for public volume types.") }
            let access = try BlockStorageStore.projects(connection, withAccessTo: found.id).map { project -> JSONValue in
                ["volume_type_id": .string(found.id), "project_id": .string(project)]
            }
            return .json(200, ["volume_type_access": .array(access)])
        }
    }

    /// - Parameter body: changes who has access to the type with this id, after the decision on `action`.
    private func changeAccess(
        _ context: RequestContext, for action: String, of project: String,
        _ body: @escaping @Sendable (Connection, Authorized<Void>, String) throws -> Void
    ) async throws -> Response {
        let decision = try context.authorize(target: .none)
        try decision.value(for: "volume_extension:volume_type_access:\(action)")
        return try await context.write(database) { connection in
            let found = try type(connection, context.parameter("type_id"))
            guard !found.isPublic else {
                throw ResourceError.conflict("Type access modification is not applicable to public volume type.")
            }
            try body(connection, decision, found.id)
            return Change(.empty(202), "volume_type", found.id, content: ["project": .string(project)])
        }
    }
}
