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
                Route(
                    .get, "/v2/info/usage", action: "get_usage", rule: ImageRules.rule("get_usage"), answer: .form(ImageHandlers.usageForm),
                    "Quota and usage", handler: usage)
            ])
    }

    private static let usageForm = BodySchema.wrapped(
        "usage",
        .object(
            BodySchema.Property.required(
                ["image_size_total", "image_count_total", "image_stage_total", "image_count_uploading"],
                .object([.required("limit", .limit), .required("usage", .count)]))))

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
            let incoming = try ImageStore.incoming(connection, project: project)
            return .json(
                200,
                [
                    "usage": [
                        "image_size_total": try entry(ImageQuotas.size), "image_count_total": try entry(ImageQuotas.count),
                        "image_stage_total": ["limit": -1, "usage": JSONValue(incoming.stagedMiB)],
                        "image_count_uploading": ["limit": -1, "usage": JSONValue(incoming.uploads)],
                    ]
                ])
        }
    }
}
