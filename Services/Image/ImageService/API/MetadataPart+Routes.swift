import Authorization
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import WebAPI

/// The parts of a namespace: objects, properties, tags, and the resource types that it applies to.
extension ImageHandlers {
    var metadataPartResources: [Resource] {
        [metadataObjectResource, metadataPropertyResource, metadataTagResource, metadataAssociationResource]
    }

    private var metadataObjectResource: Resource {
        let path = ImageHandlers.namespacePath + "/objects"
        return Resource(
            "metadata object",
            routes: [
                metadata(.get, path, "get_metadef_objects", answer: .list(.metadataObjects), "List objects") {
                    try await list($0, .metadataObjects, "get_metadef_object")
                },
                metadata(
                    .post, path, "add_metadef_object", body: .json(MetadataBodies.object), status: 201, answer: .one(.metadataObjects),
                    "Create an object"
                ) { context in
                    try MetadataBodies.check(context.body)
                    return try await add(context, .objects, .metadataObjects, MetadataStore.Content.object(context.body))
                },
                metadata(.delete, path, "delete_metadef_namespace", status: 204, "Delete all objects") {
                    try await removeAll($0, .objects)
                },
                metadata(.get, path + "/{object}", "get_metadef_object", answer: .one(.metadataObjects), "Show an object") { context in
                    try await showPart(context, .metadataObjects, .objects, context.parameter("object"))
                },
                metadata(
                    .put, path + "/{object}", "modify_metadef_object", body: .json(MetadataBodies.object),
                    answer: .one(.metadataObjects), "Replace an object"
                ) { context in
                    try MetadataBodies.check(context.body)
                    return try await replace(
                        context, .objects, .metadataObjects, context.parameter("object"), MetadataStore.Content.object(context.body))
                },
                metadata(.delete, path + "/{object}", "delete_metadef_object", status: 204, "Delete an object") { context in
                    try await remove(context, .objects, context.parameter("object"))
                },
            ])
    }

    private var metadataPropertyResource: Resource {
        let path = ImageHandlers.namespacePath + "/properties"
        let answer = RouteAnswer.form(MetadataBodies.propertyAnswer)
        @Sendable func content(_ context: RequestContext) throws -> MetadataStore.Content {
            try MetadataBodies.check(context.body)
            return MetadataStore.Content.property(context.body["name"]?.stringValue ?? "", context.body)
        }
        return Resource(
            "metadata property",
            routes: [
                metadata(
                    .get, path, "get_metadef_properties",
                    answer: .form(.object([.init("properties", .object([], additional: .values(MetadataBodies.propertyAnswer)))])),
                    "List properties"
                ) {
                    try await list($0, .metadataProperties.hiding(["name"]), "get_metadef_property")
                },
                metadata(
                    .post, path, "add_metadef_property", body: .json(MetadataBodies.property), status: 201, answer: answer,
                    "Create a property"
                ) {
                    try await add($0, .properties, .metadataProperties, try content($0))
                },
                metadata(.delete, path, "delete_metadef_namespace", status: 204, "Delete all properties") {
                    try await removeAll($0, .properties)
                },
                metadata(
                    .get, path + "/{property}", "get_metadef_property", answer: answer, "Show a property", showProperty),
                metadata(
                    .put, path + "/{property}", "modify_metadef_property", body: .json(MetadataBodies.property), answer: answer,
                    "Replace a property"
                ) {
                    try await replace($0, .properties, .metadataProperties, $0.parameter("property"), try content($0))
                },
                metadata(.delete, path + "/{property}", "remove_metadef_property", status: 204, "Delete a property") {
                    try await remove($0, .properties, $0.parameter("property"))
                },
            ])
    }

    private var metadataTagResource: Resource {
        let path = ImageHandlers.namespacePath + "/tags"
        return Resource(
            "metadata tag",
            routes: [
                metadata(.get, path, "get_metadef_tags", answer: .list(.metadataTags.showing(["name"])), "List tags") {
                    try await list($0, .metadataTags.showing(["name"]), "get_metadef_tag")
                },
                metadata(
                    .post, path, "add_metadef_tags", body: .json(MetadataBodies.tags), status: 201,
                    answer: .form(MetadataBodies.tags), "Replace all tags, or add to them with X-Openstack-Append", addTags),
                metadata(.delete, path, "delete_metadef_tags", status: 204, "Delete all tags") { context in
                    try await removeAll(context, .tags)
                },
                metadata(.get, path + "/{tag}", "get_metadef_tag", answer: .one(.metadataTags), "Show a tag") { context in
                    try await showPart(context, .metadataTags, .tags, context.parameter("tag"))
                },
                metadata(.post, path + "/{tag}", "add_metadef_tag", status: 201, answer: .one(.metadataTags), "Create a tag") { context in
                    let name = context.parameter("tag")
                    guard (1...MetadataLimits.nameLengthMax).contains(name.unicodeScalars.count) else {
                        throw ResourceError.badRequest(
                            "A tag has 1 to \(MetadataLimits.nameLengthMax) characters: '\(name.prefix(MetadataLimits.nameLengthMax))…'")
                    }
                    return try await add(context, .tags, .metadataTags, MetadataStore.Content.tag(name))
                },
                metadata(
                    .put, path + "/{tag}", "modify_metadef_tag", body: .json(MetadataBodies.tag), answer: .one(.metadataTags),
                    "Rename a tag"
                ) { context in
                    try MetadataBodies.check(context.body)
                    let new = MetadataStore.Content.tag(context.body["name"]?.stringValue ?? "")
                    return try await replace(context, .tags, .metadataTags, context.parameter("tag"), new)
                },
                metadata(.delete, path + "/{tag}", "delete_metadef_tag", status: 204, "Delete a tag") { context in
                    try await remove(context, .tags, context.parameter("tag"))
                },
            ])
    }

    private var metadataAssociationResource: Resource {
        let path = ImageHandlers.namespacePath + "/resource_types"
        return Resource(
            "metadata association",
            routes: [
                metadata(
                    .get, path, "list_metadef_resource_types", answer: .list(.metadataAssociations),
                    "List the types of resources that a namespace is for"
                ) {
                    try await list($0, .metadataAssociations, "get_metadef_resource_type")
                },
                metadata(
                    .post, path, "add_metadef_resource_type_association", body: .json(MetadataBodies.association), status: 201,
                    answer: .one(.metadataAssociations), "Associate a namespace with a type of resources", associate),
                metadata(
                    .delete, path + "/{resource_type}", "remove_metadef_resource_type_association", status: 204,
                    "Dissociate a namespace from a type of resources"
                ) { context in
                    try await context.write(database) { connection in
                        let found = try namespace(connection, context)
                        try MetadataStore.dissociate(connection, context.parameter("resource_type"), from: found)
                        return Change(.empty(), "metadef_association", found.value.name)
                    }
                },
            ])
    }

    // MARK: reading

    /// - Parameter each: the action that each row requires.
    private func list(_ context: RequestContext, _ kind: ResourceKind, _ each: String) async throws -> Response {
        try await database.read { connection in
            let found = try namespace(connection, context, locked: false).value
            let scope: SQL = context.allows(each, target: found.target) ? "t.namespace_id = \(found.id)" : "FALSE"
            return try kind.list(connection, context, where: [scope])
        }
    }

    private func response(
        _ connection: Connection, _ context: RequestContext, _ kind: ResourceKind, _ name: String, _ namespace: MetadataNamespace,
        status: Int = 200
    ) throws -> Response? {
        let condition: SQL = "t.namespace_id = \(namespace.id) AND \(raw: kind.table.key) = \(name)"
        return try kind.oneOrNone(connection, context, where: condition, status: status)?.response
    }

    private func showPart(
        _ context: RequestContext, _ kind: ResourceKind, _ part: MetadataStore.Part, _ name: String
    ) async throws -> Response {
        try await database.read { connection in
            let found = try namespace(connection, context, locked: false).value
            guard let response = try response(connection, context, kind, name, found) else {
                throw part.notFound(name, in: found.name)
            }
            return response
        }
    }

    private func showProperty(_ context: RequestContext) async throws -> Response {
        guard let type = context.query["resource_type"] else {
            return try await showPart(context, .metadataProperties, .properties, context.parameter("property"))
        }
        return try await database.read { connection in
            let found = try namespace(connection, context, locked: false).value
            try context.authorize(target: found.target, action: "get_metadef_resource_type")
            guard let prefix = try MetadataStore.prefix(connection, type, of: found) else {
                throw ResourceError.notFound("The namespace \(found.name) is not for the resource type \(type.prefix(80)).")
            }
            let full = context.parameter("property")
            guard !prefix.isEmpty, full.hasPrefix(prefix) else {
                throw ResourceError.notFound(
                    """
                    Property \(full.prefix(80)) does not start with the expected resource type association prefix of '\(prefix)'.
                    """)
            }
            let name = String(full.dropFirst(prefix.count))
            guard let response = try response(connection, context, .metadataProperties, name, found) else {
                throw MetadataStore.Part.properties.notFound(name, in: found.name)
            }
            return response
        }
    }

    // MARK: writing

    private func change(
        _ connection: Connection, _ context: RequestContext, _ kind: ResourceKind, _ name: String, _ namespace: MetadataNamespace,
        status: Int = 200
    ) throws -> Change {
        guard let response = try response(connection, context, kind, name, namespace, status: status) else { throw kind.notFound(name) }
        return Change(answer: response, "metadef_\(kind.name)", "\(namespace.name)/\(name)")
    }

    private func add(
        _ context: RequestContext, _ part: MetadataStore.Part, _ kind: ResourceKind, _ content: MetadataStore.Content
    ) async throws -> Response {
        try await context.write(database) { connection in
            let found = try namespace(connection, context)
            try MetadataStore.add(connection, part, [content], to: found, now: context.ambient.now)
            return try change(connection, context, kind, content.name, found.value, status: 201)
        }
    }

    private func replace(
        _ context: RequestContext, _ part: MetadataStore.Part, _ kind: ResourceKind, _ name: String, _ content: MetadataStore.Content
    ) async throws -> Response {
        try await context.write(database) { connection in
            let found = try namespace(connection, context)
            try MetadataStore.replacePart(connection, part, name, of: found, with: content, now: context.ambient.now)
            return try change(connection, context, kind, content.name, found.value)
        }
    }

    private func remove(_ context: RequestContext, _ part: MetadataStore.Part, _ name: String) async throws -> Response {
        try await context.write(database) { connection in
            let found = try namespace(connection, context)
            try MetadataStore.removePart(connection, part, name, of: found)
            return Change(.empty(), "metadef_\(part.word)", "\(found.value.name)/\(name)")
        }
    }

    private func removeAll(_ context: RequestContext, _ part: MetadataStore.Part) async throws -> Response {
        try await context.write(database) { connection in
            let found = try namespace(connection, context)
            // Tags have their own action, and also require the action on the namespace.
            if part == .tags { try context.authorize(target: found.value.target, action: "delete_metadef_namespace") }
            try MetadataStore.removeParts(connection, part, of: found)
            return Change(.empty(), "metadef_\(part.word)", found.value.name)
        }
    }

    private func addTags(_ context: RequestContext) async throws -> Response {
        let names = (context.body["tags"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
        let appends = try context.headers["x-openstack-append"].map { text in
            guard let value = BodySchema.boolean(text) else {
                throw ResourceError.badRequest("Invalid value for header X-Openstack-Append: '\(text.prefix(32))'. It must be a boolean.")
            }
            return value
        }
        return try await context.write(database) { connection in
            let found = try namespace(connection, context)
            let tags = names.map { MetadataStore.Content.tag($0) }
            if appends == true {
                try MetadataStore.add(connection, .tags, tags, to: found, now: context.ambient.now)
            } else {
                try MetadataStore.replaceTags(connection, tags, of: found, now: context.ambient.now)
            }
            let answer: JSONValue = ["tags": .array(names.map { ["name": .string($0)] })]
            return Change(.json(201, answer), "metadef_tag", found.value.name, content: answer)
        }
    }

    private func associate(_ context: RequestContext) async throws -> Response {
        try MetadataBodies.check(context.body)
        return try await context.write(database) { connection in
            let found = try namespace(connection, context)
            try MetadataStore.associate(connection, [context.body], with: found, now: context.ambient.now)
            return try change(
                connection, context, .metadataAssociations, context.body["name"]?.stringValue ?? "", found.value, status: 201)
        }
    }
}
