import Authorization
import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension Placement {
    var usageResource: Resource {
        Resource(
            "usage",
            routes: [
                Route(
                    .get, "/resource_providers/{uuid}/usages", action: "placement:resource_providers:usages", rule: Placement.rule,
                    answer: .form(PlacementForms.providerUsages), "Show a provider's usages", handler: showProviderUsages),
                Route(
                    .get, "/usages", action: "placement:usages", rule: "rule:admin_required or rule:project_reader",
                    versions: VersionRange(from: Microversion(1, 9)), answer: .form(PlacementForms.usages), "Show a project's usages",
                    handler: showUsages),
            ])
    }

    private func showProviderUsages(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        return try await database.read { connection in
            let generation = try Placement.generation(connection, provider: id)
            let classes = try InventoryStore.load(connection, providers: [id])[id] ?? [:]
            let used = try InventoryStore.usages(connection, providers: [id])[id] ?? [:]
            return context.dated(
                .object { writer in
                    writer.field("resource_provider_generation", generation)
                    writer.objectField("usages") { list in
                        for name in Set(classes.keys).union(used.keys).sorted() { list.field(name, used[name] ?? 0) }
                    }
                })
        }
    }

    private func showUsages(_ context: RequestContext) async throws -> Response {
        guard let project = context.query["project_id"], (1...255).contains(project.utf8.count) else {
            try context.authorize(target: .none, action: "placement:usages")
            throw ResourceError.badRequest(
                "Invalid query string parameters: 'project_id' is a required property", type: "placement.query.missing_value")
        }
        try context.authorize(target: .project(project))
        let byType = context.version(atLeast: 1, 38)
        try context.checkQuery(Set(["project_id", "user_id"] + (byType ? ["consumer_type"] : [])))
        let user = context.query["user_id"]
        let type = context.query["consumer_type"]
        return try await database.read { connection in
            let usage = try ProjectUsage(connection, project: project, user: user, type: type, byType: byType)
            return context.dated(
                .object { writer in
                    writer.objectField("usages") { list in
                        guard byType else {
                            for (name, used) in usage.amounts["all"] ?? [] { list.field(name, used) }
                            return
                        }
                        for (type, amounts) in usage.amounts.sorted(by: { $0.key < $1.key }) {
                            list.objectField(type) { item in
                                for (name, used) in amounts { item.field(name, used) }
                                item.field("consumer_count", usage.consumers[type] ?? 0)
                            }
                        }
                    }
                })
        }
    }
}
