import ArgumentParser
import JSON
import Kernel

/// A verb that is a single action of Compute and ends in a known status.
protocol ServerAction {
    associatedtype Options: ServerActionOptions = NoActionOptions
    static var verb: String { get }
    static var abstract: String { get }
    /// Statuses at the end of the action; empty if it is complete with its response.
    static var goal: Set<String> { get }
    static func body(_ options: Options, _ api: CloudAPI) async throws -> JSONValue
}

protocol ServerActionOptions: ParsableArguments {}
struct NoActionOptions: ServerActionOptions {}

extension Servers {
    static var actions: [any ParsableCommand.Type] {
        [
            Action<Start>.self, Action<Stop>.self, Action<Reboot>.self, Action<Pause>.self, Action<Unpause>.self,
            Action<Suspend>.self, Action<Resume>.self, Action<Lock>.self, Action<Unlock>.self, Action<Rebuild>.self,
            Action<Resize>.self, Action<Rescue>.self, Action<Unrescue>.self, Migrate.self, Migrations.self, Action<Evacuate>.self,
            Action<Shelve>.self,
            Action<Offload>.self, Action<Unshelve>.self,
        ]
    }

    /// The command of an action on any number of servers.
    struct Action<A: ServerAction>: APICommand {
        static var configuration: CommandConfiguration { CommandConfiguration(commandName: A.verb, abstract: A.abstract) }

        @Argument(help: ArgumentHelp("Names or ids.", valueName: "server")) var servers: [String]
        @OptionGroup var options: A.Options
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let body = try await A.body(options, api)
            var accepted: [String] = []
            let failures = await Several.run(servers, api) { name in
                let id = try await api.id(kind, name)
                try await api.act(kind, id: id, body)
                accepted.append(id)
            }
            if waiting.wait, let rule = kind.progress, !A.goal.isEmpty {
                for id in accepted {
                    let server = try await Waiter(api, limit: waiting.timeout).reach(A.goal, kind, id: id, rule: rule)
                    print("Server \(kind.title(server)) is \(server[rule.field]?.stringValue ?? "").")
                }
            }
            if failures > 0 { throw ExitCode(1) }
        }
    }

    enum Start: ServerAction {
        static let verb = "start"
        static let abstract = "Start servers."
        static let goal: Set = ["ACTIVE"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["os-start": nil] }
    }

    enum Stop: ServerAction {
        static let verb = "stop"
        static let abstract = "Shut servers down."
        static let goal: Set = ["SHUTOFF"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["os-stop": nil] }
    }

    enum Reboot: ServerAction {
        struct Options: ServerActionOptions {
            @Flag(help: "Like the reset button, without asking the guest.") var hard = false
        }
        static let verb = "reboot"
        static let abstract = "Reboot servers."
        static let goal: Set = ["ACTIVE"]
        static func body(_ options: Options, _ api: CloudAPI) -> JSONValue { ["reboot": ["type": options.hard ? "HARD" : "SOFT"]] }
    }

    enum Pause: ServerAction {
        static let verb = "pause"
        static let abstract = "Stop servers' processors, keeping memory."
        static let goal: Set = ["PAUSED"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["pause": nil] }
    }

    enum Unpause: ServerAction {
        static let verb = "unpause"
        static let abstract = "Unpause servers."
        static let goal: Set = ["ACTIVE"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["unpause": nil] }
    }

    enum Suspend: ServerAction {
        static let verb = "suspend"
        static let abstract = "Suspend servers to disk."
        static let goal: Set = ["SUSPENDED"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["suspend": nil] }
    }

    enum Resume: ServerAction {
        static let verb = "resume"
        static let abstract = "Resume suspended servers."
        static let goal: Set = ["ACTIVE"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["resume": nil] }
    }

    enum Lock: ServerAction {
        struct Options: ServerActionOptions {
            @Option(help: "The reason, visible to others.") var reason: String?
        }
        static let verb = "lock"
        static let abstract = "Protect servers from changes."
        static let goal: Set<String> = []
        static func body(_ options: Options, _ api: CloudAPI) -> JSONValue {
            ["lock": options.reason.map { ["locked_reason": .string($0)] } ?? .null]
        }
    }

    enum Unlock: ServerAction {
        static let verb = "unlock"
        static let abstract = "Allow changes again."
        static let goal: Set<String> = []
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["unlock": nil] }
    }

    enum Rescue: ServerAction {
        struct Options: ServerActionOptions {
            @Option(help: ArgumentHelp("The image with the other system; the server's own if not given.", valueName: "image"))
            var image: String?
        }
        static let verb = "rescue"
        static let abstract = "Boot servers into another system, to repair their disks."
        static let goal: Set = ["RESCUE"]
        static func body(_ options: Options, _ api: CloudAPI) async throws -> JSONValue {
            guard let image = options.image else { return ["rescue": nil] }
            return ["rescue": ["rescue_image_ref": .string(try await api.id(Images.kind, image))]]
        }
    }

    enum Unrescue: ServerAction {
        static let verb = "unrescue"
        static let abstract = "Boot rescued servers into their own system again."
        static let goal: Set = ["ACTIVE"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["unrescue": nil] }
    }

    enum Rebuild: ServerAction {
        struct Options: ServerActionOptions {
            @Option(help: ArgumentHelp("The image to rebuild from.", valueName: "image")) var image: String
            @Option(help: "New name.") var name: String?
            @Option(help: "New description.") var description: String?
            @Option(help: "New host name inside the guest.") var hostname: String?
            @Option(
                name: [.customLong("key-name"), .customLong("keypair")],
                help: ArgumentHelp("Another keypair to log in with.", valueName: "keypair")
            ) var keyName: String?
            @Flag(help: "No keypair any more.") var noKeyName = false
            @Option(help: ArgumentHelp("A file with new user data for the guest.", valueName: "file"), completion: .file())
            var userData: String?
            @Flag(help: "No user data any more.") var noUserData = false
            @Option(help: ArgumentHelp("Properties that replace the present ones (repeatable).", valueName: "key=value"))
            var property: [Assignment] = []
            @Flag(help: "Keep the ephemeral disks.") var preserveEphemeral = false

            func validate() throws {
                guard keyName == nil || !noKeyName else { throw ValidationError("--key-name and --no-key-name exclude each other.") }
                guard userData == nil || !noUserData else { throw ValidationError("--user-data and --no-user-data exclude each other.") }
            }
        }
        static let verb = "rebuild"
        static let abstract = "Rebuild servers from an image; their disks are lost."
        static let goal: Set = ["ACTIVE", "SHUTOFF"]
        static func body(_ options: Options, _ api: CloudAPI) async throws -> JSONValue {
            var members: JSONObject = ["imageRef": .string(try await api.id(Images.kind, options.image))]
            members.put("name", options.name)
            members.put("description", options.description)
            members.put("hostname", options.hostname)
            members.put("key_name", options.keyName)
            if options.noKeyName { members["key_name"] = .null }
            if let file = options.userData { members["user_data"] = .string(Base64.encode(try UserFile.read(file))) }
            if options.noUserData { members["user_data"] = .null }
            if !options.property.isEmpty { members["metadata"] = options.property.json }
            if options.preserveEphemeral { members["preserve_ephemeral"] = true }
            return ["rebuild": .object(members)]
        }
    }

    enum Resize: ServerAction {
        struct Options: ServerActionOptions {
            @Option(help: ArgumentHelp("The new flavor.", valueName: "flavor")) var flavor: String?
            @Flag(help: "Confirm the new size.") var confirm = false
            @Flag(help: "Revert to the old size.") var revert = false

            func validate() throws {
                guard [flavor != nil, confirm, revert].filter({ $0 }).count == 1 else {
                    throw ValidationError("Specify one of --flavor, --confirm and --revert.")
                }
            }
        }
        static let verb = "resize"
        static let abstract = "Resize servers to another flavor."
        static let goal: Set = ["VERIFY_RESIZE", "ACTIVE", "SHUTOFF"]
        static func body(_ options: Options, _ api: CloudAPI) async throws -> JSONValue {
            if options.confirm { return ["confirmResize": nil] }
            if options.revert { return ["revertResize": nil] }
            return ["resize": ["flavorRef": .string(try await api.id(Flavors.kind, options.flavor ?? ""))]]
        }
    }
}
