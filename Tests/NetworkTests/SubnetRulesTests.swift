import Kernel
import Testing

@testable import NetworkCore

private func network(_ text: String) -> IPNetwork { IPNetwork(text)! }
private func address(_ text: String) -> IPAddress { IPAddress(text)! }
private func pool(_ start: String, _ end: String) -> AddressPool {
    AddressPool(start: address(start), end: address(end))
}

private func type(of body: () throws -> Void) -> String? {
    do { try body() } catch let error as ResourceError { return error.type } catch { return "?" }
    return nil
}

@Suite struct SubnetRulesTests {
    @Test func defaults() {
        #expect(SubnetRules.defaultGateway(network("10.0.0.0/24")) == address("10.0.0.1"))
        #expect(
            SubnetRules.defaultPools(network("10.0.0.0/24"), gateway: address("10.0.0.1"))
                == [pool("10.0.0.2", "10.0.0.254")])
        #expect(
            SubnetRules.defaultPools(network("10.0.0.0/24"), gateway: address("10.0.0.100"))
                == [pool("10.0.0.1", "10.0.0.99"), pool("10.0.0.101", "10.0.0.254")])
        #expect(SubnetRules.defaultPools(network("10.0.0.0/24"), gateway: nil) == [pool("10.0.0.1", "10.0.0.254")])
        #expect(SubnetRules.defaultPools(network("10.0.0.4/32"), gateway: nil) == [pool("10.0.0.4", "10.0.0.4")])
        #expect(
            SubnetRules.defaultPools(network("fd00::/64"), gateway: address("fd00::1"))
                == [pool("fd00::2", "fd00::ffff:ffff:ffff:ffff")])
    }

    @Test func poolsMustFit() {
        let cidr = network("10.0.0.0/24")
        func check(_ pools: [AddressPool], gateway: IPAddress? = nil) -> String? {
            type { try SubnetRules.validate(pools: pools, cidr: cidr, gateway: gateway) }
        }
        #expect(check([pool("10.0.0.2", "10.0.0.9"), pool("10.0.0.20", "10.0.0.29")]) == nil)
        #expect(check([pool("10.0.0.9", "10.0.0.2")]) == "InvalidAllocationPool")
        #expect(check([pool("10.0.1.2", "10.0.1.9")]) == "OutOfBoundsAllocationPool")
        #expect(check([pool("10.0.0.2", "10.0.0.255")]) == "OutOfBoundsAllocationPool")
        #expect(check([pool("10.0.0.2", "10.0.0.9"), pool("10.0.0.9", "10.0.0.12")]) == "OverlappingAllocationPools")
        #expect(check([pool("10.0.0.1", "10.0.0.9")], gateway: address("10.0.0.1")) == "GatewayConflictWithAllocationPools")
    }

    @Test func cidrAndGateway() {
        #expect(type { try SubnetRules.validate(cidr: network("0.0.0.0/0")) } == "InvalidInput")
        #expect(type { try SubnetRules.validate(cidr: network("224.0.0.0/24")) } == "InvalidInput")
        #expect(type { try SubnetRules.validate(cidr: network("192.168.0.0/16")) } == nil)
        let cidr = network("10.0.0.0/24")
        #expect(type { try SubnetRules.validate(gateway: address("10.0.0.255"), cidr: cidr) } == "InvalidInput")
        #expect(type { try SubnetRules.validate(gateway: address("10.0.1.1"), cidr: cidr) } == "InvalidInput")
        #expect(type { try SubnetRules.validate(gateway: address("10.0.0.254"), cidr: cidr) } == nil)
    }

    @Test func routerInterfacesMustNotOverlap() {
        let other = (id: UUID128(high: 0, low: 1), cidr: network("10.0.0.0/16"))
        let id = UUID128(high: 0, low: 2)
        #expect(
            type {
                try SubnetRules.validateRouterInterface(network("10.0.3.0/24"), subnetID: id, routerSubnets: [other])
            } == "BadRequest")
        #expect(
            type {
                try SubnetRules.validateRouterInterface(network("10.1.0.0/24"), subnetID: id, routerSubnets: [other])
            } == nil)
    }

    @Test(arguments: 0..<30) func planningNeverLeavesThePools(seed: Int) {
        let random = SeededRandom(seed: UInt64(seed))
        let pools = [pool("10.0.0.5", "10.0.0.9"), pool("10.0.0.20", "10.0.0.23")]
        let candidates = AddressPlanner.candidates(pools, count: 32, random: random)
        #expect(Set(candidates).count == candidates.count)
        for candidate in candidates { #expect(pools.contains { $0.contains(candidate) }) }
    }

    /// A pool allocated in order, and one from a random start: both to their end, without the addresses in use.
    @Test(arguments: 0..<30) func searchFindsAllFreeAddresses(seed: Int) {
        let random = SeededRandom(seed: UInt64(seed))
        for pools in [
            [pool("10.0.0.20", "10.0.0.23"), pool("10.0.0.5", "10.0.0.9")], [pool("10.0.0.7", "10.0.16.3")], [],
        ] {
            var all = Set(pools.flatMap { pool in (pool.start.value...pool.end.value).map { IPAddress(version: .v4, value: $0) } })
            let taken = all.filter { _ in random.below(3) == 0 }
            all.subtract(taken)
            var search = AddressSearch(pools, random: random)
            while let guesses = search.guesses(8, random: random) {
                for guess in guesses { #expect(pools.contains { $0.contains(guess) }) }
            }
            var found: [IPAddress] = []
            while !search.isExhausted { found += search.choose(1 + random.below(40), of: search.window, taken: taken) }
            #expect(Set(found).count == found.count)
            #expect(Set(found) == all)
            #expect(search.window.isEmpty)
            if pools.count == 2 { #expect(found == found.sorted()) }
        }
    }

    @Test func autoAddress() throws {
        #expect(
            AddressPlanner.autoAddress(network("fd00::/64"), mac: try #require(MACAddress("fa:16:3e:01:02:03")))
                == address("fd00::f816:3eff:fe01:203"))
    }

    @Test func rulesOfRules() {
        func check(_ change: (inout SecurityGroupRule) -> Void) -> String? {
            var rule = SecurityGroupRule(id: UUID128(high: 0, low: 0), direction: .ingress)
            change(&rule)
            return type { try rule.validate() }
        }
        #expect(check { _ in } == nil)
        #expect(check { $0.protocolName = "bogus" } == "SecurityGroupRuleInvalidProtocol")
        #expect(check { $0.portRangeMin = 1 } == "SecurityGroupProtocolRequiredWithPorts")
        #expect(
            check {
                $0.protocolName = "tcp"
                $0.portRangeMin = 10
                $0.portRangeMax = 5
            } == "SecurityGroupInvalidPortRange")
        #expect(
            check {
                $0.protocolName = "udp"
                $0.portRangeMin = 0
                $0.portRangeMax = 70_000
            } == "SecurityGroupInvalidPortValue")
        #expect(
            check {
                $0.protocolName = "icmp"
                $0.portRangeMax = 5
            } == "SecurityGroupMissingIcmpType")
        #expect(check { $0.remoteNetwork = network("fd00::/64") } == "SecurityGroupRuleParameterConflict")
        #expect(check { $0.protocolName = "icmpv6" } == "SecurityGroupEthertypeConflictWithProtocol")
    }
}
