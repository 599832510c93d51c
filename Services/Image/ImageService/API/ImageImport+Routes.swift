import Authorization
import Client
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import Logging
import WebAPI
import Workflow

/// Staging and importing data, and the tasks of imports.
extension ImageHandlers {
    var importResource: Resource {
        Resource(
            "image import",
            routes: [
                Route(
                    .get, "/v2/info/import", action: "get_import_info", rule: ImageRules.rule("get_import_info"),
                    answer: .form(ImageHandlers.importInfo), "Import methods"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(
                        200,
                        [
                            "import-methods": [
                                "description": "Import methods available.", "type": "array",
                                "value": JSONValue(importMethods.map(\.rawValue)),
                            ]
                        ])
                },
                Route(
                    .put, "/v2/images/{image_id}/stage", action: "stage_image", rule: ImageRules.rule("stage_image"), body: .stream,
                    status: 204, "Stage the data for an import", handler: stage),
                Route(
                    .post, "/v2/images/{image_id}/import", action: "import_image", rule: ImageRules.rule("import_image"),
                    body: .json(ImageHandlers.importBody), status: 202, "Import the data", handler: importData),
                Route(
                    .get, "/v2/images/{image_id}/tasks", action: "get_image_tasks", rule: ImageRules.rule("get_image_tasks"),
                    answer: .list(.imageTasks), "Tasks of an image", handler: imageTasks),
                Route(
                    .get, "/v2/tasks", action: "get_tasks", rule: ImageRules.rule("get_tasks"),
                    answer: .list(.tasks.hiding(["input", "result", "message"])), "List tasks"
                ) { context in
                    try await ResourceKind.tasks.hiding(["input", "result", "message"]).list(database, context)
                },
                Route(
                    .post, "/v2/tasks", action: "add_task", rule: ImageRules.rule("add_task"), body: .json(ImageHandlers.taskBody),
                    status: 201, answer: .one(.tasks), "Import a new image from a URL (deprecated)", handler: createTask),
                Route(
                    .get, "/v2/tasks/{task_id}", action: "get_task", rule: ImageRules.rule("get_task"), answer: .one(.tasks),
                    "Show a task", handler: showTask),
            ])
    }

    private static let importInfo = BodySchema.object([
        .init(
            "import-methods",
            .object([
                .init("description", .text, required: true), .init("type", .text, required: true),
                .init("value", .list(.text), required: true),
            ]), required: true)
    ])

    private static let importBody = BodySchema.object([
        .init("method", .object([.init("name", .identifier, required: true), .init("uri", .text(2048))]), required: true),
        .init("stores", .list(.identifier)), .init("all_stores", .any), .init("all_stores_must_succeed", .any),
    ])

    // MARK: staging

    private func stagingPlan(_ connection: Connection, _ image: Image) throws -> (bytes: Int, error: ResourceError) {
        guard image.status.after(.stage) != nil else {
            throw ResourceError.conflict("Image status transition from \(image.status.rawValue) to uploading is not allowed")
        }
        return quota.limit(remaining: try quota.remaining(connection, project: image.owner), uploadBytesMax: limits.uploadBytesMax)
    }

    private func stage(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let limit = try await database.read { connection -> (bytes: Int, error: ResourceError) in
            let image = try authorized(connection, context, id, locked: false).value(for: "stage_image")
            guard importMethods.contains(.direct) else {
                throw ResourceError.notFound("'glance-direct' method is not available at this site.")
            }
            try requireOctets(context)
            return try stagingPlan(connection, image)
        }
        let expected = try expectedSize(context)
        if let expected, expected > limit.bytes { throw limit.error }
        let files = stores.base
        let file = try await files.receive(context.ambient.newUUID().description)
        do {
            let image = try await database.write { connection in
                let image = try authorized(connection, context, id)
                _ = try stagingPlan(connection, image.value)
                try ImageImportStore.beginStaging(connection, image, staging: file.id, now: context.ambient.now)
                return image
            }
            // The content is inspected by the import, which knows the final format.
            let inspector = ContentInspector(declared: nil, sizeMax: limit.bytes, tooLarge: limit.error)
            let content = try await files.take(context.stream, into: file, inspector, expected: expected)
            let response = try await finishStaging(context, image, file.id, content)
            file.release()
            return response
        } catch {
            await abandonStaging(file, context.ambient, context.log)
            throw error
        }
    }

    private func finishStaging(
        _ context: RequestContext, _ image: Authorized<Image>, _ staging: String, _ content: ReceivedContent
    ) async throws -> Response {
        let id = image.value.id.text
        return try await context.write(database) { connection in
            guard
                let owner = try ImageImportStore.finishStaging(
                    connection, image, staging: staging, content, now: context.ambient.now)
            else { throw ResourceError(.gone, "The image \(id) was deleted while its data was staged.") }
            try quota.quota.reserve(connection, project: owner, [(ImageQuotas.size, ImageQuota.mebibytes(content.size))])
            return Change(.empty(), "image", id, content: ["status": "uploading", "size": JSONValue(content.size)])
        }
    }

    /// Resets the image to queued without data, even if the request was cancelled.
    private func abandonStaging(_ file: any IncomingData, _ ambient: Ambient, _ log: Logger) async {
        let (database, files) = (database, stores.base)
        await Task {
            do {
                try await database.write { try ImageImportStore.abandonStaging($0, staging: file.id, now: ambient.now) }
                let known = try await database.read { try ImageStore.known($0, [file.id]) }
                // If the response to the commit was lost, the commit may have succeeded.
                if known.isEmpty { try await files.threads.run { try file.discard() } } else { file.release() }
            } catch {
                file.release()
                log.warning("staged data is left for the cleanup task", metadata: ["file": "\(file.id)", "error": "\(error)"])
            }
        }.value
    }

    // MARK: importing

    private func importData(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let requested = try ImageImport(
            context.body, enabled: importMethods, stores: storeNames, header: context.headers["x-image-meta-store"])
        if let uri = requested.uri {
            do { try download.check(uri) } catch {
                throw ResourceError.badRequest("URI for web-download does not pass filtering: \(error.reason)")
            }
        }
        return try await context.write(database) { connection in
            let image = try authorized(connection, context, id)
            try image.value(for: "import_image")
            try requested.check(image.value)
            if requested.method == .copy { return try copy(connection, context, image, requested) }
            let task = try task(context, image.value, stores: requested.stores)
            let (file, converted) = (context.ambient.newUUID().description, context.ambient.newUUID().description)
            try ImageImportStore.begin(
                connection, image, task, file: file, converted: converted, stores: requested.stores, now: context.ambient.now)
            try Workflows.start(
                connection, workflows.importData, subject: id,
                frame: ImageWorkflows.Frame(
                    task: task.id.description, method: requested.method.rawValue, uri: requested.uri, file: file,
                    stores: requested.stores, needsAll: requested.allStoresMustSucceed, converted: converted),
                requestID: context.requestID, ambient: context.ambient)
            return Change(
                .empty(202), "image", id, content: ["import": .string(requested.method.rawValue), "task": .string(task.id.description)])
        }
    }

    private func task(_ context: RequestContext, _ image: Image, stores: [String]) throws -> ImageImportStore.NewTask {
        ImageImportStore.NewTask(
            id: context.ambient.newUUID(), imageID: image.id.text, project: try context.caller.projectID ?? image.owner,
            user: try context.caller.userID, requestID: context.requestID,
            input: ["image_id": .string(image.id.text), "import_req": context.body, "backend": JSONValue(stores)])
    }

    /// Copies the data of an image to further stores. Does nothing if all of them have it.
    private func copy(
        _ connection: Connection, _ context: RequestContext, _ image: Authorized<Image>, _ requested: ImageImport
    ) throws -> Change {
        try context.authorize(target: .project(image.value.owner), action: "copy_image")
        let (id, added) = (try image.value(for: "import_image").id.text, try requested.added(to: image.value))
        guard let file = image.value.fileID, let size = image.value.size, let hash = image.value.hashValue512, !added.isEmpty else {
            return Change(.empty(202), "image", id)
        }
        let task = try task(context, image.value, stores: added)
        try ImageImportStore.begin(connection, image, task, file: nil, converted: nil, stores: added, now: context.ambient.now)
        try Workflows.start(
            connection, workflows.copyData, subject: id,
            frame: ImageWorkflows.CopyFrame(
                task: task.id.description, file: file, size: size, hashValue: hash, stores: added,
                needsAll: requested.allStoresMustSucceed),
            requestID: context.requestID, ambient: context.ambient)
        return Change(.empty(202), "image", id, content: ["import": "copy-image", "task": .string(task.id.description)])
    }

    // MARK: tasks

    private func imageTasks(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        return try await database.read { connection in
            _ = try authorized(connection, context, id, locked: false)
            return try ResourceKind.imageTasks.list(connection, context, where: ["t.image_id = \(id)::uuid"])
        }
    }

    private func showTask(_ context: RequestContext) async throws -> Response {
        let text = context.parameter("task_id")
        try context.authorize(target: .none)
        guard let id = UUID128(text) else { throw ResourceKind.tasks.notFound(text) }
        return try await database.read { connection in
            let scope = try ResourceKind.tasks.visibility.rows(context)
            return try ResourceKind.tasks.one(connection, context, where: "t.id = \(id) AND \(scope)", id: text)
        }
    }
}
