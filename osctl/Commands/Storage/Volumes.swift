import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Volumes: Creatable, Settable {
    static let microversion = "3.60"

    static let kind = Kind(
        command: ["volume"], noun: "volume", service: .blockStorage, path: "/volumes", listPath: "/volumes/detail",
        member: "volume", collection: "volumes", microversion: microversion,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Status", "status"), OutputColumn("Size GB", "size"),
            OutputColumn("Type", "volume_type"), OutputColumn("Bootable", "bootable"),
            OutputColumn("Attached to", "attachments") { servers($0) },
        ],
        progress: ProgressRule(
            field: "status", created: ["available"],
            failed: ["error", "error_deleting", "error_extending", "error_restoring", "error_managing"]))

    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self,
        Upload.self, Reimage.self, ResourceCommand<Snapshots>.self, ResourceCommand<VolumeTypes>.self,
    ]

    private static func servers(_ volume: JSONValue) -> String {
        (volume["attachments"]?.arrayValue ?? []).map { attachment in
            (attachment["server_id"]?.stringValue ?? "?") + (attachment["device"]?.stringValue.map { " " + $0 } ?? "")
        }.joined(separator: ", ")
    }

    struct Filters: FilterArguments {
        @Option(help: "Only in this status, such as available.") var status: String?
        @Option(help: "By name.") var name: String?
        @Flag(help: "Of all projects (operators).") var allProjects = false

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let status { query.append(("status", status.lowercased())) }
            if let name { query.append(("name", name)) }
            if allProjects { query.append(("all_tenants", "1")) }
            return query
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The volume's name.") var name: String
        @Option(help: ArgumentHelp("The size, in GB; by default that of the source.", valueName: "gb")) var size: Int?
        @Option(help: ArgumentHelp("The image to copy.", valueName: "image")) var image: String?
        @Option(help: ArgumentHelp("The snapshot to copy.", valueName: "snapshot")) var snapshot: String?
        @Option(help: ArgumentHelp("The volume to copy.", valueName: "volume")) var source: String?
        @Option(help: ArgumentHelp("The volume type.", valueName: "type")) var type: String?
        @Option(help: "A description.") var description: String?
        @Option(help: ArgumentHelp("The availability zone.", valueName: "zone")) var availabilityZone: String?
        @Option(help: ArgumentHelp("A property (repeatable).", valueName: "key=value")) var property: [Assignment] = []

        func validate() throws {
            guard [image, snapshot, source].compactMap({ $0 }).count <= 1 else {
                throw ValidationError("--image, --snapshot and --source cannot be used together.")
            }
            guard size != nil || snapshot != nil || source != nil else { throw ValidationError("A volume needs --size, in GB.") }
        }

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name)]
            members.put("size", size)
            if let image { members["imageRef"] = .string(try await api.id(Images.kind, image)) }
            if let snapshot {
                let object = try await api.find(Snapshots.kind, snapshot)
                members["snapshot_id"] = .string(try Snapshots.kind.id(object))
                if size == nil { members["size"] = object["size"] }
            }
            if let source {
                let object = try await api.find(kind, source)
                members["source_volid"] = .string(try kind.id(object))
                if size == nil { members["size"] = object["size"] }
            }
            if let type { members["volume_type"] = .string(type) }
            members.put("description", description)
            members.put("availability_zone", availabilityZone)
            if !property.isEmpty { members["metadata"] = property.json }
            return members
        }
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New description.") var description: String?
        @Option(help: ArgumentHelp("New size, in GB; volumes cannot shrink.", valueName: "gb")) var size: Int?
        @Flag(inversion: .prefixedNo, help: "Whether servers can boot from it.") var bootable: Bool?
        @Flag(inversion: .prefixedNo, help: "Whether it is read-only.") var readOnly: Bool?
        @Option(help: ArgumentHelp("Set a property (repeatable).", valueName: "key=value")) var property: [Assignment] = []

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("description", description)
            return changes
        }

        var actions: [JSONValue] {
            var actions: [JSONValue] = []
            if let size { actions.append(["os-extend": ["new_size": JSONValue(size)]]) }
            if let bootable { actions.append(["os-set_bootable": ["bootable": .bool(bootable)]]) }
            if let readOnly { actions.append(["os-update_readonly_flag": ["readonly": .bool(readOnly)]]) }
            return actions
        }
    }

    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws {
        let changes = try await options.changes(api)
        let actions = options.actions
        guard !changes.isEmpty || !actions.isEmpty || !options.property.isEmpty else { throw ValidationError.nothingToSet(kind) }
        if !changes.isEmpty { _ = try await api.update(kind, id: id, method: .put, changes) }
        for action in actions { try await api.act(kind, id: id, action) }
        if !options.property.isEmpty {
            try await api.client.post(
                .blockStorage, kind.path(id: id) + "/metadata", ["metadata": options.property.json], microversion: microversion)
        }
    }
}
