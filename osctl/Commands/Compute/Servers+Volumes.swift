import ArgumentParser
import Client
import JSON
import ServiceCatalog

extension Servers {
    /// `osctl server volume …`
    struct Attachments: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "volume", abstract: "Volumes of servers.", subcommands: [ListVolumes.self, ChangeVolume.self, SwapVolume.self])
    }

    struct ListVolumes: APICommand {
        static let configuration = CommandConfiguration(commandName: "list", abstract: "List the volumes of a server.")
        @Argument(help: "The server.") var server: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        private static let columns = [
            OutputColumn("Volume", "volumeId"), OutputColumn("Device", "device"), OutputColumn("Tag", "tag"),
            OutputColumn("Deleted with the server", "delete_on_termination"),
        ]

        func execute(_ api: CloudAPI) async throws {
            let path = kind.path(id: try await api.id(kind, server)) + "/os-volume_attachments"
            let answer = try await api.client.get(.compute, path, microversion: kind.microversion)
            print(try output.list(answer["volumeAttachments"]?.arrayValue ?? [], columns: ListVolumes.columns), terminator: "")
        }
    }

    struct ChangeVolume: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "set", abstract: "Choose whether a volume is deleted with its server.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The volume.") var volume: String
        @Flag(inversion: .prefixedNo, help: "Delete the volume with the server.") var deleteOnTermination: Bool
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, server)
            let volumeID = try await api.id(Volumes.kind, volume)
            let attachment: JSONValue = ["volumeId": .string(volumeID), "delete_on_termination": .bool(deleteOnTermination)]
            try await Servers.put(attachment, of: volumeID, server: id, api)
        }
    }

    struct SwapVolume: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "swap",
            abstract: "Copy an attached volume to another one, and give the server that one instead, while it runs (operators).")
        @Argument(help: "The server.") var server: String
        @Argument(help: ArgumentHelp("The attached volume.", valueName: "old-volume")) var oldVolume: String
        @Argument(help: ArgumentHelp("The volume to use instead, at least as large.", valueName: "new-volume")) var newVolume: String
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, server)
            let old = try await api.id(Volumes.kind, oldVolume)
            let new = try await api.id(Volumes.kind, newVolume)
            try await Servers.put(["volumeId": .string(new)], of: old, server: id, api)
            guard waiting.wait, let rule = Volumes.kind.progress else { return }
            _ = try await Waiter(api, limit: waiting.timeout).reach(["in-use"], Volumes.kind, id: new, rule: rule)
            _ = try await Waiter(api, limit: waiting.timeout).reach(["available"], Volumes.kind, id: old, rule: rule)
        }
    }

    fileprivate static func put(_ attachment: JSONValue, of volume: String, server: String, _ api: CloudAPI) async throws {
        _ = try await api.client.put(
            .compute, kind.path(id: server) + "/os-volume_attachments/\(volume)", ["volumeAttachment": attachment],
            microversion: kind.microversion)
    }
}
