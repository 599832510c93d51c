import Authorization
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import WebAPI

/// Namespaces of metadata definitions: the names, types and values of properties that users can set.
extension ImageHandlers {
    static let namespacesPath = "/v2/metadefs/namespaces"
    static let namespacePath = namespacesPath + "/{namespace}"

    var metadataNamespaceResource: Resource {
        let one = ImageHandlers.namespacePath
        return Resource(
            "metadata namespace",
            routes: [
                metadata(
                    .get, ImageHandlers.namespacesPath, "get_metadef_namespaces", answer: .list(.metadataNamespaces), "List namespaces",
                    listNamespaces),
                metadata(
                    .post, ImageHandlers.namespacesPath, "add_metadef_namespace", body: .json(MetadataBodies.namespace), status: 201,
                    answer: .one(.metadataNamespaceDetails), "Create a namespace with its definitions", createNamespace),
                metadata(
                    .get, one, "get_metadef_namespace", answer: .one(.metadataNamespaceDetails), "Show a namespace with its definitions",
                    showNamespace),
                metadata(
                    .put, one, "modify_metadef_namespace", body: .json(MetadataBodies.replacement), answer: .one(.metadataNamespaces),
                    "Replace a namespace's attributes", replaceNamespace),
                metadata(.delete, one, "delete_metadef_namespace", status: 204, "Delete a namespace", deleteNamespace),
                metadata(
                    .get, "/v2/metadefs/resource_types", "list_metadef_resource_types", answer: .list(.metadataResourceTypes),
                    "List types of resources"
                ) { context in
                    try context.authorize(target: .project(context.caller.projectID))
                    return try await database.read { try ResourceKind.metadataResourceTypes.list($0, context, where: []) }
                },
            ])
    }

    /// A route with the default rule of its action.
    func metadata(
        _ method: WebAPI.Method, _ path: String, _ action: String, body: RouteBody = .none, status: Int = 200,
        answer: RouteAnswer = .undeclared, _ summary: String, _ handler: @escaping @Sendable (RequestContext) async throws -> Response
    ) -> Route {
        Route(
            method, path, action: action, rule: ImageRules.rule(action), body: body, status: status, answer: answer, summary,
            handler: handler)
    }

    /// Finds the namespace in the path and decides about the route's action.
    ///
    /// - Throws: 404 if the caller may not see it, 403 if the caller may see it but not do the action.
    func namespace(_ connection: Connection, _ context: RequestContext, locked: Bool = true) throws -> Authorized<MetadataNamespace> {
        let name = context.parameter("namespace")
        guard let found = try MetadataStore.find(connection, name, locked: locked) else { throw MetadataNamespace.notFound(name) }
        return try context.authorizeVisible(
            found, target: found.target, visibleBy: "get_metadef_namespace", notFound: MetadataNamespace.notFound(name))
    }

    // MARK: namespaces

    private func listNamespaces(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .project(context.caller.projectID), action: "list_metadef_resource_types")
        return try await ResourceKind.metadataNamespaces.list(database, context)
    }

    private func showNamespace(_ context: RequestContext) async throws -> Response {
        let response = try await database.read { connection in
            let found = try namespace(connection, context, locked: false).value
            let parts = ["list_metadef_resource_types", "get_metadef_objects", "get_metadef_properties", "get_metadef_tags"]
            for action in parts { try context.authorize(target: found.target, action: action) }
            return try ResourceKind.metadataNamespaceDetails.one(connection, context, where: "t.id = \(found.id)", id: found.name)
        }
        guard let type = context.query["resource_type"] else { return response }
        return .json(200, MetadataPrefix.applied(to: try JSONValue.parse(response.bytes ?? []), resourceType: type))
    }

    /// The attributes in a body. Only callers that may create a namespace for another project may set another owner.
    private func attributes(_ context: RequestContext) throws -> MetadataStore.Attributes {
        let body = context.body
        try MetadataBodies.check(body)
        let visibility = body["visibility"]?.stringValue.flatMap(MetadataNamespace.Visibility.init(rawValue:)) ?? .private
        return MetadataStore.Attributes(
            name: body["namespace"]?.stringValue ?? "", displayName: body["display_name"]?.stringValue,
            summary: body["description"]?.stringValue, visibility: visibility, isProtected: body["protected"]?.boolValue ?? false,
            owner: try body["owner"]?.stringValue ?? context.caller.projectID)
    }

    private func createNamespace(_ context: RequestContext) async throws -> Response {
        let new = try attributes(context)
        let target = MetadataNamespace.target(owner: new.owner, visibility: new.visibility)
        let decision = try context.authorize(new, target: target)
        let body = context.body
        let parts = [
            ("resource_type_associations", "add_metadef_resource_type_association"), ("objects", "add_metadef_object"),
            ("properties", "add_metadef_property"), ("tags", "add_metadef_tag"),
        ]
        for (member, action) in parts where body[member] != nil { try context.authorize(target: target, action: action) }
        let id = context.ambient.newUUID()
        return try await context.write(database) { connection in
            let now = context.ambient.now
            try MetadataStore.insert(connection, decision, id: id, now: now)
            try MetadataStore.associateAll(
                connection, body["resource_type_associations"]?.arrayValue ?? [], with: decision, id: id, now: now)
            let objects = (body["objects"]?.arrayValue ?? []).map(MetadataStore.Content.object)
            try MetadataStore.addAll(connection, .objects, objects, to: decision, id: id, now: now)
            let tags = (body["tags"]?.arrayValue ?? []).map { MetadataStore.Content.tag($0["name"]?.stringValue ?? "") }
            try MetadataStore.addAll(connection, .tags, tags, to: decision, id: id, now: now)
            let properties = (body["properties"]?.objectValue?.members ?? []).map { MetadataStore.Content.property($0.name, $0.value) }
            try MetadataStore.addAll(connection, .properties, properties, to: decision, id: id, now: now)
            var response = try ResourceKind.metadataNamespaceDetails.one(
                connection, context, where: "t.id = \(id)", id: new.name, status: 201)
            response.headers["location"] = "\(context.publicURL)\(ImageHandlers.namespacesPath)/\(PercentEncoding.encode(new.name))"
            return Change(answer: response, "metadef_namespace", new.name)
        }
    }

    private func replaceNamespace(_ context: RequestContext) async throws -> Response {
        let new = try attributes(context)
        return try await context.write(database) { connection in
            let found = try namespace(connection, context)
            try requireSameParts(connection, context, found.value)
            try MetadataStore.replace(connection, found, with: new, now: context.ambient.now)
            let response = try ResourceKind.metadataNamespaces.one(
                connection, context, where: "t.id = \(found.value.id)", id: new.name)
            return Change(answer: response, "metadef_namespace", new.name)
        }
    }

    /// - Throws: 400 for parts that differ from the namespace's, because a replacement of the attributes does not change them.
    private func requireSameParts(_ connection: Connection, _ context: RequestContext, _ namespace: MetadataNamespace) throws {
        let sent = MetadataBodies.parts.filter { context.body[$0] != nil }
        guard !sent.isEmpty else { return }
        let shown = try ResourceKind.metadataNamespaceDetails.one(
            connection, context, where: "t.id = \(namespace.id)", id: namespace.name)
        let present = try JSONValue.parse(shown.bytes ?? [])
        for part in sent where context.body[part] != present[part] {
            throw ResourceError.badRequest("'\(part)' cannot be changed together with the namespace; use its own resource.")
        }
    }

    private func deleteNamespace(_ context: RequestContext) async throws -> Response {
        try await context.write(database) { connection in
            let found = try namespace(connection, context)
            try found.value.requireDeletable()
            try MetadataStore.delete(connection, found)
            return Change(.empty(), "metadef_namespace", found.value.name)
        }
    }
}
