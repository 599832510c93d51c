import ArgumentParser
import Client
import JSON
import ServiceCatalog

extension Servers {
    /// Commands that restore or finally delete a deleted server, or act inside its guest.
    static let guestVerbs: [any ParsableCommand.Type] = [
        Action<Restore>.self, Action<ForceDelete>.self, Action<CrashDump>.self, Password.self,
    ]

    enum Restore: ServerAction {
        static let verb = "restore"
        static let abstract = "Restore deleted servers that the cloud still keeps (see: osctl server list --status soft_deleted)."
        static let goal: Set = ["ACTIVE"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["restore": nil] }
    }

    enum ForceDelete: ServerAction {
        static let verb = "force-delete"
        static let abstract = "Delete servers at once, also where the cloud keeps deleted servers for a while."
        static let goal: Set<String> = []
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["forceDelete": nil] }
    }

    enum CrashDump: ServerAction {
        static let verb = "dump"
        static let abstract = "Make the kernels of servers write a crash dump (non-maskable interrupt)."
        static let goal: Set<String> = []
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["trigger_crash_dump": nil] }
    }

    /// `osctl server password …`
    struct Password: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Passwords inside servers.", subcommands: [SetPassword.self, ShowPassword.self, ClearPassword.self])
    }

    struct SetPassword: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "set", abstract: "Change the administrator's password in a server, through its guest agent.")
        @Argument(help: "The server.") var server: String
        @Option(
            help: ArgumentHelp("A file whose first line is the password; - reads standard input.", valueName: "file"), completion: .file())
        var passwordFile: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let password = try Users.password(nil, file: passwordFile) ?? ""
            try await api.act(kind, id: try await api.id(kind, server), ["changePassword": ["adminPass": .string(password)]])
        }
    }

    struct ShowPassword: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "show", abstract: "Show the password that a server posted, encrypted with the public key of its keypair.")
        @Argument(help: "The server.") var server: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let path = kind.path(id: try await api.id(kind, server)) + "/os-server-password"
            print(try await api.client.get(.compute, path, microversion: kind.microversion)["password"]?.stringValue ?? "")
        }
    }

    struct ClearPassword: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "clear", abstract: "Delete the password that a server posted, so that it can post another one.")
        @Argument(help: "The server.") var server: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let path = kind.path(id: try await api.id(kind, server)) + "/os-server-password"
            try await api.client.delete(.compute, path, microversion: kind.microversion)
        }
    }
}
