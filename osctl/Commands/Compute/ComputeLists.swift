import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Hosts that run servers.
enum Hypervisors: Noun {
    static let kind = Kind(
        command: ["hypervisor"], noun: "hypervisor", service: .compute, path: "/os-hypervisors",
        listPath: "/os-hypervisors/detail", member: "hypervisor", collection: "hypervisors",
        microversion: Servers.microversion, naming: .listed, nameField: "hypervisor_hostname",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "hypervisor_hostname"), OutputColumn("Type", "hypervisor_type"),
            OutputColumn("Address", "host_ip"), OutputColumn("State", "state"), OutputColumn("Status", "status"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}

/// Processes of Compute.
enum ComputeServices: Noun {
    static let kind = Kind(
        command: ["compute-service"], noun: "compute service", service: .compute, path: "/os-services", member: "service",
        collection: "services", microversion: Servers.microversion, naming: .listed, nameField: "host",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Binary", "binary"), OutputColumn("Host", "host"), OutputColumn("Zone", "zone"),
            OutputColumn("Status", "status"), OutputColumn("State", "state"), OutputColumn("Forced down", "forced_down"),
            OutputColumn("Seen", "updated_at"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Enable.self, Disable.self, ForceDown.self]
}

/// Availability zones that can be requested for servers.
enum AvailabilityZones: Noun {
    static let kind = Kind(
        command: ["availability-zone"], noun: "availability zone", service: .compute, path: "/os-availability-zone",
        member: nil, collection: "availabilityZoneInfo", microversion: Servers.microversion, naming: .none,
        nameField: "zoneName", idField: "zoneName",
        columns: [OutputColumn("Name", "zoneName"), OutputColumn("Available", "zoneState.available")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self]
}

/// Groups of hosts.
enum Aggregates: Creatable, Settable {
    static let kind = Kind(
        command: ["aggregate"], noun: "aggregate", service: .compute, path: "/os-aggregates", member: "aggregate",
        collection: "aggregates", microversion: Servers.microversion, naming: .listed,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Zone", "availability_zone"),
            OutputColumn("Hosts", "hosts"),
            OutputColumn("Properties", "metadata"),
        ])
    static let verbs: [any ParsableCommand.Type] = [
        List<Self>.self, Show<Self>.self, Create<Self>.self, SetFields<Self>.self, Delete<Self>.self, AddHost.self, RemoveHost.self,
        LoadImages.self,
    ]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The aggregate's name.") var name: String
        @Option(help: ArgumentHelp("The availability zone of the aggregate.", valueName: "zone")) var zone: String?

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name)]
            members.put("availability_zone", zone)
            return members
        }
    }
}
