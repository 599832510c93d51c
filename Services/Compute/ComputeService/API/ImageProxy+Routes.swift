import Authorization
import ComputeCore
import Database
import ImageAccess
import JSON
import Kernel
import WebAPI

/// `/images`: a proxy for the Image service, with the API that Compute had before Image existed. It exists through 2.35, and for image
/// metadata through 2.38. Image authorizes each call; nothing is stored here.
struct ImageProxyRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/images"
    private static let one = path + "/{image_id}"
    private static let versions = VersionRange.through(35)

    private static let list = "os_compute_api:image:index"
    private static let detail = "os_compute_api:image:detail"
    private static let show = "os_compute_api:image:show"
    private static let delete = "os_compute_api:image:delete"
    private static let metadata = "os_compute_api:image-metadata:"

    var resource: Resource {
        let (path, one, versions) = (ImageProxyRoutes.path, ImageProxyRoutes.one, ImageProxyRoutes.versions)
        let name = ImageProxyRoutes.metadata
        let map = MapRoutes(
            one + "/metadata", name: "metadata", item: "meta",
            actions: .init(
                list: name + "index", add: name + "create", replace: name + "update_all", show: name + "show", set: name + "update",
                remove: name + "delete", readRule: Rule.anybody, writeRule: ImageProxyRoutes.writeRule),
            versions: .through(38), body: ServerSchema.metadata, answer: .textMap, removedStatus: 204,
            missing: { _, _ in .notFound("Invalid metadata key") }, read: readMetadata, change: changeMetadata)
        return Resource(
            "image",
            routes: [
                Route(
                    .get, path, action: ImageProxyRoutes.list, rule: Rule.anybody, versions: versions,
                    answer: .form(ImageProxy.page(of: ImageProxy.summary)), "List images"
                ) { try await list($0, isDetailed: false) },
                Route(
                    .get, path + "/detail", action: ImageProxyRoutes.detail, rule: Rule.anybody, versions: versions,
                    answer: .form(ImageProxy.page(of: ImageProxy.complete)), "List images with details"
                ) { try await list($0, isDetailed: true) },
                Route(
                    .get, one, action: ImageProxyRoutes.show, rule: Rule.anybody, versions: versions,
                    answer: .form(.wrapped("image", ImageProxy.complete)), "Show an image", handler: show),
                Route(
                    .delete, one, action: ImageProxyRoutes.delete, rule: ImageProxyRoutes.writeRule, versions: versions, status: 204,
                    "Delete an image", handler: delete),
            ] + map.routes)
    }

    /// The target is the caller's project, because only Image knows the owner of the image.
    private static let writeRule = Rule.member

    /// The subject that Image authorizes: an administrator with its present rights, any other caller as a member of the token's project.
    private func subject(_ context: RequestContext) throws -> Authorized<ActingSubject> {
        guard let project = try context.caller.projectID else {
            throw ResourceError.badRequest("Images are listed and changed with a token for a project.")
        }
        let owner = try ServerOwner(context, project: project)
        let subject = ActingSubject.accepted(project: project, user: owner.user, administrator: owner.administrator)
        return try context.authorize(subject, target: .project(project))
    }

    private func proxy(_ context: RequestContext) async throws -> ImageProxy {
        ImageProxy(base: context.publicURL, images: try await compute.clients.images.address(of: ""))
    }

    // MARK: images

    private func list(_ context: RequestContext, isDetailed: Bool) async throws -> Response {
        let subject = try subject(context).value
        let proxy = try await proxy(context)
        let query = try ImageProxy.query(context.query.pagingItems)
        let caller = try context.caller
        // A filter by a property that the caller may not read would reveal the property's value.
        for (name, _) in query where !ImageProxy.isAttribute(name) && !compute.images.isReadable(name, for: caller) {
            throw ResourceError.forbidden("Property '\(name.prefix(64))' is protected")
        }
        let page = try await compute.clients.images.images(query, as: subject)
        let shown = page.images.map { isDetailed ? proxy.details(readable($0, caller)) : proxy.summary($0) }
        var answer: JSONObject = ["images": .array(shown.map(JSONValue.object))]
        if page.hasMore, let last = page.images.last?["id"]?.stringValue {
            answer["images_links"] = [["rel": "next", "href": .string(context.nextLink(marker: last))]]
        }
        return .json(200, .object(answer))
    }

    private func image(_ context: RequestContext, _ subject: ActingSubject) async throws -> JSONObject {
        guard let id = UUID128(context.parameter("image_id")) else { throw ResourceError.notFound("Image not found.") }
        return try await compute.clients.images.image(id.description, as: subject)
    }

    /// Removes properties that the caller may not read. Image cannot do this, because it sees this service as the caller.
    private func readable(_ image: JSONObject, _ caller: Caller) -> JSONObject {
        JSONObject(
            image.members.filter { ImageProxy.isAttribute($0.name) || compute.images.isReadable($0.name, for: caller) }
                .map { ($0.name, $0.value) })
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let image = readable(try await image(context, try subject(context).value), try context.caller)
        return .json(200, ["image": .object(try await proxy(context).details(image))])
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let subject = try subject(context).value(for: ImageProxyRoutes.delete)
        let id = try await image(context, subject)["id"]?.stringValue ?? ""
        return try await change(context, id) {
            try await compute.clients.images.deleteImage(id, as: subject)
            return .empty(204)
        }
    }

    /// Records the request, and forwards it to Image. Repeating it is harmless.
    private func change(
        _ context: RequestContext, _ id: String, _ body: () async throws -> Response
    ) async throws -> Response {
        try await context.write(compute.database, begin: { _ in BegunWork([:], "image", id) }, finish: { _ in try await body() })
    }

    // MARK: metadata

    @Sendable private func readMetadata(_ context: RequestContext) async throws -> JSONObject {
        ImageProxy.metadata(readable(try await image(context, try subject(context).value), try context.caller))
    }

    @Sendable private func changeMetadata(
        _ context: RequestContext, for action: String, _ mutation: @escaping MapRoutes.Mutation
    ) async throws -> Response {
        let subject = try subject(context).value(for: action)
        let image = try await image(context, subject)
        let caller = try context.caller
        let before = ImageProxy.metadata(readable(image, caller))
        var after = before
        let answer = try mutation(&after)
        let known = ImageProxy.metadata(image).members.filter { before[$0.name] != nil || after[$0.name] != nil }
        try compute.images.checkProperties(after, before: JSONObject(known.map { ($0.name, $0.value) }), for: caller)
        let patch = ImageProxy.patch(from: before, to: after)
        let id = image["id"]?.stringValue ?? ""
        return try await change(context, id) {
            if !patch.isEmpty { try await compute.clients.images.changeImage(id, patch, as: subject) }
            return answer
        }
    }
}

/// Converts images from Image's format to Compute's old one.
struct ImageProxy: Sendable {
    /// Compute's public address.
    let base: String
    /// Image's public address of images, with a slash at the end.
    let images: String

    /// The attributes that Image defines; all other members are the image's metadata.
    private static let core: Set<String> = [
        "id", "name", "status", "visibility", "tags", "container_format", "disk_format", "size", "virtual_size", "min_disk", "min_ram",
        "owner", "protected", "checksum", "os_hash_algo", "os_hash_value", "os_hidden", "created_at", "updated_at", "self", "file",
        "schema", "direct_url", "locations", "stores",
    ]

    /// Whether a member or a list parameter is an attribute of Image and not a property.
    static func isAttribute(_ name: String) -> Bool {
        core.contains(name) || ["limit", "marker"].contains(name) || name.hasPrefix(PropertyProtections.reservedPrefix)
    }

    static let links = BodySchema.many(
        .object([.required("rel", .anyText), .required("href", .anyText), .init("type", .anyText)]))

    private static let server = BodySchema.object([.required("id", .anyText), .required("links", BodySchema.links)])

    static let summary = BodySchema.object([
        .required("id", .anyText), .required("name", .nullable(.anyText)), .required("links", links),
    ])

    static let complete = BodySchema.object([
        .required("id", .anyText), .required("name", .nullable(.anyText)), .required("links", links),
        .required("status", .enumeration(["ACTIVE", "SAVING", "DELETED", "ERROR", "UNKNOWN"])), .required("progress", .count),
        .required("minDisk", .count), .required("minRam", .count), .required("metadata", .textMap), .required("created", .anyText),
        .required("updated", .anyText), .init("OS-EXT-IMG-SIZE:size", .nullable(.count)), .init("server", server),
    ])

    /// A page of images.
    static func page(of image: BodySchema) -> BodySchema {
        .object([.required("images", .many(image)), .init("images_links", .links)])
    }

    // MARK: images

    private func links(_ id: String) -> JSONValue {
        [
            ["rel": "self", "href": .string("\(base)/v2.1/images/\(id)")], ["rel": "bookmark", "href": .string("\(base)/images/\(id)")],
            ["rel": "alternate", "type": "application/vnd.openstack.image", "href": .string("\(images)\(id)")],
        ]
    }

    func summary(_ image: JSONObject) -> JSONObject {
        ["id": image["id"] ?? "", "name": image["name"] ?? .null, "links": links(image["id"]?.stringValue ?? "")]
    }

    func details(_ image: JSONObject) -> JSONObject {
        var result = summary(image)
        let (status, progress) = ImageProxy.state(image["status"]?.stringValue ?? "")
        result["status"] = .string(status)
        result["progress"] = JSONValue(progress)
        result["minDisk"] = image["min_disk"] ?? 0
        result["minRam"] = image["min_ram"] ?? 0
        result["metadata"] = .object(ImageProxy.metadata(image))
        result["created"] = image["created_at"] ?? .null
        result["updated"] = image["updated_at"] ?? .null
        result["OS-EXT-IMG-SIZE:size"] = image["size"] ?? .null
        if let server = image["instance_uuid"]?.stringValue {
            result["server"] = [
                "id": .string(server),
                "links": [
                    ["rel": "self", "href": .string("\(base)/v2.1/servers/\(server)")],
                    ["rel": "bookmark", "href": .string("\(base)/servers/\(server)")],
                ],
            ]
        }
        return result
    }

    /// Compute's name for a status of Image, and the progress in percent.
    static func state(_ status: String) -> (status: String, progress: Int) {
        switch status {
        case "active": ("ACTIVE", 100)
        case "queued": ("SAVING", 25)
        case "saving", "uploading", "importing": ("SAVING", 50)
        case "killed", "deleted", "pending_delete": ("DELETED", 0)
        default: ("UNKNOWN", 0)
        }
    }

    static func metadata(_ image: JSONObject) -> JSONObject {
        JSONObject(image.members.filter { !core.contains($0.name) && $0.value.stringValue != nil }.map { ($0.name, $0.value) })
    }

    /// A JSON patch (RFC 6902), as Image expects it.
    static func patch(from before: JSONObject, to after: JSONObject) -> [JSONValue] {
        func path(_ key: String) -> JSONValue {
            let text = key.split(separator: "~", omittingEmptySubsequences: false).joined(separator: "~0")
            return .string("/" + text.split(separator: "/", omittingEmptySubsequences: false).joined(separator: "~1"))
        }
        let removed = before.members.filter { after[$0.name] == nil }.map { ["op": "remove", "path": path($0.name)] as JSONValue }
        let set = after.members.filter { before[$0.name] != $0.value }.map { member -> JSONValue in
            ["op": before[member.name] == nil ? "add" : "replace", "path": path(member.name), "value": member.value]
        }
        return removed + set
    }

    // MARK: lists

    private static let statuses = ["ACTIVE": "active", "SAVING": "in:queued,saving,importing", "DELETED": "deleted", "ERROR": "killed"]

    /// The query for Image. Filters that Compute's API does not have are ignored, as in all of its lists in these versions.
    ///
    /// - Throws: 400 naming the parameter and its value.
    static func query(_ items: [(name: String, value: String)]) throws -> [(String, String)] {
        try items.compactMap { name, value -> (String, String)? in
            func bad() -> ResourceError {
                .badRequest("Invalid input for query parameters \(name.prefix(64)). Value: '\(value.prefix(64))'.")
            }
            switch name {
            case "limit":
                guard let limit = Int(value), limit >= 0 else { throw bad() }
                return limit == 0 ? nil : ("limit", String(limit))
            case "marker":
                guard UUID128(value) != nil else { throw ResourceError.badRequest("marker [\(value.prefix(64))] not found") }
                return ("marker", value)
            case "name": return ("name", value)
            case "status":
                guard let status = statuses[value.uppercased()] else { throw bad() }
                return ("status", status)
            case "minRam", "minDisk":
                guard let number = Int(value), number >= 0 else { throw bad() }
                return (name == "minRam" ? "min_ram" : "min_disk", String(number))
            case "changes-since":
                guard let time = Timestamp(value) else { throw bad() }
                return ("updated_at", "gte:\(time.iso8601)")
            case "server":
                // An id, or the server's address.
                guard let id = UUID128(value.split(separator: "/").last.map(String.init) ?? "") else { throw bad() }
                return ("instance_uuid", id.description)
            case "type": return ("image_type", value)
            default:
                guard name.hasPrefix("property-") else { return nil }
                let key = String(name.dropFirst("property-".count))
                guard !key.isEmpty, !core.contains(key) else { throw bad() }
                return (key, value)
            }
        }
    }
}
