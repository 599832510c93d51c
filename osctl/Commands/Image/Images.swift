import ArgumentParser
import Client
import JSON
import Kernel
import NIOCore
import ServiceCatalog

enum Images: Creatable, Settable {
    static let kind = Kind(
        command: ["image"], noun: "image", service: .image, path: "/images", member: nil, collection: "images",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Status", "status"), OutputColumn("Format", "disk_format"),
            OutputColumn("Size", "size") { $0["size"]?.intValue.map(CellText.bytes) ?? "" }, OutputColumn("Visibility", "visibility"),
        ],
        progress: ProgressRule(field: "status", created: ["active"], failed: ["killed", "deleted"], deleted: ["deleted"]))
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self, Upload.self, Download.self,
        Stage.self,
        Import.self, Copy.self, Deactivate.self, Reactivate.self, ImageMemberCommand.self, ImageCacheCommand.self,
        ResourceCommand<ImageTasks>.self, ResourceCommand<ImageStoreNoun>.self, ResourceCommand<Metadefs>.self,
    ]

    enum Visibility: String, ExpressibleByArgument, CaseIterable { case `private`, shared, community, `public` }

    struct Filters: FilterArguments {
        @Option(help: "private, shared, community or public.") var visibility: Visibility?
        @Option(help: "Only in this status, such as active.") var status: String?
        @Option(help: "By name.") var name: String?

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let visibility { query.append(("visibility", visibility.rawValue)) }
            if let status { query.append(("status", status.lowercased())) }
            if let name { query.append(("name", name)) }
            return query
        }
    }

    struct CreateOptions: CreateArguments {
        @Argument(help: "The image's name.") var name: String
        @Option(help: ArgumentHelp("The disk image to upload.", valueName: "file"), completion: .file()) var file: String?
        @Option(help: ArgumentHelp("The store for the data.", valueName: "store")) var store: String?
        @Option(help: "qcow2, raw, iso, …") var diskFormat = "qcow2"
        @Option(help: "The container around the disk; bare for none.") var containerFormat = "bare"
        @Option(help: ArgumentHelp("Minimum disk of a server, in GB.", valueName: "gb")) var minDisk: Int?
        @Option(help: ArgumentHelp("Minimum memory of a server, in MiB.", valueName: "mib")) var minRam: Int?
        @Option(help: "Visibility: private, shared, community or public.") var visibility: Visibility?
        @Flag(help: "Protect it from deletion.") var protected = false
        @Option(help: ArgumentHelp("A tag (repeatable).", valueName: "tag")) var tag: [String] = []
        @Option(help: ArgumentHelp("A property (repeatable).", valueName: "key=value")) var property: [Assignment] = []

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = [
                "name": .string(name), "disk_format": .string(diskFormat), "container_format": .string(containerFormat),
            ]
            members.put("min_disk", minDisk)
            members.put("min_ram", minRam)
            members.put("visibility", visibility?.rawValue)
            if protected { members["protected"] = true }
            if !tag.isEmpty { members["tags"] = JSONValue(tag) }
            for pair in property { members[pair.name] = .string(pair.value) }
            return members
        }
    }

    /// Creates the record and uploads the file; if the upload fails, the record is deleted.
    static func create(_ options: CreateOptions, _ api: CloudAPI) async throws -> JSONValue {
        let file = try options.file.map { try FileContent($0) }
        let image = try await api.create(kind, .object(try await options.members(api)))
        guard let file else { return image }
        let id = try kind.id(image)
        do {
            try await upload(file, id: id, store: options.store, api)
        } catch {
            try await api.client.delete(.image, kind.path(id: id), missingIsFine: true)
            throw error
        }
        return try await api.get(kind, id: id)
    }

    static func upload(_ file: FileContent, id: String, store: String?, _ api: CloudAPI) async throws {
        try await send(file, to: "file", id: id, headers: store.map { [("x-image-meta-store", $0)] } ?? [], api)
    }

    /// - Parameter place: the last part of the path: `file` or `stage`.
    static func send(_ file: FileContent, to place: String, id: String, headers: [(String, String)] = [], _ api: CloudAPI) async throws {
        let progress = TransferProgress("Uploading \(file.path)", total: file.length, time: api.client.ambient.time)
        defer { progress.end() }
        _ = try await api.client.upload(
            service: .image, path: kind.path(id: id) + "/\(place)", headers: headers, length: Int64(file.length)
        ) { try file.open(progress) }
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "Visibility: private, shared, community or public.") var visibility: Visibility?
        @Flag(inversion: .prefixedNo, help: "Protect it from deletion.") var protected: Bool?
        @Option(help: ArgumentHelp("Minimum disk of a server, in GB.", valueName: "gb")) var minDisk: Int?
        @Option(help: ArgumentHelp("Minimum memory of a server, in MiB.", valueName: "mib")) var minRam: Int?
        @Option(help: ArgumentHelp("Set a property (repeatable).", valueName: "key=value")) var property: [Assignment] = []
        @Option(help: ArgumentHelp("Remove a property (repeatable).", valueName: "key")) var removeProperty: [String] = []
        @Option(help: ArgumentHelp("Add a tag (repeatable).", valueName: "tag")) var tag: [String] = []
        @Option(help: ArgumentHelp("Remove a tag (repeatable).", valueName: "tag")) var removeTag: [String] = []

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("visibility", visibility?.rawValue)
            changes.put("protected", protected)
            changes.put("min_disk", minDisk)
            changes.put("min_ram", minRam)
            for pair in property { changes[pair.name] = .string(pair.value) }
            return changes
        }
    }

    /// RFC 6902 with Image's own media type.
    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws {
        let changes = try await options.changes(api)
        guard !changes.isEmpty || !options.removeProperty.isEmpty || !options.tag.isEmpty || !options.removeTag.isEmpty else {
            throw ValidationError.nothingToSet(kind)
        }
        for tag in options.tag { try await api.client.put(.image, kind.path(id: id) + "/tags/\(tag)") }
        for tag in options.removeTag { try await api.client.delete(.image, kind.path(id: id) + "/tags/\(tag)") }
        guard !changes.isEmpty || !options.removeProperty.isEmpty else { return }
        let present = try await api.get(kind, id: id)
        var patch = changes.members.map { member -> JSONValue in
            let path = "/" + JSONPatchText.escaped(member.name)
            return ["op": present[member.name] == nil ? "add" : "replace", "path": .string(path), "value": member.value]
        }
        patch += options.removeProperty.map { ["op": "remove", "path": .string("/" + JSONPatchText.escaped($0))] }
        _ = try await api.client.request(
            service: .image, method: .patch, path: kind.path(id: id),
            headers: [("content-type", "application/openstack-images-v2.1-json-patch")], body: .array(patch))
    }

    struct Deactivate: APICommand {
        static let configuration = CommandConfiguration(abstract: "Let nobody but operators use the data of images, for now.")
        @Argument(help: ArgumentHelp("Names or ids.", valueName: "image")) var images: [String]
        @OptionGroup(title: "Cloud") var access: AccessOptions
        func execute(_ api: CloudAPI) async throws { try await Images.act(images, "deactivate", api) }
    }

    struct Reactivate: APICommand {
        static let configuration = CommandConfiguration(abstract: "Let the data of deactivated images be used again.")
        @Argument(help: ArgumentHelp("Names or ids.", valueName: "image")) var images: [String]
        @OptionGroup(title: "Cloud") var access: AccessOptions
        func execute(_ api: CloudAPI) async throws { try await Images.act(images, "reactivate", api) }
    }

    private static func act(_ images: [String], _ action: String, _ api: CloudAPI) async throws {
        let failures = await Several.run(images, api) { name in
            let path = kind.path(id: try await api.id(kind, name)) + "/actions/\(action)"
            _ = try await api.client.request(service: .image, method: .post, path: path)
        }
        if failures > 0 { throw ExitCode(1) }
    }

    struct Upload: APICommand {
        static let configuration = CommandConfiguration(abstract: "Upload the data of an image.")
        @Argument(help: "The image, which has no data yet.") var image: String
        @Argument(help: "The disk image.", completion: .file()) var file: String
        @Option(help: ArgumentHelp("The store for the data.", valueName: "store")) var store: String?
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let content = try FileContent(file)
            try await Images.upload(content, id: try await api.id(kind, image), store: store, api)
        }
    }

    struct Download: APICommand {
        static let configuration = CommandConfiguration(abstract: "Save an image's data to a file.")
        @Argument(help: "The image.") var image: String
        @Option(
            name: .shortAndLong, help: ArgumentHelp("The new file; - writes to standard output.", valueName: "file"), completion: .file())
        var file: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, image)
            if file != "-", Machine.exists(file) { throw CommandFailure("The file \(file) already exists and is not overwritten.") }
            let download = try await api.client.download(service: .image, path: kind.path(id: id) + "/file")
            guard download.status != 204 else {
                throw CommandFailure("The image \(image) has no data yet.", hint: "See: osctl image upload --help")
            }
            let target = try FileTarget(file)
            let progress = TransferProgress("Downloading \(image)", total: download.length.map(Int.init), time: api.client.ambient.time)
            defer { progress.end() }
            do {
                for try await chunk in download.body {
                    try target.write(chunk)
                    progress.advance(chunk.readableBytes)
                }
                if let length = download.length, length != progress.done {
                    throw CommandFailure("Only \(progress.done) of \(length) bytes of the image arrived; try again.")
                }
                try target.publish()
            } catch {
                target.discard()
                throw error
            }
        }
    }
}
