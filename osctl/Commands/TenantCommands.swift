import ArgumentParser

/// The nouns of the command line: verbs on resources through the public APIs. A new resource is one file and one line here.
enum TenantCommands {
    static let groups: [CommandGroup] = [
        CommandGroup(
            name: "Server",
            subcommands: [
                ResourceCommand<Servers>.self, ResourceCommand<Flavors>.self, ResourceCommand<Keypairs>.self,
                ResourceCommand<ServerGroups>.self, ResourceCommand<AvailabilityZones>.self, ResourceCommand<Images>.self,
                ResourceCommand<Volumes>.self,
            ]),
        CommandGroup(
            name: "Network",
            subcommands: [
                ResourceCommand<Networks>.self, ResourceCommand<Subnets>.self, ResourceCommand<Routers>.self,
                ResourceCommand<Ports>.self, ResourceCommand<FloatingIPs>.self, ResourceCommand<SecurityGroups>.self,
                ResourceCommand<NetworkExtensions>.self,
            ]),
        CommandGroup(
            name: "Identity",
            subcommands: [
                ResourceCommand<Projects>.self, ResourceCommand<Users>.self, ResourceCommand<Groups>.self,
                ResourceCommand<Roles>.self, ResourceCommand<Domains>.self, QuotaCommand.self, TokenCommand.self, CatalogCommand.self,
            ]),
        CommandGroup(
            name: "Operator",
            subcommands: [
                ResourceCommand<Hypervisors>.self, ResourceCommand<ComputeServices>.self, ResourceCommand<Aggregates>.self,
                ResourceCommand<NetworkAgents>.self, ResourceCommand<RegisteredServices>.self, ResourceCommand<Endpoints>.self,
                ResourceCommand<Regions>.self, BareMetalCommand.self,
            ]),
    ]
}
