import Authorization
import Client
import Database
import ImageCore
import JSON
import Kernel
import WebAPI
import Workflow

/// The older form of imports, which Glance deprecates: a task of the type `import` registers an image and downloads its data.
extension ImageHandlers {
    static let taskBody = BodySchema.object([
        .init("type", .identifier, required: true), .init("input", .object([], additional: .allowed), required: true),
    ])

    /// The content of such a task.
    private struct Order: Sendable {
        let uri: String
        let image: Image
    }

    func createTask(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none).value(for: "add_task")
        let order = try order(context)
        let target = PolicyTarget.project(order.image.owner)
        let added = try context.authorize(order.image, target: target, action: "add_image")
        let imported = try context.authorize(order.image, target: target, action: "import_image")
        try authorizeVisibility(context, order.image)
        try checkProperties(context, [:], order.image.properties)
        return try await context.write(database) { connection in
            let (image, now) = (order.image, context.ambient.now)
            try quota.reserve(connection, image)
            try ImageStore.insert(connection, added, now: now)
            let task = ImageImportStore.NewTask(
                id: context.ambient.newUUID(), type: "import", imageID: image.id.text, project: image.owner,
                user: try context.caller.userID, requestID: context.requestID, input: context.body["input"] ?? [:])
            let frame = ImageWorkflows.Frame(
                task: task.id.description, method: ImageImport.Method.download.rawValue, uri: order.uri,
                file: context.ambient.newUUID().description, stores: [stores.defaultStore.name], needsAll: true,
                converted: context.ambient.newUUID().description)
            try ImageImportStore.begin(
                connection, imported, task, file: frame.file, converted: frame.converted, stores: frame.stores, now: now)
            try Workflows.start(
                connection, workflows.importData, subject: image.id.text, frame: frame, requestID: context.requestID,
                ambient: context.ambient)
            let id = task.id.description
            var response = try ResourceKind.tasks.one(connection, context, where: "t.id = \(task.id)", id: id, status: 201)
            response.headers["location"] = "\(context.publicURL)/v2/tasks/\(id)"
            return Change(answer: response, "task", id)
        }
    }

    /// - Throws: 400 naming the member and the rule.
    private func order(_ context: RequestContext) throws -> Order {
        let type = context.body["type"]?.stringValue ?? ""
        guard type == "import" else {
            throw ResourceError.badRequest(
                "Invalid value for 'type': '\(type.prefix(64))'. Only tasks of the type 'import' can be created.")
        }
        guard importMethods.contains(.download) else {
            throw ResourceError.badRequest("Tasks of the type 'import' need the import method 'web-download', which is not enabled.")
        }
        let input = context.body["input"]?.objectValue ?? [:]
        for name in input.names where !["import_from", "import_from_format", "image_properties"].contains(name) {
            throw ResourceError.badRequest("Input has the unknown member '\(name.prefix(64))'.")
        }
        func text(_ name: String) throws -> String {
            guard let text = input[name]?.stringValue else { throw ResourceError.badRequest("Input does not contain '\(name)' field") }
            return text
        }
        let (uri, format) = (try text("import_from"), try text("import_from_format"))
        guard let properties = input["image_properties"]?.objectValue else {
            throw ResourceError.badRequest("Input does not contain 'image_properties' field")
        }
        do { try download.check(uri) } catch {
            throw ResourceError.badRequest("The URI of 'import_from' does not pass filtering: \(error.reason)")
        }
        let caller = try context.caller
        var image = Image(id: ID(context.ambient.newUUID()), owner: try caller.requireProject())
        for member in properties.members { try image.set(member.name, member.value, isAdmin: caller.isAdmin) }
        if image.diskFormat == nil { try image.set("disk_format", .string(format), isAdmin: caller.isAdmin) }
        if image.containerFormat == nil { image.containerFormat = .bare }
        guard image.diskFormat?.rawValue == format else {
            throw ResourceError.badRequest(
                "Invalid value for 'import_from_format': '\(format.prefix(64))'. It must be the image's disk_format.")
        }
        return Order(uri: uri, image: image)
    }
}
