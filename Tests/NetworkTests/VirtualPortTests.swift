import Kernel
import Testing

@testable import NetworkCore

/// Shared addresses of guests, the status of networks and ports, and traffic that guests may not send.
@Suite struct VirtualPortTests {
    private let network = Network(id: UUID128(high: 1, low: 0), projectID: "p")
    private let subnet = Subnet(
        id: UUID128(high: 2, low: 0), networkID: UUID128(high: 1, low: 0), cidr: IPNetwork("10.0.0.0/24")!,
        gatewayIP: IPAddress("10.0.0.1"))
    private let compiler = Compiler()

    private func port(_ owner: String = "") -> Port {
        Port(
            id: UUID128(high: 3, low: 9), networkID: network.id, projectID: "p", mac: MACAddress("fa:16:3e:00:00:09")!,
            deviceOwner: owner, fixedIPs: [FixedIP(subnetID: subnet.id, address: IPAddress("10.0.0.9")!)])
    }

    private func row(_ port: Port, _ network: Network? = nil) throws -> NBColumns {
        let rows = compiler.compile(port, network: network ?? self.network, subnets: [subnet.id: subnet]).rows
        return try #require(rows.first { $0.key.table == .logicalSwitchPort }).columns
    }

    @Test func portsWithSharedAddressesAreVirtual() throws {
        var shared = port()
        #expect(try row(shared)["type"] == .string(""))
        let parents = [UUID128(high: 3, low: 2), UUID128(high: 3, low: 1)]
        shared.parents[IPAddress("10.0.0.9")!] = parents
        let columns = try row(shared)
        #expect(columns["type"] == .string("virtual"))
        #expect(columns["options"] == .map(["virtual-ip": "10.0.0.9", "virtual-parents": "\(parents[1]),\(parents[0])"]))
        #expect(columns["addresses"] == .strings(["fa:16:3e:00:00:09 10.0.0.9"]))
        // A server's port is bound to its host, and a router's port answers for its own address.
        for owner in ["compute:nova", DeviceOwner.routerInterface, DeviceOwner.metadata] {
            var bound = port(owner)
            bound.deviceID = "\(UUID128(high: 4, low: 4))"
            bound.parents = shared.parents
            #expect(try row(bound)["type"] != .string("virtual"), "\(owner)")
        }
    }

    @Test func portsOfADownNetworkAreDisabled() throws {
        var down = network
        down.adminStateUp = false
        for owner in ["compute:nova", "", DeviceOwner.metadata, DeviceOwner.routerInterface] {
            var port = port(owner)
            if owner == DeviceOwner.routerInterface { port.deviceID = "\(UUID128(high: 4, low: 4))" }
            #expect(try row(port)["enabled"] == .some(.none), "\(owner)")
            #expect(try row(port, down)["enabled"] == .boolean(false), "\(owner)")
        }
        var off = port("compute:nova")
        off.adminStateUp = false
        #expect(try row(off)["enabled"] == .boolean(false))
    }

    @Test("S15: DHCP replies and redirects from secured ports are dropped regardless of rules")
    func s15GuestsAreNoServers() throws {
        let group = SecurityGroup(
            id: UUID128(high: 5, low: 5), name: "open",
            rules: [SecurityGroupRule(id: UUID128(high: 5, low: 6), direction: .egress, protocolName: nil)])
        for rows in [compiler.compile(group).rows, compiler.compileGlobal().rows] {
            let acls = rows.filter { $0.key.table == .acl && $0.columns["direction"] == .string("from-lport") }
            func priority(_ row: NBRow) -> Int { if case .integer(let number)? = row.columns["priority"]?.atoms.only { number } else { 0 } }
            let highest = try #require(acls.max { priority($0) < priority($1) })
            #expect(highest.columns["action"] == .string("drop"))
            guard case .string(let match)? = highest.columns["match"]?.atoms.only else { throw Missing() }
            for part in ["udp.src == 67 && udp.dst == 68", "udp.src == 547 && udp.dst == 546", "icmp4.type == 5", "icmp6.type == 137"] {
                #expect(match.contains(part))
            }
            #expect(acls.count { priority($0) == priority(highest) } == 1)
        }
    }

    @Test("S15: a secured port can only send from its own addresses, and a group's rules only apply to its own ports")
    func s15GuestsUseTheirOwnAddresses() throws {
        var guest = port("compute:nova")
        #expect(try row(guest)["port_security"] == .string("fa:16:3e:00:00:09 10.0.0.9"))
        #expect(try row(guest)["addresses"] == .strings(["fa:16:3e:00:00:09 10.0.0.9"]))
        guest.addressPairs = [AddressPair(mac: nil, ip: "10.0.0.77")]
        #expect(try row(guest)["port_security"] == .strings(["fa:16:3e:00:00:09 10.0.0.9 10.0.0.77"]))
        // A secured port without a group can send nothing.
        let creation = compiler.compile(guest, network: network, subnets: [subnet.id: subnet])
        #expect(creation.memberships.map(\.group) == [Compiler.dropGroupKey])
        guest.portSecurityEnabled = false
        #expect(try row(guest)["port_security"] == .some(.none))
    }

    @Test("S12: no text of a tenant becomes part of a match expression or of a DHCP option's syntax")
    func s12TextStaysText() throws {
        let evil = "x\" || ip4 || \"\n{}; action=allow"
        let group = SecurityGroup(
            id: UUID128(high: 5, low: 5), name: evil,
            rules: [SecurityGroupRule(id: UUID128(high: 5, low: 6), direction: .ingress, protocolName: evil)])
        for row in compiler.compile(group).rows where row.key.table == .acl {
            guard case .string(let match)? = row.columns["match"]?.atoms.only else { throw Missing() }
            #expect(!match.contains("x\"") && !match.contains("action="), "\(match)")
        }
        var named = port("compute:nova")
        named.name = evil
        let columns = try row(named)
        #expect(columns.filter { "\($0.value)".contains("action=allow") }.map(\.key) == ["external_ids"])
    }

    private struct Missing: Error {}
}
