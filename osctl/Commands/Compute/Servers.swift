import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Servers: Creatable, Settable {
    static let microversion = "2.96"

    static let kind = Kind(
        command: ["server"], noun: "server", service: .compute, path: "/servers", listPath: "/servers/detail",
        member: "server", collection: "servers", microversion: microversion,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Status", "status"),
            OutputColumn("Networks", "addresses", ServerText.addresses), OutputColumn("Flavor", "flavor.original_name"),
            OutputColumn("Created", "created"),
        ],
        fields: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Description", "description"),
            OutputColumn("Status", "status"),
            OutputColumn("Task", "OS-EXT-STS:task_state"), OutputColumn("Fault", "fault.message"),
            OutputColumn("Networks", "addresses", ServerText.addresses), OutputColumn("Flavor", "flavor", ServerText.flavor),
            OutputColumn("Image", "image.id") { $0["image"]?["id"]?.stringValue ?? "(boots from a volume)" },
            OutputColumn("Keypair", "key_name"),
            OutputColumn("Security groups", "security_groups", ServerText.securityGroups),
            OutputColumn("Volumes", "os-extended-volumes:volumes_attached", ServerText.volumes),
            OutputColumn("Availability zone", "OS-EXT-AZ:availability_zone"), OutputColumn("Host", "OS-EXT-SRV-ATTR:host"),
            OutputColumn("Properties", "metadata"), OutputColumn("Tags", "tags"), OutputColumn("Project", "tenant_id"),
            OutputColumn("User", "user_id"), OutputColumn("Created", "created"), OutputColumn("Started", "OS-SRV-USG:launched_at"),
        ],
        progress: ProgressRule(
            field: "status", created: ["ACTIVE"], failed: ["ERROR", "DELETED"], deleted: ["DELETED"],
            detail: ServerText.task, reason: { $0["fault"]?["message"]?.stringValue }, explainedBy: "why"
        ))

    static let verbs: [any ParsableCommand.Type] =
        [List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Unset.self, Delete<Self>.self]
        + actions + guestVerbs
        + [
            ServerImage.self, ServerBackup.self, Console.self, Add.self, Remove.self, Attachments.self, Topology.self, Diagnostics.self,
            Events.self, Why.self,
        ]

    struct Filters: FilterArguments {
        @Option(help: "Only with this name; Compute reads it as a pattern.") var name: String?
        @Option(help: "Only in this status, such as ACTIVE.") var status: String?
        @Option(help: ArgumentHelp("Only of this flavor.", valueName: "flavor")) var flavor: String?
        @Option(help: ArgumentHelp("Only of this image.", valueName: "image")) var image: String?
        @Option(help: "Only with an address that matches.") var ip: String?
        @Option(help: ArgumentHelp("Only on this host (operators).", valueName: "host")) var host: String?
        @Flag(help: "Of all projects (operators).") var allProjects = false

        func query(_ api: CloudAPI) async throws -> [(String, String)] {
            var query: [(String, String)] = []
            if let name { query.append(("name", name)) }
            if let status { query.append(("status", status.uppercased())) }
            if let flavor { query.append(("flavor", try await api.id(Flavors.kind, flavor))) }
            if let image { query.append(("image", try await api.id(Images.kind, image))) }
            if let ip { query.append(("ip", ip)) }
            if let host { query.append(("host", host)) }
            if allProjects { query.append(("all_tenants", "True")) }
            return query
        }
    }

    static func create(_ options: CreateOptions, _ api: CloudAPI) async throws -> JSONValue {
        let created = try await api.create(kind, try await body(options, api))
        // Compute answers with the id and the password of the new server; the other fields are requested afterwards.
        guard options.count > 1 else { return created }
        Machine.write(to: 2, "\(options.count) servers are being created: \(options.name)-1 to \(options.name)-\(options.count).\n")
        return created
    }

    static func body(_ options: CreateOptions, _ api: CloudAPI) async throws -> JSONValue {
        var body: JSONObject = ["server": .object(try await options.members(api))]
        if !options.hint.isEmpty { body["os:scheduler_hints"] = try await options.hints(api) }
        return .object(body)
    }

    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: "New description.") var description: String?
        @Option(help: "New host name inside the guest, which the metadata service tells it.") var hostname: String?
        @Option(help: ArgumentHelp("Set a property (repeatable).", valueName: "key=value")) var property: [Assignment] = []
        @Option(help: ArgumentHelp("Add a tag (repeatable).", valueName: "tag")) var tag: [String] = []
        @Option(help: "Declare the server to be in this state, active or error, without changing it (operators).") var state: State?

        enum State: String, ExpressibleByArgument, CaseIterable { case active, error }

        func changes(_ api: CloudAPI) async throws -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("description", description)
            changes.put("hostname", hostname)
            return changes
        }
    }

    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws {
        let changes = try await options.changes(api)
        guard !changes.isEmpty || !options.property.isEmpty || !options.tag.isEmpty || options.state != nil else {
            throw ValidationError.nothingToSet(kind)
        }
        if let state = options.state { try await api.act(kind, id: id, ["os-resetState": ["state": .string(state.rawValue)]]) }
        for tag in options.tag {
            _ = try await api.client.put(.compute, kind.path(id: id) + "/tags/\(tag)", nil, microversion: kind.microversion)
        }
        if !options.property.isEmpty {
            try await api.client.post(
                .compute, kind.path(id: id) + "/metadata", ["metadata": options.property.json], microversion: kind.microversion)
        }
        if !changes.isEmpty { _ = try await api.update(kind, id: id, method: .put, changes) }
    }
}

/// Describes parts of a server.
enum ServerText {
    /// `lan=10.0.0.5, 203.0.113.7`
    @Sendable static func addresses(_ server: JSONValue) -> String {
        (server["addresses"]?.objectValue?.members ?? []).map { network in
            let list = (network.value.arrayValue ?? []).compactMap { $0["addr"]?.stringValue }
            return network.name + "=" + list.joined(separator: ", ")
        }.joined(separator: "; ")
    }

    /// `image_uploading, 45 %`
    @Sendable static func task(_ server: JSONValue) -> String {
        guard let task = server["OS-EXT-STS:task_state"]?.stringValue else { return "" }
        guard task.contains("image_"), let percent = server["progress"]?.intValue else { return task }
        return "\(task), \(percent) %"
    }

    @Sendable static func flavor(_ server: JSONValue) -> String {
        guard let flavor = server["flavor"], let name = flavor["original_name"]?.stringValue else {
            return server["flavor"]?["id"]?.stringValue ?? ""
        }
        let vcpus = flavor["vcpus"]?.intValue ?? 0
        return "\(name) (\(vcpus) vCPU\(vcpus == 1 ? "" : "s"), \(flavor["ram"]?.intValue ?? 0) MiB, \(flavor["disk"]?.intValue ?? 0) GB)"
    }

    @Sendable static func securityGroups(_ server: JSONValue) -> String {
        var names: [String] = []
        for group in server["security_groups"]?.arrayValue ?? [] {
            if let name = group["name"]?.stringValue, !names.contains(name) { names.append(name) }
        }
        return names.joined(separator: ", ")
    }

    @Sendable static func volumes(_ server: JSONValue) -> String {
        (server["os-extended-volumes:volumes_attached"]?.arrayValue ?? []).compactMap { $0["id"]?.stringValue }.joined(separator: ", ")
    }
}
