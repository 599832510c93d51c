import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Services in Identity's catalog.
enum RegisteredServices: Noun {
    static let kind = Kind(
        command: ["service"], noun: "service", service: .identity, path: "/services", member: "service",
        collection: "services", naming: .listed,
        columns: [OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Type", "type"), OutputColumn("Enabled", "enabled")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Delete<Self>.self]
}

/// Endpoints of the services.
enum Endpoints: Noun {
    static let kind = Kind(
        command: ["endpoint"], noun: "endpoint", service: .identity, path: "/endpoints", member: "endpoint",
        collection: "endpoints", naming: .none, nameField: "url",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Region", "region_id"), OutputColumn("Service", "service_id"),
            OutputColumn("Interface", "interface"), OutputColumn("URL", "url"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Delete<Self>.self]
}

/// Regions.
enum Regions: Noun {
    static let kind = Kind(
        command: ["region"], noun: "region", service: .identity, path: "/regions", member: "region", collection: "regions",
        naming: .byPath, nameField: "id",
        columns: [OutputColumn("ID", "id"), OutputColumn("Parent", "parent_region_id"), OutputColumn("Description", "description")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}
