import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

enum Users: Creatable, Settable {
    static let setMethod = RESTMethod.patch
    static let kind = Kind(
        command: ["user"], noun: "user", service: .identity, path: "/users", member: "user", collection: "users",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Domain", "domain_id"), OutputColumn("Enabled", "enabled"),
            OutputColumn("Email", "email"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
    ]

    struct Filters: FilterArguments {
        @Option(help: ArgumentHelp("Only of this domain.", valueName: "domain")) var domain: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            guard let domain else { return [] }
            return [("domain_id", try await api.id(Domains.kind, domain))]
        }
    }

    /// A password should not be on a command line: it is read from a file or generated here.
    struct CreateOptions: CreateArguments {
        @Argument(help: "The user's name.") var name: String
        @Option(help: ArgumentHelp("The domain; `default` by default.", valueName: "domain")) var domain: String?
        @Option(help: ArgumentHelp("The password; prefer --password-file, because other users can see command lines.", valueName: "text"))
        var password: String?
        @Option(
            help: ArgumentHelp("A file whose first line is the password; - reads standard input.", valueName: "file"), completion: .file())
        var passwordFile: String?
        @Flag(help: "Generate a password and print it.") var generatePassword = false
        @Option(help: "Mail address.") var email: String?
        @Option(help: "A description.") var description: String?
        @Option(help: ArgumentHelp("The default project.", valueName: "project")) var project: String?
        @Flag(help: "Create it disabled.") var disable = false

        func validate() throws {
            guard [password != nil, passwordFile != nil, generatePassword].filter({ $0 }).count <= 1 else {
                throw ValidationError("--password, --password-file and --generate-password cannot be used together.")
            }
        }

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "enabled": .bool(!disable)]
            members["domain_id"] = .string(try await domain.asyncMap { try await api.id(Domains.kind, $0) } ?? "default")
            if generatePassword {
                let generated = api.client.ambient.newSecret()
                Machine.write(to: 2, "The password of \(name) is: \(generated)\n")
                members["password"] = .string(generated)
            } else {
                members.put("password", try Users.password(password, file: passwordFile))
            }
            members.put("email", email)
            members.put("description", description)
            if let project { members["default_project_id"] = .string(try await api.id(Projects.kind, project)) }
            return members
        }
    }

    /// The password of a command: the first line of the file, or the given one.
    static func password(_ text: String?, file: String?) throws -> String? {
        guard let file else { return text }
        let content = try UserFile.text(file == "-" ? "/dev/stdin" : file)
        guard let line = content.split(whereSeparator: \.isNewline).first else {
            throw CommandFailure("The password file \(file) is empty.")
        }
        return String(line)
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New mail address.") var email: String?
        @Option(help: "New description.") var description: String?
        @Option(help: ArgumentHelp("New password; better: --password-file.", valueName: "text")) var password: String?
        @Option(
            help: ArgumentHelp("A file whose first line is the new password; - reads standard input.", valueName: "file"),
            completion: .file()) var passwordFile: String?
        @Flag(inversion: .prefixedEnableDisable, help: "Enable or disable it.") var state: Bool?

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("email", email)
            changes.put("description", description)
            changes.put("password", try Users.password(password, file: passwordFile))
            changes.put("enabled", state)
            return changes
        }
    }
}
