import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// Groups of users.
enum Groups: Noun {
    static let kind = Kind(
        command: ["group"], noun: "group", service: .identity, path: "/groups", member: "group", collection: "groups",
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Name", "name"), OutputColumn("Domain", "domain_id"),
            OutputColumn("Description", "description"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}
