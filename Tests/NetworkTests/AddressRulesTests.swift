import Kernel
import Testing

@testable import NetworkCore

@Suite struct AddressRulesTests {
    private func isRefused(_ text: String, as use: AddressRules.Use) throws -> Bool {
        let network = try #require(IPNetwork(text.contains("/") ? text : text + (text.contains(":") ? "/128" : "/32")))
        return AddressRules.range(against: network, as: use) != nil
    }

    @Test(arguments: [
        "169.254.169.0/24", "169.254.0.0/16", "255.255.255.0/24", "240.0.0.0/8", "224.0.0.0/24", "127.1.0.0/16", "0.1.0.0/16",
        "::ffff:10.0.0.0/120", "::/64", "::1/128", "fe80::/64", "ff02::/64",
    ])
    func subnetsOfSpecialRangesAreRefused(_ cidr: String) throws { #expect(try isRefused(cidr, as: .subnet)) }

    @Test(arguments: [
        "10.0.0.0/8", "169.254.192.0/24", "100.64.0.0/10", "192.168.0.0/16", "203.0.113.0/24", "fd00::/64", "2001:db8::/32", "64:ff9b::/96",
    ])
    func ordinarySubnetsAreNot(_ cidr: String) throws { #expect(try !isRefused(cidr, as: .subnet)) }

    @Test(arguments: [
        "224.0.0.18", "239.0.0.0/8", "255.255.255.255", "169.254.169.254", "169.254.169.0/24", "127.0.0.1", "0.0.0.0",
        "240.0.0.1", "ff02::1", "::1", "::", "::ffff:10.0.0.1", "224.0.0.0/3",
    ])
    func pairsOfSpecialRangesAreRefused(_ pair: String) throws { #expect(try isRefused(pair, as: .addressPair)) }

    @Test(arguments: ["0.0.0.0/0", "::/0", "10.0.0.5", "10.0.0.0/24", "169.254.1.1", "fe80::5", "128.0.0.0/1"])
    func otherPairsAreAllowed(_ pair: String) throws { #expect(try !isRefused(pair, as: .addressPair)) }

    @Test func routesAndNameServers() throws {
        #expect(try isRefused("255.255.255.255", as: .nexthop))
        #expect(try isRefused("224.0.0.1", as: .nexthop))
        #expect(try isRefused("::ffff:10.0.0.1", as: .nameServer))
        #expect(try isRefused("127.0.0.0/8", as: .destination))
        #expect(try !isRefused("0.0.0.0/0", as: .destination))
        #expect(try !isRefused("::/0", as: .destination))
        // Guests get no name server.
        #expect(try !isRefused("0.0.0.0", as: .nameServer))
        #expect(try !isRefused("fe80::1", as: .nexthop))
    }

    /// For subnets, a network that contains a refused address is refused. For other uses, a network inside a refused network is refused.
    @Test(arguments: 0..<50) func refusalsAgreeBetweenSizes(seed: Int) throws {
        let random = SeededRandom(seed: UInt64(seed))
        for _ in 0..<200 {
            let version: IPAddress.Version = random.below(2) == 0 ? .v4 : .v6
            let range = AddressRules.ranges.filter { $0.network.version == version }
            // Near the edges of the ranges, where the rules change.
            let edge = range[Int(random.below(range.count))].network
            let base = random.below(2) == 0 ? edge.first : edge.last
            let mask = version == .v4 ? UInt128(UInt32.max) : UInt128.max
            let address = IPAddress(version: version, value: base.value &+ UInt128(random.below(3)) &- 1 & mask)
            let width = version.width
            let one = IPNetwork(address, prefixLength: width)
            let length = Int(random.below(width)) + 1
            let wider = IPNetwork(address, prefixLength: length)
            if AddressRules.range(against: one, as: .subnet) != nil {
                #expect(AddressRules.range(against: wider, as: .subnet) != nil, "\(one) \(wider)")
            }
            for use in [AddressRules.Use.nexthop, .destination, .nameServer] where AddressRules.range(against: wider, as: use) != nil {
                #expect(AddressRules.range(against: one, as: use) != nil, "\(one) \(wider)")
            }
        }
    }
}

@Suite struct DHCPOptionTests {
    private func option(_ name: String, _ value: String, _ version: IPAddress.Version = .v4) -> DHCPOption? {
        DHCPOption(name: name, value: value, version: version)
    }

    @Test func namesAndCodesOfNeutron() {
        let fitting: [(String, String, String)] = [
            ("classless-static-route", "192.0.2.0/24,10.0.0.9", "{192.0.2.0/24,10.0.0.9}"),
            ("121", "{192.0.2.0/24, 10.0.0.9, 0.0.0.0/0, 10.0.0.1}", "{192.0.2.0/24,10.0.0.9, 0.0.0.0/0,10.0.0.1}"),
            ("domain-search", "a.example, b.example", "\"a.example,b.example\""), ("119", "a.example", "\"a.example\""),
            ("bootfile-name", "pxelinux.0", "\"pxelinux.0\""), ("67", "x", "\"x\""), ("ntp-server", "10.0.0.5", "10.0.0.5"),
            ("dns-server", "10.0.0.5,10.0.0.6", "{10.0.0.5, 10.0.0.6}"), ("server-ip-address", "10.0.0.5", "10.0.0.5"),
            ("tftp-server", "10.0.0.5", "\"10.0.0.5\""), ("T1", "600", "600"), ("arp-timeout", "30", "30"),
            ("router", "10.0.0.7", "10.0.0.7"),
        ]
        for (name, value, expected) in fitting { #expect(option(name, value)?.value == expected, "\(name)=\(value)") }
        #expect(option("server-ip-address", "10.0.0.5")?.name == "next_server")
        #expect(option("domain-search", "a.example", .v6)?.name == "domain_search")
        #expect(option("23", "fd00::5", .v6)?.name == "dns_server")
    }

    @Test(arguments: [
        ("classless-static-route", "192.0.2.0/24"), ("classless-static-route", "x,y"), ("classless-static-route", "fd00::/8,fd00::1"),
        ("domain-search", "a..b"), ("domain-search", "a\" ,x=1"), ("domain-search", "-a.example"), ("domain-search", ""),
        ("bootfile-name", "a\"b"), ("bootfile-name", "a\nb"), ("router", "nowhere"), ("mtu", "12"), ("dhcp_disabled", "maybe"),
        ("ia-addr", "x"),
    ])
    func unsupportedDHCPOptionsAreRefused(_ name: String, _ value: String) {
        #expect(option(name, value) == nil)
        #expect(option(name, value, .v6) == nil)
    }

    private func rows(_ options: [DHCPOption]) throws -> [NBRow] {
        let network = Network(id: UUID128(high: 0, low: 1), projectID: "p")
        let subnet = Subnet(
            id: UUID128(high: 0, low: 2), networkID: network.id, cidr: try #require(IPNetwork("10.0.0.0/24")),
            gatewayIP: IPAddress("10.0.0.1"))
        let port = Port(
            id: UUID128(high: 0, low: 3), networkID: network.id, projectID: "p", mac: MACAddress(value: 0xfa16_3e00_0001),
            fixedIPs: [FixedIP(subnetID: subnet.id, address: try #require(IPAddress("10.0.0.9")))], dhcpOptions: options)
        return Compiler().compile(
            port, network: network, subnets: [subnet.id: subnet], metadata: [subnet.id: try #require(IPAddress("10.0.0.2"))]
        ).rows
    }

    /// A client that takes option 121 ignores option 3 (RFC 3442): both must name the port's own router.
    @Test func aRouterTakesTheDefaultRouteAlong() throws {
        let router = try #require(option("router", "10.0.0.7"))
        let options = try #require(try rows([router])[0].columns["options"]?.entries)
        #expect(options["router"] == "10.0.0.7")
        #expect(options["classless_static_route"] == "{169.254.169.254/32,10.0.0.2, 0.0.0.0/0,10.0.0.7}")
        #expect(options["server_id"] == "10.0.0.1")
    }

    @Test func ownRoutesKeepTheWayToTheMetadataService() throws {
        let routes = try #require(option("classless-static-route", "192.0.2.0/24,10.0.0.9"))
        let options = try #require(try rows([routes])[0].columns["options"]?.entries)
        #expect(options["classless_static_route"] == "{169.254.169.254/32,10.0.0.2, 192.0.2.0/24,10.0.0.9}")
    }

    @Test func disabledMeansNoAnswer() throws {
        let disabled = try #require(option("dhcp_disabled", "true"))
        let port = try #require(try rows([disabled]).last)
        #expect(port.columns["dhcpv4_options"] == NBValue.none)
        #expect(try rows([]).last?.columns["dhcpv4_options"] != NBValue.none)
    }
}
