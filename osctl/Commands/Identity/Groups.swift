import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Groups of users.
enum Groups: Resource {
    static let kind = Kind(
        command: ["group"], noun: "group", service: .identity, path: "/groups", member: "group", collection: "groups",
        columns: [Column("ID", "id"), Column("Name", "name"), Column("Domain", "domain_id"), Column("Description", "description")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}
