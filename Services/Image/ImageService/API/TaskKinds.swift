import Authorization
import Database
import ImageCore
import JSON
import Kernel
import WebAPI

private let taskFields: [Field] = [
    Field("id", sortable: true), Field("type", filter: .equals, sortable: true), Field("status", filter: .equals, sortable: true),
    Field("owner", .text, "t.project_id"), Field("image_id"), Field("request_id"), Field("user_id"),
    Field("input", .json, shape: .object([], additional: .allowed)),
    Field("result", .json, shape: .nullable(.object([], additional: .allowed))), Field("message"),
    Field("created_at", .timestamp, sortable: true), Field("updated_at", .timestamp, sortable: true),
    Field("expires_at", .timestamp, presence: .whenSet, sortable: true),
]

private let taskTable = Table(
    "image_tasks t", defaultSort: [("created_at", true)], missingMarker: .notFound,
    fields: taskFields + [Field("self", .text, "'/v2/tasks/' || t.id"), Field("schema", .text, "'/v2/schemas/task'")])

extension ResourceKind {
    /// Imports of images, and their results.
    static let tasks = ResourceKind(
        "task", table: taskTable, relation: "image_tasks", envelope: .bare,
        visibility: ResourceKind.Visibility { context in
            if context.allows("see_all_images") { return "TRUE" }
            return "t.project_id = \(try context.caller.projectID ?? "")"
        },
        grammar: ListGrammar {
            $0.unknown = .refused
            $0.directions = .descending
            $0.hasFields = false
            $0.limitMax = ImageLimits.pageSizeMax
            $0.allowsEmptyPage = true
        }, pages: .paths(schema: "/v2/schemas/tasks")
    ) { .notFound("No task found with ID \($0.prefix(64))") }

    /// The tasks of one image.
    static let imageTasks = ResourceKind(
        "task", table: taskTable, relation: "image_tasks", envelope: .bare, visibility: .everything, grammar: tasks.grammar)
}
