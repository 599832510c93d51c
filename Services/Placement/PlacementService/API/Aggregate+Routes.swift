import Authorization
import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension Placement {
    private static let path = "/resource_providers/{uuid}/aggregates"

    var aggregateResource: Resource {
        let ids = BodySchema.array(.uuid, min: 0, max: 1000)
        let before = VersionRange(from: Microversion(1, 1), through: Microversion(1, 18))
        let since = VersionRange(from: Microversion(1, 19))
        let action = "placement:resource_providers:aggregates:"
        return Resource(
            "aggregate",
            routes: [
                Route(
                    .get, Placement.path, action: action + "list", rule: Placement.rule, versions: VersionRange(from: Microversion(1, 1)),
                    answer: .form(PlacementForms.aggregates), "List a provider's aggregates", handler: listAggregates),
                Route(
                    .put, Placement.path, action: action + "update", rule: Placement.rule, versions: before, body: .json(ids),
                    "Replace a provider's aggregates", handler: replaceAggregates),
                Route(
                    .put, Placement.path, action: action + "update", rule: Placement.rule, versions: since,
                    body: .json(.object([Placement.generationProperty, .init("aggregates", ids, required: true)])),
                    "Replace a provider's aggregates", handler: replaceAggregates),
            ])
    }

    private static func aggregates(_ connection: Connection, _ context: RequestContext, _ id: String) throws -> Response {
        let generation = try generation(connection, provider: id)
        let ids = try AggregateStore.ids(connection, provider: id)
        return context.dated(
            .object { writer in
                writer.field("aggregates", ids)
                if context.version(atLeast: 1, 19) { writer.field("resource_provider_generation", generation) }
            })
    }

    private func listAggregates(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        return try await database.read { try Placement.aggregates($0, context, id) }
    }

    private func replaceAggregates(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:aggregates:update")
        let listed = context.body.arrayValue ?? context.body["aggregates"]?.arrayValue ?? []
        let ids = listed.compactMap(\.stringValue).compactMap { UUID128($0) }
        guard Set(ids).count == ids.count else { throw ResourceError.badRequest("The list of aggregates contains an id twice.") }
        let expected = context.body["resource_provider_generation"]?.intValue
        return try await context.write(database) { connection in
            if expected != nil {
                try ProviderStore.touch(
                    connection, provider, for: "placement:resource_providers:aggregates:update", expected: expected, at: context.ambient.now
                )
            } else {
                _ = try Placement.generation(connection, provider: id)
            }
            try AggregateStore.replace(connection, provider, ids)
            return Change(answer: try Placement.aggregates(connection, context, id), "aggregate", id)
        }
    }
}
