import Kernel
import Testing

@testable import NetworkCore

@Suite struct CompilerTests {
    @Test(arguments: 0..<20) func appliedPlanNeedsNoOperations(seed: Int) {
        let cloud = RandomCloud(seed: UInt64(seed))
        var northbound = NorthboundSimulator()
        let plan = cloud.plan(cloud.subjects, northbound.model)
        #expect(plan.incomplete.isEmpty)
        northbound.apply(plan.operations)
        #expect(cloud.plan(cloud.subjects, northbound.model).operations.isEmpty)
        #expect(northbound.count(.logicalSwitch) == cloud.networks.count)
        #expect(northbound.count(.logicalRouter) == cloud.routers.count)
    }

    @Test(arguments: 0..<20) func oneSubjectPerTransactionEndsTheSame(seed: Int) {
        let cloud = RandomCloud(seed: UInt64(seed))
        var northbound = NorthboundSimulator()
        for subject in cloud.subjects { northbound.apply(cloud.plan([subject], northbound.model).operations) }
        #expect(cloud.plan(cloud.subjects, northbound.model).operations.isEmpty)
    }

    @Test(arguments: 0..<20) func gatheredOperationsDoTheSame(seed: Int) {
        var cloud = RandomCloud(seed: UInt64(seed))
        var northbound = NorthboundSimulator()
        func apply() {
            let plan = cloud.plan(cloud.subjects, northbound.model).operations
            let gathered = plan.gathered
            let mutated = gathered.compactMap { if case .mutate(_, let target, _, _) = $0 { target } else { nil } }
            #expect(Set(mutated).count == mutated.count)
            #expect(gathered.count <= plan.count)
            northbound.apply(gathered)
            #expect(cloud.plan(cloud.subjects, northbound.model).operations.isEmpty)
        }
        apply()
        // Ports leave groups and networks while others are added.
        let (groups, network) = (Array(cloud.groups.keys), cloud.networks.keys.sorted()[0])
        for (index, port) in cloud.ports.values.enumerated() where !DeviceOwner.isTrusted(port.deviceOwner) {
            cloud.ports[port.id]?.securityGroups = index % 2 == 0 ? groups : []
            if index % 3 == 0 { cloud.ports[port.id]?.portSecurityEnabled.toggle() }
            if index % 5 == 0 { cloud.ports[port.id]?.networkID = network }
        }
        apply()
    }

    @Test(arguments: 0..<20) func matchingSubjectsNeedNoOperations(seed: Int) {
        var cloud = RandomCloud(seed: UInt64(seed))
        var northbound = NorthboundSimulator()
        /// Minimum number of subjects that are shown as matching; others may match too.
        func shown() -> Int {
            cloud.subjects.count { subject in
                let desired = cloud.compile(subject)
                guard northbound.model.shows(subject, desired) else { return false }
                var transaction = NBTransaction(model: northbound.model)
                transaction.add(subject, desired)
                #expect(transaction.operations.isEmpty && transaction.incomplete.isEmpty, "\(subject)")
                return true
            }
        }
        // Subjects without rows match from the beginning.
        let empty = cloud.subjects.count { cloud.compile($0).rows.isEmpty }
        #expect(shown() == empty)
        for subject in cloud.subjects.filter({ $0.rank != 5 }) {
            northbound.apply(cloud.plan([subject], northbound.model).operations)
        }
        _ = shown()
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)
        #expect(shown() >= cloud.ports.values.count { !DeviceOwner.isRouterPort($0.deviceOwner) })
        let groups = Array(cloud.groups.keys)
        for (index, port) in cloud.ports.values.enumerated() where !DeviceOwner.isTrusted(port.deviceOwner) {
            cloud.ports[port.id]?.securityGroups = index % 2 == 0 ? groups : []
            if index % 3 == 0 { cloud.ports[port.id]?.portSecurityEnabled.toggle() }
            if index % 4 == 0 { cloud.ports[port.id]?.fixedIPs = [] }
        }
        _ = shown()
    }

    @Test(arguments: 0..<10) func deletingAllSubjectsDeletesAllRows(seed: Int) {
        let cloud = RandomCloud(seed: UInt64(seed))
        var northbound = NorthboundSimulator()
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)
        for subject in cloud.subjects.reversed() {
            var transaction = NBTransaction(model: northbound.model)
            transaction.add(subject, .nothing)
            northbound.apply(transaction.operations)
        }
        #expect(northbound.rows.isEmpty)
        #expect(northbound.model.subjects.isEmpty)
    }

    /// A guest's secured port on which no other port's row depends: the same one in every run, and with a group if there is one.
    private static func securedPort(_ cloud: RandomCloud) throws -> Port {
        let fitting = cloud.ports.values.filter { $0.deviceOwner == "compute:nova" && $0.isSecured && $0.addressPairs.isEmpty }
        return try #require(
            fitting.min { ($0.securityGroups.isEmpty ? 1 : 0, $0.id) < ($1.securityGroups.isEmpty ? 1 : 0, $1.id) })
    }

    @Test func aPortCostsTheSameInABigCloud() throws {
        var costs: [Int] = []
        for size in [2, 200] {
            var cloud = RandomCloud(seed: 5, networks: 2, portsPerNetwork: size)
            var northbound = NorthboundSimulator()
            northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)
            var port = try CompilerTests.securedPort(cloud)
            port.id = UUID128(high: 7, low: 7)
            port.securityGroups = Array(cloud.groups.keys.prefix(1))
            cloud.ports[port.id] = port
            let plan = cloud.plan([.port(port.id)], northbound.model)
            // The row, its entry in the switch and in the group; each with one element.
            costs.append(plan.operations.count)
            for case .mutate(_, _, _, let insert) in plan.operations {
                for value in insert.values { #expect(value.atoms.count == 1) }
            }
            northbound.apply(plan.operations)
            #expect(cloud.plan(cloud.subjects, northbound.model).operations.isEmpty)
            cloud.ports[port.id] = nil
            let removal = cloud.plan([.port(port.id)], northbound.model)
            #expect(removal.operations.count <= 3)
        }
        #expect(costs == [3, 3])
    }

    @Test func portsWithMissingGroupsAreDenied() throws {
        var cloud = RandomCloud(seed: 6)
        var northbound = NorthboundSimulator()
        var port = try CompilerTests.securedPort(cloud)
        let group = try #require(cloud.groups.keys.first)
        port.securityGroups = [group]
        cloud.ports[port.id] = port
        let others = cloud.subjects.filter { $0 != .securityGroup(group) }
        northbound.apply(cloud.plan(others, northbound.model).operations)
        func groups() -> Set<NBKey> {
            guard let row = northbound.model.uuid(of: Compiler.switchPortKey(port.id)) else { return [] }
            return Set(
                northbound.model.referrers(of: row).compactMap { northbound.model.rows[$0.row]?.key }.filter { $0.table == .portGroup })
        }
        #expect(groups() == [Compiler.dropGroupKey])
        // As often as it is looked at.
        let again = cloud.plan([.port(port.id)], northbound.model)
        #expect(again.operations.isEmpty && again.incomplete == [.port(port.id)])
        for subject in [NBSubject.securityGroup(group), .port(port.id)] {
            northbound.apply(cloud.plan([subject], northbound.model).operations)
        }
        #expect(groups() == [Compiler.groupKey(group)])
        // Without any group its traffic is always denied.
        cloud.ports[port.id]?.securityGroups = []
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)
        #expect(groups() == [Compiler.dropGroupKey])
        #expect(cloud.plan(cloud.subjects, northbound.model).operations.isEmpty)
    }

    /// A port in a group is denied everything that the group's rules do not allow.
    @Test func groupsDenyOtherTraffic() throws {
        let cloud = RandomCloud(seed: 7)
        let group = try #require(cloud.groups.values.first { !$0.rules.isEmpty })
        let name = Compiler.groupName(group.id)
        let acls = cloud.compiler.compile(group).rows.filter { $0.key.table == .acl }
        let all = acls.filter { $0.columns["action"] == .string("drop") }
        let never = all.filter { $0.key.id == "drop/\(group.id)/server" }
        let drops = all.filter { $0.key.id != "drop/\(group.id)/server" }
        #expect(Set(drops.map { $0.columns["match"] }) == [.string("inport == @\(name) && ip"), .string("outport == @\(name) && ip")])
        let others = acls.filter { $0.columns["action"] != .string("drop") }
        #expect(others.count == group.rules.count + 2)
        func priority(_ row: NBRow) -> Int { if case .integer(let number)? = row.columns["priority"]?.atoms.only { number } else { 0 } }
        #expect(drops.map(priority).max() ?? 0 < others.map(priority).min() ?? 0)
        #expect(never.count == 1 && never.map(priority).min() ?? 0 > others.map(priority).max() ?? 0)
        #expect(Set(acls.map(\.key)).count == acls.count)
    }

    @Test func labelsComeAndGoAndOthersAreLeftAlone() throws {
        var cloud = RandomCloud(seed: 8)
        var northbound = NorthboundSimulator()
        let id = try #require(cloud.networks.values.first { !$0.external }?.id)
        cloud.networks[id]?.name = "named"
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)
        let row = try #require(northbound.model.uuid(of: Compiler.switchKey(id)))
        northbound.apply([
            .mutate(.logicalSwitch, .uuid(row), delete: [:], insert: ["external_ids": .map(["theirs": "x", "wolke:old": "y"])])
        ])
        func entries() -> NBEntries { northbound.rows[row]?.columns["external_ids"]?.entries ?? [:] }
        #expect(entries()["wolke:name"] == "named" && entries()["wolke:id"] == nil)
        cloud.networks[id]?.name = ""
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)
        #expect(Set(entries().keys) == ["theirs", "wolke:subject"])
        #expect(cloud.plan(cloud.subjects, northbound.model).operations.isEmpty)
    }

    @Test func oneChangeTouchesItsOwnRowsOnly() throws {
        var cloud = RandomCloud(seed: 3)
        var northbound = NorthboundSimulator()
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)

        let network = try #require(cloud.networks.values.first { !$0.external })
        cloud.networks[network.id]?.name = "renamed"
        #expect(cloud.plan(cloud.subjects, northbound.model).operations.count == 1)
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)

        let port = try #require(cloud.ports.values.first { $0.deviceOwner == "compute:nova" })
        cloud.ports[port.id]?.adminStateUp = false
        let disable = cloud.plan(cloud.subjects, northbound.model).operations
        let uuid = try #require(northbound.model.uuid(of: Compiler.switchPortKey(port.id)))
        #expect(disable == [.update(.logicalSwitchPort, .uuid(uuid), ["enabled": .boolean(false)])])
        northbound.apply(disable)

        let group = try #require(cloud.groups.values.first)
        cloud.groups[group.id]?.rules.append(
            SecurityGroupRule(id: UUID128(high: 1, low: 1), direction: .ingress, protocolName: "icmp"))
        #expect(cloud.plan(cloud.subjects, northbound.model).operations.count == 2)
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)
        #expect(cloud.plan(cloud.subjects, northbound.model).operations.isEmpty)
    }

    @Test func foreignRowsAndDriftAreHandled() throws {
        let cloud = RandomCloud(seed: 4)
        var northbound = NorthboundSimulator()
        northbound.apply(cloud.plan(cloud.subjects, northbound.model).operations)
        let port = try CompilerTests.securedPort(cloud)
        let uuid = try #require(northbound.model.uuid(of: Compiler.switchPortKey(port.id)))
        // Another client opened the port and created a switch.
        northbound.apply([
            .update(.logicalSwitchPort, .uuid(uuid), ["type": .string("virtual")]),
            .mutate(.logicalSwitchPort, .uuid(uuid), delete: [:], insert: ["addresses": .strings(["unknown"])]),
            .insert(.logicalSwitch, name: "foreign", row: ["name": .string("theirs")]),
        ])
        let repair = cloud.plan(cloud.subjects, northbound.model).operations
        #expect(repair.count == 2)
        northbound.apply(repair)
        #expect(cloud.plan(cloud.subjects, northbound.model).operations.isEmpty)
        #expect(northbound.rows.values.contains { $0.columns["name"] == .string("theirs") })
    }

    @Test func metadataRouteAndDefaultRouteAreBothHandedOut() throws {
        let network = Network(id: UUID128(high: 0, low: 1), projectID: "p")
        let subnet = Subnet(
            id: UUID128(high: 0, low: 2), networkID: network.id, cidr: try #require(IPNetwork("10.0.0.0/24")),
            gatewayIP: IPAddress("10.0.0.1"),
            hostRoutes: [
                StaticRoute(
                    destination: try #require(IPNetwork("192.0.2.0/24")), nexthop: try #require(IPAddress("10.0.0.9")))
            ])
        let compiler = Compiler(dnsServers: try [#require(IPAddress("9.9.9.9")), #require(IPAddress("2620:fe::fe"))])
        let options = compiler.compile(subnet, network: network, metadata: IPAddress("10.0.0.2"))
            .rows[0].columns["options"]?.entries
        #expect(
            options?["classless_static_route"]
                == "{169.254.169.254/32,10.0.0.2, 192.0.2.0/24,10.0.0.9, 0.0.0.0/0,10.0.0.1}")
        #expect(options?["dns_server"] == "{9.9.9.9}")
        #expect(options?["mtu"] == "1442")
        #expect(options?["router"] == "10.0.0.1")
    }

    @Test func ruleMatches() throws {
        func match(_ rule: SecurityGroupRule) -> String { Compiler.match(rule, group: "g") }
        let id = UUID128(high: 0, low: 0)
        #expect(match(SecurityGroupRule(id: id, direction: .egress)) == "inport == @g && ip4")
        #expect(
            match(
                SecurityGroupRule(
                    id: id, direction: .ingress, protocolName: "tcp", portRangeMin: 22, portRangeMax: 22,
                    remoteNetwork: IPNetwork("10.0.0.0/8")))
                == "outport == @g && ip4 && ip4.src == 10.0.0.0/8 && tcp && tcp.dst == 22")
        #expect(
            match(
                SecurityGroupRule(
                    id: id, direction: .ingress, protocolName: "17", portRangeMin: 1, portRangeMax: 9, remoteGroupID: id))
                == "outport == @g && ip4 && ip4.src == $pg_\(id.compact)_ip4 && udp && udp.dst >= 1 && udp.dst <= 9")
        #expect(
            match(SecurityGroupRule(id: id, direction: .ingress, etherType: .v6, protocolName: "icmp", portRangeMin: 128))
                == "outport == @g && ip6 && icmp6 && icmp6.type == 128")
        #expect(
            match(SecurityGroupRule(id: id, direction: .egress, protocolName: "50")) == "inport == @g && ip4 && ip.proto == 50")
    }

    @Test func gatewaysAreSpreadAndMarkedOnesPreferred() {
        var compiler = Compiler(
            gateways: (0..<4).map {
                GatewayCandidate(chassis: "hv\($0)", physicalNetworks: ["p"], isMarked: false)
            })
        let random = SeededRandom(seed: 1)
        var first: [String: Int] = [:]
        for _ in 0..<400 {
            let order = compiler.gatewayChassis(for: random.uuid(), physicalNetwork: "p")
            #expect(order.count == 4)
            first[order[0], default: 0] += 1
        }
        for count in first.values { #expect(count > 50) }
        #expect(compiler.gatewayChassis(for: random.uuid(), physicalNetwork: "other").isEmpty)
        compiler.gateways.append(GatewayCandidate(chassis: "gw", physicalNetworks: ["p"], isMarked: true))
        #expect(compiler.gatewayChassis(for: random.uuid(), physicalNetwork: "p") == ["gw"])
    }
}
