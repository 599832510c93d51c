import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Hosts that run servers.
enum Hypervisors: Resource {
    static let kind = Kind(
        command: ["hypervisor"], noun: "hypervisor", service: .compute, path: "/os-hypervisors",
        listPath: "/os-hypervisors/detail", member: "hypervisor", collection: "hypervisors",
        microversion: Servers.microversion, naming: .listed, nameField: "hypervisor_hostname",
        columns: [
            Column("ID", "id"), Column("Name", "hypervisor_hostname"), Column("Type", "hypervisor_type"),
            Column("Address", "host_ip"), Column("State", "state"), Column("Status", "status"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}

/// Processes of Compute.
enum ComputeServices: Resource {
    static let kind = Kind(
        command: ["compute-service"], noun: "compute service", service: .compute, path: "/os-services", member: "service",
        collection: "services", microversion: Servers.microversion, naming: .listed, nameField: "host",
        columns: [
            Column("ID", "id"), Column("Binary", "binary"), Column("Host", "host"), Column("Zone", "zone"),
            Column("Status", "status"), Column("State", "state"), Column("Seen", "updated_at"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self]
}

/// Availability zones that can be requested for servers.
enum AvailabilityZones: Resource {
    static let kind = Kind(
        command: ["availability-zone"], noun: "availability zone", service: .compute, path: "/os-availability-zone",
        member: nil, collection: "availabilityZoneInfo", microversion: Servers.microversion, naming: .none,
        nameField: "zoneName", idField: "zoneName",
        columns: [Column("Name", "zoneName"), Column("Available", "zoneState.available")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self]
}

/// Groups of hosts.
enum Aggregates: Creatable {
    static let kind = Kind(
        command: ["aggregate"], noun: "aggregate", service: .compute, path: "/os-aggregates", member: "aggregate",
        collection: "aggregates", microversion: Servers.microversion, naming: .listed,
        columns: [
            Column("ID", "id"), Column("Name", "name"), Column("Zone", "availability_zone"), Column("Hosts", "hosts"),
            Column("Properties", "metadata"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create<Self>.self, Delete<Self>.self]

    struct CreateOptions: CreateArguments {
        @Argument(help: "The aggregate's name.") var name: String
        @Option(help: ArgumentHelp("The availability zone of the aggregate.", valueName: "zone")) var zone: String?

        func members(_ api: API) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name)]
            members.put("availability_zone", zone)
            return members
        }
    }
}
