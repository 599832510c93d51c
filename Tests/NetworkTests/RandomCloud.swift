import Kernel

@testable import NetworkCore

/// A random but valid state of the Networking API, and its compilation by subject.
struct RandomCloud {
    var networks: [UUID128: Network] = [:]
    var subnets: [UUID128: Subnet] = [:]
    var ports: [UUID128: Port] = [:]
    var routers: [UUID128: Router] = [:]
    var groups: [UUID128: SecurityGroup] = [:]
    var floating: [UUID128: FloatingIP] = [:]
    var compiler = Compiler(
        dnsServers: [IPAddress("9.9.9.9")!],
        gateways: [
            GatewayCandidate(chassis: "hv1", physicalNetworks: ["physnet1"], isMarked: false),
            GatewayCandidate(chassis: "hv2", physicalNetworks: ["physnet1"], isMarked: false),
        ])

    init(seed: UInt64, networks count: Int = 4, portsPerNetwork: Int = 6) {
        let random = SeededRandom(seed: seed)
        let groupIDs = (0..<3).map { _ in random.uuid() }
        for id in groupIDs {
            var group = SecurityGroup(id: id, name: "g\(id)")
            for index in 0..<random.below(5) {
                group.rules.append(
                    SecurityGroupRule(
                        id: random.uuid(), direction: index % 2 == 0 ? .ingress : .egress, protocolName: "tcp",
                        portRangeMin: 20 + index, portRangeMax: 30 + index,
                        remoteGroupID: random.below(2) == 0 ? groupIDs[random.below(3)] : nil))
            }
            groups[id] = group
        }
        let external = Network(
            id: random.uuid(), projectID: "p", external: true, mtu: 1500,
            provider: ProviderAttributes(kind: .flat, physicalNetwork: "physnet1"))
        networks[external.id] = external
        let outside = Subnet(
            id: random.uuid(), networkID: external.id, cidr: IPNetwork("172.24.4.0/24")!,
            gatewayIP: IPAddress("172.24.4.1"), enableDHCP: false)
        subnets[outside.id] = outside
        for index in 0..<count {
            addNetwork(index, external, outside, groupIDs, portsPerNetwork, random)
        }
    }

    private mutating func addNetwork(
        _ index: Int, _ external: Network, _ outside: Subnet, _ groupIDs: [UUID128], _ portCount: Int,
        _ random: SeededRandom
    ) {
        let network = Network(id: random.uuid(), projectID: "p", name: "n\(index)")
        networks[network.id] = network
        let cidr = IPNetwork("10.\(index).0.0/24")!
        let subnet = Subnet(
            id: random.uuid(), networkID: network.id, cidr: cidr, gatewayIP: cidr.first.advanced(by: 1),
            enableDHCP: random.below(4) != 0)
        subnets[subnet.id] = subnet
        func port(_ owner: String, _ device: String, _ offset: Int) -> Port {
            Port(
                id: random.uuid(), networkID: network.id, projectID: "p", mac: AddressPlanner.newMAC(random),
                deviceID: device, deviceOwner: owner,
                fixedIPs: [FixedIP(subnetID: subnet.id, address: cidr.first.advanced(by: UInt128(offset))!)])
        }
        let metadata = port(DeviceOwner.metadata, "ovnmeta-\(network.id)", 2)
        ports[metadata.id] = metadata
        var router = Router(id: random.uuid(), name: "r\(index)")
        let interface = port(DeviceOwner.routerInterface, "\(router.id)", 1)
        ports[interface.id] = interface
        var gateway = port(DeviceOwner.routerGateway, "\(router.id)", 3)
        gateway.networkID = external.id
        gateway.fixedIPs = [
            FixedIP(subnetID: outside.id, address: outside.cidr.first.advanced(by: UInt128(10 + index))!)
        ]
        ports[gateway.id] = gateway
        router.gateway = ExternalGateway(
            portID: gateway.id, networkID: external.id, enableSNAT: random.below(3) != 0, fixedIPs: gateway.fixedIPs)
        routers[router.id] = router
        for offset in 0..<portCount {
            var server = port("compute:nova", "\(random.uuid())", 10 + offset)
            server.securityGroups = Array(Set((0..<random.below(3)).map { _ in groupIDs[random.below(3)] }))
            server.portSecurityEnabled = random.below(5) != 0
            if !server.portSecurityEnabled { server.securityGroups = [] }
            ports[server.id] = server
            if random.below(4) == 0 {
                let shared = port("", "", 100 + offset)
                ports[shared.id] = shared
                if server.portSecurityEnabled {
                    ports[server.id]?.addressPairs = [AddressPair(mac: nil, ip: "\(shared.fixedIPs[0].address)")]
                }
            }
            if random.below(3) == 0 {
                let id = random.uuid()
                floating[id] = FloatingIP(
                    id: id, address: outside.cidr.first.advanced(by: UInt128(100 + floating.count))!,
                    routerID: router.id, portID: server.id, fixedAddress: server.fixedIPs[0].address)
            }
        }
    }

    var subjects: [NBSubject] {
        var all: [NBSubject] = [.global]
        all += groups.keys.map { .securityGroup($0) }
        all += networks.keys.map { .network($0) }
        all += subnets.keys.map { .subnet($0) }
        all += routers.keys.map { .router($0) }
        all += ports.keys.map { .port($0) }
        all += floating.keys.map { .floatingIP($0) }
        return all.sorted()
    }

    func compile(_ subject: NBSubject) -> NBDesired {
        switch subject {
        case .global: return compiler.compileGlobal()
        case .securityGroup(let id): return groups[id].map { compiler.compile($0) } ?? .nothing
        case .network(let id): return networks[id].map { compiler.compile($0) } ?? .nothing
        case .subnet(let id):
            guard let subnet = subnets[id], let network = networks[subnet.networkID] else { return .nothing }
            let metadata = ports.values.first {
                $0.deviceOwner == DeviceOwner.metadata && $0.networkID == subnet.networkID
            }
            return compiler.compile(subnet, network: network, metadata: metadata?.fixedIPs.first?.address)
        case .router(let id):
            guard let router = routers[id] else { return .nothing }
            let inside = ports.values.filter {
                $0.deviceOwner == DeviceOwner.routerInterface && $0.deviceID == "\(id)"
            }.flatMap { $0.fixedIPs.compactMap { subnets[$0.subnetID]?.cidr } }
            return compiler.compile(router, internalNetworks: inside, gatewaySubnets: subnets)
        case .port(let id):
            guard var port = ports[id], let network = networks[port.networkID] else { return .nothing }
            for other in ports.values where other.networkID == port.networkID && other.id != id {
                for pair in other.addressPairs {
                    if let address = IPAddress(pair.ip), port.fixedIPs.contains(where: { $0.address == address }) {
                        port.parents[address, default: []].append(other.id)
                    }
                }
            }
            return compiler.compile(port, network: network, subnets: subnets)
        case .floatingIP(let id): return floating[id].map { compiler.compile($0) } ?? .nothing
        }
    }

    /// The operations for these subjects, in transactions of the reconciler's size.
    func plan(_ subjects: [NBSubject], _ model: NBModel) -> NBTransaction {
        var transaction = NBTransaction(model: model)
        for subject in subjects { transaction.add(subject, compile(subject)) }
        return transaction
    }
}
