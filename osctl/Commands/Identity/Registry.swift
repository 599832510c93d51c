import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Services in Identity's catalog.
enum RegisteredServices: Resource {
    static let kind = Kind(
        command: ["service"], noun: "service", service: .identity, path: "/services", member: "service",
        collection: "services", naming: .listed,
        columns: [Column("ID", "id"), Column("Name", "name"), Column("Type", "type"), Column("Enabled", "enabled")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Delete<Self>.self]
}

/// Endpoints of the services.
enum Endpoints: Resource {
    static let kind = Kind(
        command: ["endpoint"], noun: "endpoint", service: .identity, path: "/endpoints", member: "endpoint",
        collection: "endpoints", naming: .none, nameField: "url",
        columns: [
            Column("ID", "id"), Column("Region", "region_id"), Column("Service", "service_id"),
            Column("Interface", "interface"), Column("URL", "url"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Delete<Self>.self]
}

/// Regions.
enum Regions: Resource {
    static let kind = Kind(
        command: ["region"], noun: "region", service: .identity, path: "/regions", member: "region", collection: "regions",
        naming: .byPath, nameField: "id",
        columns: [Column("ID", "id"), Column("Parent", "parent_region_id"), Column("Description", "description")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}
