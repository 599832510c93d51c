import Authorization
package import Client
package import Database
package import ImageAccess
package import ImageCore
import JSON
import Kernel
import Logging
import WebAPI

/// The handlers of the image API and their dependencies.
package struct ImageHandlers: Sendable {
    let database: Database
    let stores: ImageStores
    let quota: ImageQuota
    let limits: ImageServiceLimits
    let workflows: ImageWorkflows
    /// This machine's cache; nil if it has none.
    let cache: MachineImageCache?

    package init(
        database: Database, stores: ImageStores, limits: ImageServiceLimits, workflows: ImageWorkflows, cache: MachineImageCache? = nil
    ) {
        self.cache = cache
        self.database = database
        self.stores = stores
        self.limits = limits
        self.workflows = workflows
        quota = workflows.quota
    }

    var download: PublicDownload { workflows.download }
    var importMethods: [ImageImport.Method] { limits.importMethods }
    /// The names of all stores, the default first.
    var storeNames: [String] { stores.names }

    var resource: Resource {
        Resource(
            "image",
            routes: [
                Route(
                    .get, "/v2/images", action: "get_images", rule: ImageRules.rule("get_images"), answer: .list(.images),
                    "List images", handler: list),
                Route(
                    .post, "/v2/images", action: "add_image", rule: ImageRules.rule("add_image"),
                    body: .json(.object([], additional: .allowed)), status: 201, answer: .one(.images), "Register an image", handler: create
                ),
                Route(
                    .get, "/v2/images/{image_id}", action: "get_image", rule: ImageRules.rule("get_image"), answer: .one(.images),
                    "Show an image", handler: show),
                Route(
                    .patch, "/v2/images/{image_id}", action: "modify_image", rule: ImageRules.rule("modify_image"), body: .json(.any),
                    answer: .one(.images), "Change an image", handler: patch),
                Route(
                    .delete, "/v2/images/{image_id}", action: "delete_image", rule: ImageRules.rule("delete_image"), status: 204,
                    "Delete an image and its data", handler: delete),
                Route(
                    .put, "/v2/images/{image_id}/tags/{tag}", action: "modify_image_tag", rule: ImageRules.rule("modify_image_tag"),
                    status: 204, "Add a tag", handler: addTag),
                Route(
                    .delete, "/v2/images/{image_id}/tags/{tag}", action: "delete_image_tag", rule: ImageRules.rule("delete_image_tag"),
                    status: 204, "Remove a tag", handler: removeTag),
                Route(
                    .post, "/v2/images/{image_id}/actions/deactivate", action: "deactivate", rule: ImageRules.rule("deactivate"),
                    status: 204, "Deactivate an image: only administrators can download its data"
                ) {
                    try await change($0, .deactivate)
                },
                Route(
                    .post, "/v2/images/{image_id}/actions/reactivate", action: "reactivate", rule: ImageRules.rule("reactivate"),
                    status: 204, "Reactivate an image"
                ) {
                    try await change($0, .reactivate)
                },
            ])
    }

    // MARK: looking up

    func id(_ context: RequestContext) throws -> String {
        guard let id = UUID128(context.parameter("image_id")) else {
            throw ResourceKind.images.notFound(context.parameter("image_id"))
        }
        return id.description
    }

    func target(_ found: FoundImage) -> PolicyTarget {
        ImageRules.target(owner: found.image.owner, visibility: found.image.visibility.rawValue, member: found.memberID)
    }

    /// Finds the image and decides about the route's action: 404 if the caller may not see it.
    func authorized(
        _ connection: Connection, _ context: RequestContext, _ id: String, locked: Bool = true
    ) throws -> Authorized<Image> {
        let caller = try context.caller
        guard let found = try ImageStore.find(connection, id, project: caller.projectID, locked: locked) else {
            throw ResourceKind.images.notFound(id)
        }
        return try context.authorizeVisible(
            found.image, target: target(found), visibleBy: "get_image", notFound: ResourceKind.images.notFound(id))
    }

    // MARK: reading

    private func list(_ context: RequestContext) async throws -> Response {
        try checkFilters(context)
        return try readable(try await ResourceKind.images.list(database, context), context)
    }

    private func response(_ connection: Connection, _ context: RequestContext, _ id: String, status: Int = 200) throws -> Response {
        try readable(ResourceKind.images.one(connection, context, where: "t.id = \(id)::uuid", id: id, status: status), context)
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        return try await database.read { connection in
            _ = try authorized(connection, context, id, locked: false)
            return try response(connection, context, id)
        }
    }

    // MARK: writing

    private func create(_ context: RequestContext) async throws -> Response {
        let caller = try context.caller
        var image = Image(id: ID(context.ambient.newUUID()), owner: try caller.requireProject())
        for member in context.body.objectValue?.members ?? [] {
            if member.name == "id" {
                guard let id = member.value.stringValue.flatMap({ UUID128($0) }) else {
                    throw ResourceError.badRequest("Invalid value for attribute 'id': \(member.value.description.prefix(64)) is not a UUID")
                }
                image.id = ID(id)
            } else {
                try image.set(member.name, member.value, isAdmin: caller.isAdmin)
            }
        }
        let decision = try context.authorize(image, target: .project(image.owner))
        try authorizeVisibility(context, decision.value)
        try checkProperties(context, [:], image.properties)
        return try await context.write(database) { connection in
            let image = decision.value
            try quota.reserve(connection, image)
            try ImageStore.insert(connection, decision, now: context.ambient.now)
            var response = try response(connection, context, image.id.text, status: 201)
            response.headers["location"] = "\(context.publicURL)/v2/images/\(image.id)"
            response.headers["openstack-image-store-ids"] = storeNames.joined(separator: ",")
            if !importMethods.isEmpty {
                response.headers["openstack-image-import-methods"] = importMethods.map(\.rawValue).joined(separator: ",")
            }
            return Change(answer: response, "image", image.id.text)
        }
    }

    /// - Throws: 403 if the caller may not make the image public.
    func authorizeVisibility(_ context: RequestContext, _ image: Image) throws {
        switch image.visibility {
        case .public: try context.authorize(target: .project(image.owner), action: "publicize_image")
        case .community: try context.authorize(target: .project(image.owner), action: "communitize_image")
        case .shared, .private: break
        }
    }

    private func patch(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        guard let dialect = ImagePatch.Dialect(mediaType: context.headers["content-type"] ?? "") else {
            throw ResourceError(
                .unsupportedMediaType,
                "The media type must be application/openstack-images-v2.1-json-patch or application/openstack-images-v2.0-json-patch.")
        }
        return try await context.write(database) { connection in
            let decision = try authorized(connection, context, id)
            let before = decision.value
            let patch = try ImagePatch(context.body, dialect: dialect)
            let after = try patch.applied(to: before, isAdmin: decision.caller.isAdmin)
            try checkProperties(context, before.properties, after.properties)
            if after.visibility != before.visibility { try authorizeVisibility(context, after) }
            if after.owner != before.owner {
                try quota.release(connection, before)
                try quota.reserve(connection, after)
            }
            try ImageStore.update(connection, decision, to: after, now: context.ambient.now)
            return Change(answer: try response(connection, context, id), "image", before.id.text)
        }
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let removed = Box<[(store: String, file: String)]>([])
        let response = try await context.write(database) { connection in
            let decision = try authorized(connection, context, id)
            let image = decision.value
            guard !image.isProtected else {
                throw ResourceError.forbidden("Image \(id) is protected and cannot be deleted.")
            }
            try ImageStore.delete(connection, decision)
            try quota.release(connection, image)
            if let file = image.fileID { removed.value += image.storeNames.map { (store: $0, file: file) } }
            if let staged = image.staging, staged.size != nil { removed.value.append((store: StoreDeclaration.base, file: staged.id)) }
            return Change(.empty(), "image", id)
        }
        for (store, file) in removed.value { await remove(file, from: store, context.log) }
        return response
    }

    /// Removes data that the database no longer refers to. If this fails, the next run of the cleanup task does it.
    func remove(_ file: String, from store: String, _ log: Logger) async {
        do { try await stores[store]?.remove(file) } catch {
            log.warning(
                "image data is left for the cleanup task", metadata: ["file": "\(file)", "store": "\(store)", "error": "\(error)"])
        }
    }

    private func addTag(_ context: RequestContext) async throws -> Response {
        try await tags(context) { image, tag in
            if !image.tags.contains(tag) {
                try image.set("tags", JSONValue(image.tags + [tag]), isAdmin: false)
            }
        }
    }

    private func removeTag(_ context: RequestContext) async throws -> Response {
        try await tags(context) { image, tag in
            guard image.tags.contains(tag) else { throw ResourceError.notFound("The tag '\(tag.prefix(64))' was not found.") }
            image.tags.removeAll { $0 == tag }
        }
    }

    private func tags(
        _ context: RequestContext, _ body: @escaping @Sendable (inout Image, String) throws -> Void
    ) async throws -> Response {
        let id = try id(context)
        return try await context.write(database) { connection in
            let decision = try authorized(connection, context, id)
            var image = decision.value
            try body(&image, context.parameter("tag"))
            try ImageStore.update(connection, decision, to: image, now: context.ambient.now)
            return Change(.empty(), "image", id, content: ["tags": JSONValue(image.tags)])
        }
    }

    private func change(_ context: RequestContext, _ event: ImageStatus.Event) async throws -> Response {
        let id = try id(context)
        return try await context.write(database) { connection in
            let image = try authorized(connection, context, id)
            guard let status = image.value.status.after(event) else {
                throw ResourceError.forbidden("Not allowed to \(event.rawValue) an image in status '\(image.value.status.rawValue)'.")
            }
            try ImageStore.setStatus(connection, image, status, now: context.ambient.now)
            return Change(.empty(), "image", id, content: ["status": .string(status.rawValue)])
        }
    }
}

/// Passes a value out of a transaction's body; must only be read after the transaction.
final class Box<Value: Sendable>: @unchecked Sendable {
    var value: Value
    init(_ value: Value) { self.value = value }
}

/// Limits set by the operator.
package struct ImageServiceLimits: Sendable {
    /// Default quotas of projects, by name; missing ones have their preset.
    package var quotas: [String: Int]
    /// Maximum size of an upload, in bytes.
    package var uploadBytesMax: Int
    /// How images can be imported.
    package var importMethods: [ImageImport.Method]
    /// The sources that images can be downloaded from.
    package var download: PublicDownload.Rules
    /// Property protections; nil without any.
    package var protections: PropertyProtections?
    /// Converts imported images; nil if they keep their format.
    package var converter: ImageConverter?

    package init(
        quotas: [String: Int] = [:], uploadBytesMax: Int = 1 << 40, importMethods: [ImageImport.Method] = [.direct, .download],
        download: PublicDownload.Rules = PublicDownload.Rules(), converter: ImageConverter? = nil, protections: PropertyProtections? = nil
    ) {
        self.quotas = quotas
        self.uploadBytesMax = uploadBytesMax
        self.importMethods = importMethods
        self.download = download
        self.converter = converter
        self.protections = protections
    }
}
