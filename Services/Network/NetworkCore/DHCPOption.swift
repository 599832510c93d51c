package import Kernel

/// A DHCP option of one port, in addition to those of its subnet.
package struct DHCPOption: Hashable, Sendable {
    package let version: IPAddress.Version
    /// OVN's name of the option.
    package let name: String
    /// In OVN's notation.
    package let value: String

    private enum Kind {
        case address
        case addresses
        case hardwareAddress
        case number(ClosedRange<Int>)
        case text
        /// Domain names, separated by commas.
        case domains
        /// `NETWORK,NEXTHOP` pairs, separated by commas, in braces or not (RFC 3442).
        case routes
        case flag
    }

    /// The name of the option that, with the value `true`, disables OVN's DHCP responses for the port.
    package static let disabled = "dhcp_disabled"

    /// Option names and codes of Neutron's clients, with OVN's names (ovn-nb(5), DHCP_Options).
    private static let known4: [String: (String, Kind)] = names([
        (["netmask", "1"], "netmask", .address), (["router", "3"], "router", .address),
        (["dns-server", "6"], "dns_server", .addresses), (["log-server", "7"], "log_server", .addresses),
        (["lpr-server", "9"], "lpr_server", .addresses), (["host-name", "12"], "hostname", .text),
        (["domain-name", "15"], "domain_name", .text), (["swap-server", "16"], "swap_server", .address),
        (["ip-forward-enable", "19"], "ip_forward_enable", .flag), (["policy-filter", "21"], "policy_filter", .addresses),
        (["default-ttl", "23"], "default_ttl", .number(1...255)), (["mtu", "26"], "mtu", .number(68...65_535)),
        (["router-discovery", "31"], "router_discovery", .flag), (["router-solicitation", "32"], "router_solicitation", .address),
        (["arp-timeout", "35"], "arp_cache_timeout", .number(0...255)), (["ethernet-encap", "36"], "ethernet_encap", .flag),
        (["tcp-ttl", "37"], "tcp_ttl", .number(1...255)), (["tcp-keepalive", "38"], "tcp_keepalive_interval", .number(0...255)),
        (["nis-server", "41"], "nis_server", .addresses), (["ntp-server", "42"], "ntp_server", .addresses),
        (["lease-time", "51"], "lease_time", .number(60...Int(Int32.max))), (["server-id", "54"], "server_id", .address),
        (["t1", "58"], "T1", .number(68...Int(UInt32.max))), (["t2", "59"], "T2", .number(68...Int(UInt32.max))),
        (["tftp-server", "66"], "tftp_server", .text), (["bootfile-name", "67"], "bootfile_name", .text),
        (["bootfile-name-alt"], "bootfile_name_alt", .text), (["domain-search", "119"], "domain_search_list", .domains),
        (["classless-static-route", "121"], "classless_static_route", .routes),
        (["tftp-server-address", "150"], "tftp_server_address", .addresses), (["path-prefix", "210"], "path_prefix", .text),
        (["ms-classless-static-route", "249"], "ms_classless_static_route", .routes), (["wpad", "252"], "wpad", .text),
        (["server-ip-address", "255"], "next_server", .address), (["dhcp-disabled"], disabled, .flag),
    ])
    private static let known6: [String: (String, Kind)] = names([
        (["server-id", "2"], "server_id", .hardwareAddress), (["dns-server", "23"], "dns_server", .addresses),
        (["domain-search", "24"], "domain_search", .domains), (["bootfile-name", "59"], "bootfile_name", .text),
        (["dhcp-disabled"], disabled, .flag),
    ])

    private static func names(_ table: [([String], String, Kind)]) -> [String: (String, Kind)] {
        Dictionary(uniqueKeysWithValues: table.flatMap { row in row.0.map { ($0, (row.1, row.2)) } })
    }

    /// Nil for an option that OVN does not support, or an invalid value.
    package init?(name: String, value: String, version: IPAddress.Version) {
        let table = version == .v4 ? DHCPOption.known4 : DHCPOption.known6
        guard let (ovn, kind) = table[name.lowercased().split(separator: "_").joined(separator: "-")] else { return nil }
        self.version = version
        self.name = ovn
        switch kind {
        case .address:
            guard let address = IPAddress(value), address.version == version else { return nil }
            self.value = "\(address)"
        case .addresses:
            let addresses = value.split(separator: ",").map { IPAddress($0.filter { $0 != " " }) }
            let fitting = addresses.compactMap { $0 }.filter { $0.version == version }
            guard !fitting.isEmpty, fitting.count == addresses.count else { return nil }
            self.value = fitting.count == 1 ? "\(fitting[0])" : "{" + fitting.map(\.description).joined(separator: ", ") + "}"
        case .hardwareAddress:
            guard let address = MACAddress(value), !address.isMulticast else { return nil }
            self.value = "\(address)"
        case .routes:
            guard let routes = DHCPOption.routes(value) else { return nil }
            self.value = DHCPOption.text(routes)
        case .domains:
            let domains = value.split(separator: ",", omittingEmptySubsequences: false).map { $0.filter { $0 != " " } }
            guard domains.allSatisfy(DHCPOption.isDomain) else { return nil }
            self.value = "\"\(domains.joined(separator: ","))\""
        case .number(let range):
            guard let number = Int(value), range.contains(number) else { return nil }
            self.value = String(number)
        case .flag:
            // Neutron's own option takes a word as its value, OVN's boolean options take a digit.
            if ovn == DHCPOption.disabled {
                guard value.lowercased() == "true" else { return nil }
            } else if value != "0" && value != "1" {
                return nil
            }
            self.value = value
        case .text:
            // OVN's options syntax requires quotes around strings.
            let isPlain = value.utf8.allSatisfy { $0 >= 32 && $0 < 127 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
            guard isPlain, !value.isEmpty else { return nil }
            self.value = "\"\(value)\""
        }
    }

    /// The routes of option 121; nil for anything else.
    package static func routes(_ text: String) -> [StaticRoute]? {
        var text = text.filter { $0 != " " }
        if text.hasPrefix("{"), text.hasSuffix("}") { text = String(text.dropFirst().dropLast()) }
        let words = text.split(separator: ",", omittingEmptySubsequences: false)
        guard !words.isEmpty, words.count.isMultiple(of: 2) else { return nil }
        var routes: [StaticRoute] = []
        for index in stride(from: 0, to: words.count, by: 2) {
            guard let destination = IPNetwork(String(words[index])), let nexthop = IPAddress(String(words[index + 1])),
                destination.version == .v4, nexthop.version == .v4
            else { return nil }
            routes.append(StaticRoute(destination: destination, nexthop: nexthop))
        }
        return routes
    }

    /// Routes in OVN's notation.
    package static func text(_ routes: [StaticRoute]) -> String {
        "{" + routes.map { "\($0.destination),\($0.nexthop)" }.joined(separator: ", ") + "}"
    }

    /// Whether the text is a domain name (RFC 1035, 2.3.1, also with leading digits).
    private static func isDomain(_ text: String) -> Bool {
        let labels = text.split(separator: ".", omittingEmptySubsequences: false)
        return text.utf8.count <= 253
            && labels.allSatisfy { label in
                (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
                    && label.utf8.allSatisfy { byte in
                        UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte | 0x20 || UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte
                            || byte == UInt8(ascii: "-")
                    }
            }
    }
}
