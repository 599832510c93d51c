import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Verbs about the hosts of Compute.
extension ComputeServices {
    struct Enable: HostVerb {
        static let configuration = CommandConfiguration(commandName: "enable", abstract: "Let hosts get new servers.")
        @Argument(help: ArgumentHelp("Names of hosts.", valueName: "host")) var hosts: [String]
        @OptionGroup(title: "Cloud") var access: AccessOptions
        var change: JSONObject { ["status": "enabled"] }
    }

    struct Disable: HostVerb {
        static let configuration = CommandConfiguration(
            commandName: "disable", abstract: "Let hosts get no new servers. Those that they have keep running.")
        @Argument(help: ArgumentHelp("Names of hosts.", valueName: "host")) var hosts: [String]
        @Option(help: "Reason.") var reason: String?
        @OptionGroup(title: "Cloud") var access: AccessOptions

        var change: JSONObject {
            var change: JSONObject = ["status": "disabled"]
            change.put("disabled_reason", reason)
            return change
        }
    }

    struct ForceDown: HostVerb {
        static let configuration = CommandConfiguration(
            commandName: "force-down",
            abstract: "Declare that hosts are down, so that their servers can be evacuated.",
            discussion: "Make sure first that the host is off: a host that only stopped reporting may still run its servers.")
        @Argument(help: ArgumentHelp("Names of hosts.", valueName: "host")) var hosts: [String]
        @Flag(help: "The hosts are back: withdraw the declaration.") var unset = false
        @OptionGroup(title: "Cloud") var access: AccessOptions
        var change: JSONObject { ["forced_down": .bool(!unset)] }
    }

    /// A verb that changes the compute service of hosts.
    protocol HostVerb: APICommand {
        var hosts: [String] { get }
        /// The members of the request.
        var change: JSONObject { get }
    }

    /// The id of the service that runs a host's servers.
    ///
    /// - Throws: `CommandFailure` if there is no such host.
    fileprivate static func id(of host: String, _ api: CloudAPI) async throws -> String {
        let found = try await api.list(kind, query: [("host", host), ("binary", "nova-compute")])
        guard let service = found.first(where: { $0["host"]?.stringValue == host }) else {
            throw CommandFailure("There is no host \(host).", hint: "See: osctl hypervisor list")
        }
        return try kind.id(service)
    }
}

extension ComputeServices.HostVerb {
    func execute(_ api: CloudAPI) async throws {
        let kind = ComputeServices.kind
        let body = JSONValue.object(change)
        let failures = await Several.run(hosts, api) { host in
            let id = try await ComputeServices.id(of: host, api)
            _ = try await api.client.put(kind.service, kind.path(id: id), body, microversion: kind.microversion)
        }
        if failures > 0 { throw ExitCode(1) }
    }
}

extension Aggregates {
    struct SetOptions: SetArguments {
        @Option(name: .customLong("name"), help: "New name.") var newName: String?
        @Option(help: ArgumentHelp("New availability zone.", valueName: "zone")) var zone: String?
        @Option(help: ArgumentHelp("Metadata, such as cpu_model=baseline (repeatable).", valueName: "key=value"))
        var property: [Assignment] = []
        @Option(help: ArgumentHelp("Metadata to remove (repeatable).", valueName: "key")) var removeProperty: [String] = []

        func changes(_ api: CloudAPI) -> JSONObject {
            var changes = JSONObject()
            changes.put("name", newName)
            changes.put("availability_zone", zone)
            return changes
        }

        /// Metadata to set, and null for what is removed.
        var metadata: JSONObject {
            var metadata = JSONObject()
            for item in property { metadata[item.name] = .string(item.value) }
            for name in removeProperty { metadata[name] = .null }
            return metadata
        }
    }

    static func set(_ options: SetOptions, id: String, _ api: CloudAPI) async throws {
        let (changes, metadata) = (options.changes(api), options.metadata)
        guard !changes.isEmpty || !metadata.isEmpty else { throw ValidationError.nothingToSet(kind) }
        if !changes.isEmpty { _ = try await api.update(kind, id: id, method: .put, changes) }
        if !metadata.isEmpty { try await api.act(kind, id: id, ["set_metadata": ["metadata": .object(metadata)]]) }
    }

    struct AddHost: APICommand {
        static let configuration = CommandConfiguration(commandName: "add-host", abstract: "Add hosts to an aggregate.")
        @Argument(help: "The aggregate.") var aggregate: String
        @Argument(help: ArgumentHelp("Names of hosts.", valueName: "host")) var hosts: [String]
        @OptionGroup(title: "Cloud") var access: AccessOptions
        func execute(_ api: CloudAPI) async throws { try await Aggregates.change(aggregate, hosts, "add_host", api) }
    }

    struct RemoveHost: APICommand {
        static let configuration = CommandConfiguration(commandName: "remove-host", abstract: "Remove hosts from an aggregate.")
        @Argument(help: "The aggregate.") var aggregate: String
        @Argument(help: ArgumentHelp("Names of hosts.", valueName: "host")) var hosts: [String]
        @OptionGroup(title: "Cloud") var access: AccessOptions
        func execute(_ api: CloudAPI) async throws { try await Aggregates.change(aggregate, hosts, "remove_host", api) }
    }

    struct LoadImages: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "load-images", abstract: "Let the hosts of an aggregate download images in advance.")
        @Argument(help: "The aggregate.") var aggregate: String
        @Argument(help: ArgumentHelp("Names or ids.", valueName: "image")) var images: [String]
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, aggregate)
            let cache = try await api.ids(Images.kind, images).map { JSONValue.object(["id": .string($0)]) }
            _ = try await api.client.post(
                kind.service, kind.path(id: id) + "/images", ["cache": .array(cache)], microversion: kind.microversion)
        }
    }

    private static func change(_ aggregate: String, _ hosts: [String], _ action: String, _ api: CloudAPI) async throws {
        let id = try await api.id(kind, aggregate)
        let failures = await Several.run(hosts, api) { host in
            try await api.act(kind, id: id, .object([action: ["host": .string(host)]]))
        }
        if failures > 0 { throw ExitCode(1) }
    }
}
