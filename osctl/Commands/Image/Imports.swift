import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

/// Imports of images, as the service records them.
enum ImageTasks: Noun {
    static let kind = Kind(
        command: ["image", "task"], noun: "image task", service: .image, path: "/tasks", member: nil, collection: "tasks", naming: .none,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Type", "type"), OutputColumn("Status", "status"), OutputColumn("Image", "image_id"),
            OutputColumn("Created", "created_at"), OutputColumn("Updated", "updated_at"),
        ],
        progress: ProgressRule(
            field: "status", created: ["success"], failed: ["failure"], detail: { $0["message"]?.stringValue ?? "" },
            reason: { $0["message"]?.stringValue }))
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}

extension Images {
    /// `osctl image stage`
    struct Stage: APICommand {
        static let configuration = CommandConfiguration(abstract: "Stage the data of an image, to import it later.")
        @Argument(help: "The image, which has no data yet.") var image: String
        @Argument(help: "The disk image, also compressed with gzip.", completion: .file()) var file: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let content = try FileContent(file)
            try await Images.send(content, to: "stage", id: try await api.id(kind, image), api)
        }
    }

    /// `osctl image import`
    struct Import: APICommand {
        static let configuration = CommandConfiguration(abstract: "Import the data of an image: what was staged, or from a URL.")
        @Argument(help: "The image.") var image: String
        @Option(help: "Download the data from here.") var uri: String?
        @OptionGroup var stores: StoreOptions
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            var method: JSONObject = ["name": uri == nil ? "glance-direct" : "web-download"]
            method.put("uri", uri)
            try await Images.transfer(image, method: method, stores, waiting, api, "Importing", "Imported")
        }
    }
}
