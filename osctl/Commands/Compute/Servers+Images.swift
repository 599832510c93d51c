import ArgumentParser
import JSON
import Kernel

extension Servers {
    /// `osctl server image create`
    struct ServerImage: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "image", abstract: "Images of servers.", subcommands: [CreateImage.self])
    }

    /// `osctl server backup create`
    struct ServerBackup: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "backup", abstract: "Backups of servers.", subcommands: [CreateBackup.self])
    }

    struct CreateImage: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Create an image of a server's disk as it is now; the server keeps running.")
        @Argument(help: "The server.") var server: String
        @Option(help: "The image's name; the server's by default.") var name: String?
        @Option(help: ArgumentHelp("A property of the image (repeatable).", valueName: "key=value")) var property: [Assignment] = []
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            var members = JSONObject()
            if !property.isEmpty { members["metadata"] = property.json }
            try await Servers.makeImage("createImage", of: server, name: name, members, waiting, output, api)
        }
    }

    struct CreateBackup: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "create", abstract: "Create an image of a server's disk, and delete the oldest ones of its type.")
        @Argument(help: "The server.") var server: String
        @Option(help: "The image's name; the server's by default.") var name: String?
        @Option(help: ArgumentHelp("daily, weekly or any other name.", valueName: "type")) var type = "daily"
        @Option(help: ArgumentHelp("How many backups of the type are kept.", valueName: "number")) var rotate = 1
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let members: JSONObject = ["backup_type": .string(type), "rotation": JSONValue(rotate)]
            try await Servers.makeImage("createBackup", of: server, name: name, members, waiting, output, api)
        }
    }

    /// Requests the image and prints it; with `--wait`, when it has its data.
    ///
    /// - Throws: `CommandFailure` if the image could not be created.
    private static func makeImage(
        _ action: String, of server: String, name: String?, _ members: JSONObject, _ waiting: WaitOptions, _ output: OutputOptions,
        _ api: CloudAPI
    ) async throws {
        let found = try await api.find(kind, server)
        let id = try kind.id(found)
        var body = members
        body["name"] = .string(name ?? kind.title(found))
        let answer = try await api.act(kind, id: id, .object(JSONObject([(action, .object(body))])))
        if waiting.wait, let rule = kind.progress {
            _ = try await Waiter(api, limit: waiting.timeout).reach(["ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED"], kind, id: id, rule: rule)
        }
        // With a rotation of 0 there is no image to show.
        guard let image = answer["image_id"]?.stringValue else { return }
        do {
            print(try output.object(try await api.get(Images.kind, id: image), fields: Images.kind.fields), terminator: "")
        } catch let error as ResourceError where error.code == .notFound {
            throw CommandFailure("The image of the server \(server) could not be created.", hint: "See: osctl server events \(server)")
        }
    }

    enum Shelve: ServerAction {
        static let verb = "shelve"
        static let abstract = "Stop servers, keep their disks as images, and free their hosts."
        static let goal: Set = ["SHELVED", "SHELVED_OFFLOADED"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["shelve": nil] }
    }

    enum Offload: ServerAction {
        static let verb = "offload"
        static let abstract = "Remove shelved servers from their hosts (operators)."
        static let goal: Set = ["SHELVED_OFFLOADED"]
        static func body(_ options: NoActionOptions, _ api: CloudAPI) -> JSONValue { ["shelveOffload": nil] }
    }

    enum Unshelve: ServerAction {
        struct Options: ServerActionOptions {
            @Option(help: ArgumentHelp("The zone in which the servers will run.", valueName: "zone")) var availabilityZone: String?
            @Flag(help: "The servers may run in any zone.") var anyZone = false
            @Option(help: ArgumentHelp("The host on which the servers will run (operators).", valueName: "host")) var host: String?

            func validate() throws {
                guard availabilityZone == nil || !anyZone else {
                    throw ValidationError("Specify one of --availability-zone and --any-zone.")
                }
            }
        }
        static let verb = "unshelve"
        static let abstract = "Restore shelved servers."
        static let goal: Set = ["ACTIVE"]
        static func body(_ options: Options, _ api: CloudAPI) -> JSONValue {
            var place = JSONObject()
            place.put("availability_zone", options.availabilityZone)
            if options.anyZone { place["availability_zone"] = .null }
            place.put("host", options.host)
            return ["unshelve": place.isEmpty ? .null : .object(place)]
        }
    }
}
