import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

/// The stores of images.
enum ImageStoreNoun: Noun {
    static let kind = Kind(
        command: ["image", "store"], noun: "image store", service: .image, path: "/info/stores", member: nil, collection: "stores",
        naming: .none, columns: [OutputColumn("ID", "id"), OutputColumn("Default", "default"), OutputColumn("Description", "description")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Remove.self]

    /// `osctl image store remove`
    struct Remove: APICommand {
        static let configuration = CommandConfiguration(abstract: "Delete the data of an image from a store.")
        @Argument(help: "The image.") var image: String
        @Argument(help: "The store.") var store: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(Images.kind, image)
            try await api.client.delete(.image, "/stores/\(store)/\(id)")
        }
    }
}

extension Images {
    /// The stores for data that is imported or copied.
    struct StoreOptions: ParsableArguments {
        @Option(help: ArgumentHelp("A store for the data (repeatable).", valueName: "store")) var store: [String] = []
        @Flag(help: "Use all stores.") var allStores = false
        @Flag(help: "Succeed if at least one store gets the data.") var allowFailure = false

        func validate() throws {
            if allStores, !store.isEmpty { throw ValidationError("--store and --all-stores cannot be used together.") }
        }

        func members() -> JSONObject {
            var members = JSONObject()
            if !store.isEmpty { members["stores"] = JSONValue(store) }
            if allStores { members["all_stores"] = true }
            if allowFailure { members["all_stores_must_succeed"] = false }
            return members
        }
    }

    /// `osctl image copy`
    struct Copy: APICommand {
        static let configuration = CommandConfiguration(abstract: "Copy the data of an image to further stores.")
        @Argument(help: "The image.") var image: String
        @OptionGroup var stores: StoreOptions
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            guard !stores.members().isEmpty else { throw ValidationError("Give --store or --all-stores.") }
            try await Images.transfer(image, method: ["name": "copy-image"], stores, waiting, api, "Copying", "Copied")
        }
    }

    /// Requests an import and waits for its task.
    static func transfer(
        _ image: String, method: JSONObject, _ stores: StoreOptions, _ waiting: WaitOptions, _ api: CloudAPI, _ present: String,
        _ past: String
    ) async throws {
        let id = try await api.id(kind, image)
        var body = stores.members()
        body["method"] = .object(method)
        let before = try await tasks(of: id, api)
        _ = try await api.client.request(service: .image, method: .post, path: kind.path(id: id) + "/import", body: .object(body))
        guard let task = try await tasks(of: id, api).first(where: { !before.contains($0) }) else {
            // All requested stores already have the data.
            print("There is nothing to do for \(image).")
            return
        }
        guard waiting.wait, let rule = ImageTasks.kind.progress else {
            print("\(present) \(image). See: osctl image task show \(task)")
            return
        }
        _ = try await Waiter(api, limit: waiting.timeout).reach(rule.created, ImageTasks.kind, id: task, rule: rule)
        print("\(past) \(image).")
    }

    /// The ids of an image's tasks, the latest first.
    private static func tasks(of id: String, _ api: CloudAPI) async throws -> [String] {
        (try await api.client.get(.image, kind.path(id: id) + "/tasks")["tasks"]?.arrayValue ?? []).compactMap { $0["id"]?.stringValue }
    }
}
