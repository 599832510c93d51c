import ArgumentParser

/// The nouns of the command line. A new resource is one file and one line here.
enum TenantCommands {
    static let all: [any ParsableCommand.Type] = [
        ResourceCommand<Servers>.self, ResourceCommand<Flavors>.self, ResourceCommand<Keypairs>.self,
        ResourceCommand<ServerGroups>.self, ResourceCommand<AvailabilityZones>.self,
        ResourceCommand<Images>.self,
        ResourceCommand<Networks>.self, ResourceCommand<Subnets>.self, ResourceCommand<Routers>.self,
        ResourceCommand<Ports>.self, ResourceCommand<FloatingIPs>.self, ResourceCommand<SecurityGroups>.self,
        ResourceCommand<NetworkExtensions>.self,
        ResourceCommand<Volumes>.self,
        ResourceCommand<Projects>.self, ResourceCommand<Users>.self, ResourceCommand<Roles>.self,
        ResourceCommand<Domains>.self, ResourceCommand<RegisteredServices>.self, ResourceCommand<Endpoints>.self,
        ResourceCommand<Regions>.self,
        QuotaCommand.self, CatalogCommand.self, TokenCommand.self,
        ResourceCommand<Hypervisors>.self, ResourceCommand<ComputeServices>.self, ResourceCommand<Aggregates>.self,
        ResourceCommand<NetworkAgents>.self,
    ]
}
