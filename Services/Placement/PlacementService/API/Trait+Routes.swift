import Authorization
import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

extension Placement {
    private static let since6 = VersionRange(from: Microversion(1, 6))

    var traitResource: Resource {
        let traits = BodySchema.object([
            Placement.generationProperty,
            .init("traits", .array(.string(min: 1, max: 255, format: nil), min: 0, max: 5000), required: true),
        ])
        let own = "/resource_providers/{uuid}/traits"
        let since = Placement.since6
        return Resource(
            "trait",
            routes: [
                Route(
                    .get, "/traits", action: "placement:traits:list", rule: Placement.rule, versions: since,
                    answer: .form(PlacementForms.traits), "List traits", handler: listTraits),
                Route(
                    .get, "/traits/{name}", action: "placement:traits:show", rule: Placement.rule, versions: since, status: 204,
                    "Check whether a trait exists", handler: showTrait),
                Route(
                    .put, "/traits/{name}", action: "placement:traits:update", rule: Placement.rule, versions: since, status: 201,
                    "Create a custom trait", handler: putTrait),
                Route(
                    .delete, "/traits/{name}", action: "placement:traits:delete", rule: Placement.rule, versions: since, status: 204,
                    "Delete a custom trait", handler: deleteTrait),
                Route(
                    .get, own, action: "placement:resource_providers:traits:list", rule: Placement.rule, versions: since,
                    answer: .form(PlacementForms.providerTraits), "List a provider's traits", handler: listProviderTraits),
                Route(
                    .put, own, action: "placement:resource_providers:traits:update", rule: Placement.rule, versions: since,
                    body: .json(traits), "Replace a provider's traits", handler: replaceProviderTraits),
                Route(
                    .delete, own, action: "placement:resource_providers:traits:delete", rule: Placement.rule, versions: since, status: 204,
                    "Remove all traits of a provider", handler: deleteProviderTraits),
            ])
    }

    // MARK: traits

    private func listTraits(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        try context.checkQuery(["name", "associated"])
        let filter = try Placement.traitFilter(context.query["name"] ?? "startswith:")
        let associated = try context.query["associated"].map { text in
            guard let value = ["true": true, "false": false][text.lowercased()] else {
                throw ProviderQuery.bad("The query parameter \"associated\" only accepts \"true\" or \"false\"")
            }
            return value
        }
        return try await database.read { connection in
            let names = try TraitStore.names(connection, associated: associated).filter(filter)
            return context.dated(.object(capacity: names.count * 40) { $0.field("traits", names) })
        }
    }

    /// `in:A,B` or `startswith:PREFIX`
    private static func traitFilter(_ text: String) throws -> @Sendable (String) -> Bool {
        if text.hasPrefix("in:") {
            let names = Set(text.dropFirst(3).split(separator: ",").map(String.init))
            return { names.contains($0) }
        }
        guard text.hasPrefix("startswith:") else {
            throw ProviderQuery.bad(
                """
                Badly formatted name parameter. Expected name query string parameter in form: \
                ?name=[in|startswith]:[name1,name2|prefix]. Got: \"\(text.prefix(100))\"
                """
            )
        }
        let prefix = String(text.dropFirst(11))
        return { $0.hasPrefix(prefix) }
    }

    private func showTrait(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let name = context.parameter("name")
        return try await database.read { connection in
            guard try TraitStore.exists(connection, name) else { throw ResourceError.notFound("No such trait(s): \(name).") }
            return context.dated(.empty())
        }
    }

    private func putTrait(_ context: RequestContext) async throws -> Response {
        let trait = try context.authorize(context.parameter("name"), target: .none)
        let name = trait.value
        guard PlacementName.isCustom(name) else {
            throw ResourceError.badRequest(
                """
                The trait is invalid. A valid trait must be no longer than 255 characters, start with the prefix \
                \"CUSTOM_\" and use following characters: \"A\"-\"Z\", \"0\"-\"9\" and \"_\"
                """
            )
        }
        return try await context.write(database) { connection in
            let isNew = try TraitStore.insert(connection, trait, at: context.ambient.now)
            let response = Response.empty(isNew ? 201 : 204, headers: ["location": "\(context.publicURL)/traits/\(name)"])
            return Change(context.dated(response), "trait", name)
        }
    }

    private func deleteTrait(_ context: RequestContext) async throws -> Response {
        let trait = try context.authorize(context.parameter("name"), target: .none)
        let name = trait.value
        guard !StandardTraits.set.contains(name) else {
            throw ResourceError.badRequest("Cannot delete standard trait \(name)")
        }
        return try await context.write(database) { connection in
            try TraitStore.delete(connection, trait)
            return Change(.empty(), "trait", name)
        }
    }

    // MARK: a provider's traits

    private static func traits(_ connection: Connection, _ id: String) throws -> Response {
        let generation = try generation(connection, provider: id)
        let names = try TraitStore.names(connection, provider: id)
        return .object { writer in
            writer.field("traits", names)
            writer.field("resource_provider_generation", generation)
        }
    }

    private func listProviderTraits(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let id = try context.providerID
        return try await database.read { context.dated(try Placement.traits($0, id)) }
    }

    private func replaceProviderTraits(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:traits:update")
        let names = Set((context.body["traits"]?.arrayValue ?? []).compactMap(\.stringValue)).sorted()
        let expected = context.body["resource_provider_generation"]?.intValue
        return try await context.write(database) { connection in
            try ProviderStore.touch(
                connection, provider, for: "placement:resource_providers:traits:update", expected: expected, at: context.ambient.now)
            try Placement.requireTraits(connection, names)
            try TraitStore.replace(connection, of: provider, names)
            try Placement.announce(connection, [id])
            return Change(answer: context.dated(try Placement.traits(connection, id)), "trait", id)
        }
    }

    private func deleteProviderTraits(_ context: RequestContext) async throws -> Response {
        let provider = try context.authorizedProvider()
        let id = try provider.value(for: "placement:resource_providers:traits:delete")
        return try await context.write(database) { connection in
            try ProviderStore.touch(connection, provider, for: "placement:resource_providers:traits:delete", at: context.ambient.now)
            try TraitStore.replace(connection, of: provider, [])
            try Placement.announce(connection, [id])
            return Change(.empty(), "trait", id)
        }
    }
}
