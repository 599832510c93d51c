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
                    "Show what is taken of a provider", handler: showProviderUsages),
                Route(
                    .get, "/usages", action: "placement:usages", rule: "rule:admin_required or rule:project_reader",
                    versions: VersionRange(from: Microversion(1, 9)), "Show what a project has taken", handler: showUsages),
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
            var conditions: [SQL] = ["c.project_id = \(project)"]
            if let user { conditions.append("c.user_id = \(user)") }
            if let type, type != "all" {
                conditions.append(type == "unknown" ? "c.consumer_type IS NULL" : "c.consumer_type = \(type)")
            }
            let group = byType && type != "all" ? "coalesce(c.consumer_type, 'unknown')" : "'all'"
            let rows = try connection.query(
                """
                SELECT \(raw: group) AS type, a.resource_class, sum(a.used)::bigint AS used, count(DISTINCT c.id) AS consumers
                FROM consumers c JOIN allocations a ON a.consumer_id = c.id
                WHERE \(SQL.joined(conditions, separator: " AND ")) GROUP BY 1, 2 ORDER BY 1, 2
                """)
            var usages: [String: [(String, Int)]] = [:]
            var consumers: [String: Int] = [:]
            for row in rows {
                let name = try row.string("type")
                usages[name, default: []].append((try row.string("resource_class"), try row.int("used")))
                consumers[name] = max(consumers[name] ?? 0, try row.int("consumers"))
            }
            return context.dated(
                .object { writer in
                    writer.objectField("usages") { list in
                        guard byType else {
                            for (name, used) in usages["all"] ?? [] { list.field(name, used) }
                            return
                        }
                        for (type, amounts) in usages.sorted(by: { $0.key < $1.key }) {
                            list.objectField(type) { item in
                                for (name, used) in amounts { item.field(name, used) }
                                item.field("consumer_count", consumers[type] ?? 0)
                            }
                        }
                    }
                })
        }
    }
}
