import ArgumentParser
import Client
import ServiceCatalog

/// Agents that implement the networks on each host.
enum NetworkAgents: Noun {
    static let kind = Kind(
        command: ["network-agent"], noun: "network agent", service: .network, path: "/agents", member: "agent",
        collection: "agents", naming: .none,
        columns: [
            OutputColumn("ID", "id"), OutputColumn("Type", "agent_type"), OutputColumn("Host", "host"), OutputColumn("Alive", "alive"),
            OutputColumn("Enabled", "admin_state_up"), OutputColumn("Binary", "binary"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}

/// Extensions of the Networking API that this cloud has.
enum NetworkExtensions: Noun {
    static let kind = Kind(
        command: ["network-extension"], noun: "network extension", service: .network, path: "/extensions",
        member: "extension", collection: "extensions", naming: .byPath, idField: "alias",
        columns: [OutputColumn("Alias", "alias"), OutputColumn("Name", "name"), OutputColumn("Description", "description")])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self]
}
