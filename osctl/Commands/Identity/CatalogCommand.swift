import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

/// `osctl catalog`
struct CatalogCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "catalog", abstract: "Show the cloud's services and their endpoints.", subcommands: [List.self])

    struct List: APICommand {
        static let configuration = CommandConfiguration(abstract: "List the services of the token's catalog.")
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        static let columns = [
            OutputColumn("Name", "name"), OutputColumn("Type", "type"),
            OutputColumn("Endpoints", "endpoints") { service in
                (service["endpoints"]?.arrayValue ?? []).map { endpoint in
                    """
                    \(endpoint["region"]?.stringValue ?? "-") \(endpoint["interface"]?.stringValue ?? ""): \
                    \(endpoint["url"]?.stringValue ?? "")
                    """
                }.joined(separator: "\n")
            },
        ]

        func execute(_ api: CloudAPI) async throws {
            let catalog = try await api.client.token().document["catalog"]?.arrayValue ?? []
            print(try output.list(catalog, columns: List.columns), terminator: "")
        }
    }
}

/// `osctl token`
struct TokenCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "token", abstract: "The token in use.", subcommands: [Issue.self, Show.self, Revoke.self])

    static func facts(_ token: CloudToken) -> JSONObject {
        [
            "expires": .string(token.expiresAt.iso8601), "user": JSONValue(token.userName), "user_id": JSONValue(token.userID),
            "project": token.document["project"]?["name"] ?? .null, "project_id": JSONValue(token.projectID),
            "domain_id": JSONValue(token.domainID), "system": token.document["system"]?["all"] ?? .null,
            "roles": JSONValue(token.roles),
        ]
    }

    struct Issue: APICommand {
        static let configuration = CommandConfiguration(abstract: "Sign on and print a new token.")
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            // Not the cached one, so that the token has the full lifetime.
            let token = try await RESTClient(api.client.configuration).token()
            var object = JSONObject()
            object["id"] = .string(token.secret.exposed)
            for member in facts(token).members { object[member.name] = member.value }
            print(try output.object(.object(object), fields: nil), terminator: "")
        }
    }

    struct Show: APICommand {
        static let configuration = CommandConfiguration(abstract: "Show the user, scope and roles of the token.")
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            print(try output.object(.object(facts(try await api.client.token())), fields: nil), terminator: "")
        }
    }

    struct Revoke: APICommand {
        static let configuration = CommandConfiguration(abstract: "Revoke a token at once.")
        @Argument(help: "The token; by default the cached one.") var token: String?
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let own = try await api.client.token()
            _ = try await api.client.request(
                service: .identity, method: .delete, path: "/auth/tokens",
                headers: [("x-subject-token", token ?? own.secret.exposed)])
            if token == nil { TokenFile(api.client.configuration, environment: Machine.environment)?.remove() }
        }
    }
}
