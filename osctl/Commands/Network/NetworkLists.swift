import ArgumentParser
import Client
import ServiceCatalog

/// Agents that implement the networks on each host.
enum NetworkAgents: Resource {
    static let kind = Kind(
        command: ["network-agent"], noun: "network agent", service: .network, path: "/agents", member: "agent",
        collection: "agents", naming: .none,
        columns: [
            Column("ID", "id"), Column("Type", "agent_type"), Column("Host", "host"), Column("Alive", "alive"),
            Column("Enabled", "admin_state_up"), Column("Binary", "binary"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}

/// Extensions of the Networking API that this cloud has.
enum NetworkExtensions: Resource {
    static let kind = Kind(
        command: ["network-extension"], noun: "network extension", service: .network, path: "/extensions",
        member: "extension", collection: "extensions", naming: .byPath, idField: "alias",
        columns: [Column("Alias", "alias"), Column("Name", "name"), Column("Description", "description")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}
