import Authorization
import Contracts
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import WebAPI

/// Version documents, schemas and other information about the service.
extension ImageHandlers {
    /// Versions of the API; the first one is the current version.
    private static let versions = ["v2.13", "v2.9", "v2.8", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0"]

    var discoveryResource: Resource {
        Resource(
            "image service",
            routes: [
                Route(.get, "/", action: nil, status: 300, "Versions") { versions($0, status: 300) },
                Route(.get, "/versions", action: nil, "Versions") { versions($0, status: 200) },
                Route(.get, "/v2", action: nil, "Versions") { versions($0, status: 200) },
                schema("image", ImageSchemas.image), schema("images", ImageSchemas.images),
                schema("member", ImageSchemas.member), schema("members", ImageSchemas.members),
                schema("task", ImageSchemas.task), schema("tasks", ImageSchemas.tasks),
            ] + MetadataDefinitionSchemas.all.map { schema("metadefs/\($0.name)", $0.schema) } + [
                Route(.get, "/v2/tasks", action: "get_tasks", rule: ImageRules.rule("get_tasks"), "List tasks: there are none") { context in
                    try context.authorize(target: .none)
                    try EmptyPage.check(
                        context, sortKeys: ["created_at", "expires_at", "status", "type", "updated_at"], filters: ["status", "type"])
                    return .json(200, ["tasks": [], "schema": "/v2/schemas/tasks", "first": "/v2/tasks"])
                },
                Route(.get, "/v2/tasks/{task_id}", action: "get_task", rule: ImageRules.rule("get_task"), "Show a task: there is none") {
                    context in
                    try context.authorize(target: .none)
                    throw ResourceError.notFound("No task found with ID \(context.parameter("task_id").prefix(64))")
                },
                Route(.get, "/v2/info/import", action: "get_import_info", rule: ImageRules.rule("get_import_info"), "Import methods") {
                    context in
                    try context.authorize(target: .none)
                    return .json(200, ["import-methods": ["description": "Import methods available.", "type": "array", "value": []]])
                },
                Route(.get, "/v2/info/stores", action: "get_stores_info", rule: ImageRules.rule("get_stores_info"), "Stores") { context in
                    try context.authorize(target: .none)
                    return .json(200, ["stores": [["id": "file", "default": true]]])
                },
                Route(
                    .get, "/v2/info/stores/detail", action: "stores_info_detail", rule: ImageRules.rule("stores_info_detail"),
                    "Stores in detail"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(
                        200,
                        ["stores": [["id": "file", "type": "file", "default": true, "properties": ["data_dir": .string(files.directory)]]]])
                },
                Route(.get, "/v2/info/usage", action: "get_usage", rule: ImageRules.rule("get_usage"), "Quota and usage", handler: usage),
                Route(
                    .get, "/v2/images/{image_id}/tasks", action: "get_image_tasks", rule: ImageRules.rule("get_image_tasks"),
                    "Tasks of an image", handler: tasks),
                Route(
                    .post, "/v2/images/{image_id}/import", action: "import_image", rule: ImageRules.rule("import_image"),
                    body: .json(
                        .object(
                            [.init("method", .object([.init("name", .identifier, required: true)], additional: .allowed), required: true)],
                            additional: .allowed)),
                    "Import", handler: refuseImport),
                Route(
                    .put, "/v2/images/{image_id}/stage", action: "stage_image", rule: ImageRules.rule("stage_image"), body: .stream,
                    "Stage", handler: refuseStage),
            ])
    }

    private func versions(_ context: RequestContext, status: Int) -> Response {
        let list = ImageHandlers.versions.enumerated().map { index, version -> JSONValue in
            [
                "id": .string(version), "status": index == 0 ? "CURRENT" : "SUPPORTED",
                "links": [["rel": "self", "href": .string(context.publicURL + "/v2/")]],
            ]
        }
        return .json(status, ["versions": .array(list)])
    }

    func schema(_ name: String, _ schema: JSONValue) -> Route {
        let action = "get_schema_" + name.replacing("/", with: "_")
        return Route(.get, "/v2/schemas/\(name)", action: action, rule: ImageRules.rule(action), "JSON schema") { context in
            try context.authorize(target: .none)
            return .json(200, schema)
        }
    }

    private func usage(_ context: RequestContext) async throws -> Response {
        let project = try context.caller.requireProject()
        try context.authorize(target: .project(project))
        return try await database.read { connection in
            func entry(_ declaration: QuotaDeclaration) throws -> JSONValue {
                let state = try quota.quota.state(connection, project: project, declaration)
                return ["limit": JSONValue(state.limit), "usage": JSONValue(state.used)]
            }
            let saving = try connection.query(
                "SELECT count(*) AS n FROM images WHERE project_id = \(project) AND status = 'saving'")[0].int("n")
            return .json(
                200,
                [
                    "usage": [
                        "image_size_total": try entry(ImageQuotas.size), "image_count_total": try entry(ImageQuotas.count),
                        "image_stage_total": ["limit": 0, "usage": 0],
                        "image_count_uploading": ["limit": -1, "usage": JSONValue(saving)],
                    ]
                ])
        }
    }

    private func tasks(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        return try await database.read { connection in
            _ = try authorized(connection, context, id, locked: false)
            try EmptyPage.check(context)
            return .json(200, ["tasks": []])
        }
    }

    private func refuseImport(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let method = context.body["method"]?["name"]?.stringValue ?? ""
        return try await database.read { connection in
            _ = try authorized(connection, context, id, locked: false)
            throw ResourceError.badRequest(
                "The import method '\(method.prefix(64))' is not enabled; upload the data with PUT /v2/images/\(id)/file.")
        }
    }

    private func refuseStage(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        return try await database.read { connection in
            _ = try authorized(connection, context, id, locked: false)
            throw ResourceError.notFound(
                "Data cannot be staged here: no import method is enabled; upload with PUT /v2/images/\(id)/file.")
        }
    }
}
