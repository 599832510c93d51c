import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// `osctl image member …`: the projects with which an image is shared.
struct ImageMemberCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "member", abstract: "Projects with which an image is shared.",
        subcommands: [List.self, Add.self, Remove.self, Set.self])

    private static func path(_ image: String, _ api: CloudAPI) async throws -> RESTPath {
        "/images/\(try await api.id(Images.kind, image))/members"
    }

    struct List: APICommand {
        static let configuration = CommandConfiguration(abstract: "List the projects with which an image is shared.")
        @Argument(help: "The image.") var image: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        private static let columns = [
            OutputColumn("Project", "member_id"), OutputColumn("Status", "status"), OutputColumn("Since", "created_at"),
        ]

        func execute(_ api: CloudAPI) async throws {
            let answer = try await api.client.get(.image, try await ImageMemberCommand.path(image, api))
            print(try output.list(answer["members"]?.arrayValue ?? [], columns: List.columns), terminator: "")
        }
    }

    struct Add: APICommand {
        static let configuration = CommandConfiguration(
            abstract: "Share an image, which must have the visibility shared, with a project.")
        @Argument(help: "The image.") var image: String
        @Argument(help: "The project's id, or its name for operators.") var project: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let member = try await QuotaCommand.project(project, api)
            try await api.client.post(.image, try await ImageMemberCommand.path(image, api), ["member": .string(member)])
        }
    }

    struct Remove: APICommand {
        static let configuration = CommandConfiguration(abstract: "No longer share an image with a project.")
        @Argument(help: "The image.") var image: String
        @Argument(help: "The project's id, or its name for operators.") var project: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let member = try await QuotaCommand.project(project, api)
            try await api.client.delete(.image, try await ImageMemberCommand.path(image, api) + "/\(member)")
        }
    }

    struct Set: APICommand {
        static let configuration = CommandConfiguration(
            abstract: "Decide about an image that another project shares with yours: accepted images are in the list of images.")
        @Argument(help: "The image's id.") var image: String
        @Argument(help: "accepted, rejected or pending.") var status: Status
        @OptionGroup(title: "Cloud") var access: AccessOptions

        enum Status: String, ExpressibleByArgument, CaseIterable { case accepted, rejected, pending }

        func execute(_ api: CloudAPI) async throws {
            let path = try await ImageMemberCommand.path(image, api) + "/\(try await api.project())"
            try await api.client.put(.image, path, ["status": .string(status.rawValue)])
        }
    }
}
