import ArgumentParser
import Client
import JSON
import Kernel

extension Volumes {
    /// `osctl volume upload`
    struct Upload: APICommand {
        static let configuration = CommandConfiguration(commandName: "upload", abstract: "Make an image of a volume.")
        @Argument(help: "The volume.") var volume: String
        @Option(help: "The image's name; the volume's by default.") var name: String?
        @Option(help: ArgumentHelp("raw or qcow2.", valueName: "format")) var diskFormat = "raw"
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let found = try await api.find(kind, volume)
            let id = try kind.id(found)
            let answer = try await api.act(
                kind, id: id,
                [
                    "os-volume_upload_image": [
                        "image_name": .string(name ?? kind.title(found)), "disk_format": .string(diskFormat), "container_format": "bare",
                    ]
                ])
            if waiting.wait, let rule = kind.progress {
                _ = try await Waiter(api, limit: waiting.timeout).reach(["available"], kind, id: id, rule: rule)
            }
            let image = answer["os-volume_upload_image"]?["image_id"]?.stringValue ?? ""
            do {
                print(try output.object(try await api.get(Images.kind, id: image), fields: Images.kind.fields), terminator: "")
            } catch let error as ResourceError where error.code == .notFound {
                throw CommandFailure("The image of the volume \(volume) could not be created.")
            }
        }
    }

    /// `osctl volume reimage`
    struct Reimage: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "reimage", abstract: "Replace the content of a volume that is not in use by an image.")
        @Argument(help: "The volume.") var volume: String
        @Option(help: ArgumentHelp("The image.", valueName: "image")) var image: String
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, volume)
            let image = try await api.id(Images.kind, image)
            try await api.client.post(
                kind.service, kind.path(id: id) + "/action", ["os-reimage": ["image_id": .string(image)]], microversion: "3.68")
            if waiting.wait, let rule = kind.progress {
                _ = try await Waiter(api, limit: waiting.timeout).reach(["available"], kind, id: id, rule: rule)
            }
        }
    }
}
