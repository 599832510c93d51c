import Kernel

/// An option that DHCP hands out to one port beside those of its subnet.
package struct DHCPOption: Hashable, Sendable {
    package let version: IPAddress.Version
    /// OVN's name of the option.
    package let name: String
    /// In OVN's notation.
    package let value: String

    private enum Kind {
        case address
        case addresses
        case number(ClosedRange<Int>)
        case text
        case flag
    }

    /// Names as Neutron's clients write them, and what OVN calls them (ovn-nb(5), DHCP_Options).
    private static let known4: [String: (String, Kind)] = [
        "router": ("router", .address), "3": ("router", .address), "netmask": ("netmask", .address),
        "dns-server": ("dns_server", .addresses), "6": ("dns_server", .addresses),
        "log-server": ("log_server", .addresses), "lpr-server": ("lpr_server", .addresses),
        "swap-server": ("swap_server", .address), "nis-server": ("nis_server", .addresses),
        "ntp-server": ("ntp_server", .addresses), "42": ("ntp_server", .addresses),
        "tftp-server-address": ("tftp_server_address", .addresses), "150": ("tftp_server_address", .addresses),
        "server-ip-address": ("tftp_server_address", .addresses),
        "mtu": ("mtu", .number(68...65_535)), "26": ("mtu", .number(68...65_535)),
        "lease-time": ("lease_time", .number(60...Int(Int32.max))), "ip-forward-enable": ("ip_forward_enable", .flag),
        "router-discovery": ("router_discovery", .flag), "ethernet-encap": ("ethernet_encap", .flag),
        "default-ttl": ("default_ttl", .number(1...255)), "tcp-ttl": ("tcp_ttl", .number(1...255)),
        "domain-name": ("domain_name", .text), "15": ("domain_name", .text), "host-name": ("hostname", .text),
        "bootfile-name": ("bootfile_name", .text), "67": ("bootfile_name", .text),
        "tftp-server": ("tftp_server", .text), "66": ("tftp_server", .text), "wpad": ("wpad", .text),
        "path-prefix": ("path_prefix", .text),
    ]
    private static let known6: [String: (String, Kind)] = [
        "dns-server": ("dns_server", .addresses), "domain-search": ("domain_search", .text),
        "bootfile-name": ("bootfile_name", .text),
    ]

    /// Nil for a name that OVN has no option for, or a value that does not fit it.
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
        case .number(let range):
            guard let number = Int(value), range.contains(number) else { return nil }
            self.value = String(number)
        case .flag:
            guard value == "0" || value == "1" else { return nil }
            self.value = value
        case .text:
            // Stands between quotes in OVN's own language.
            let isPlain = value.utf8.allSatisfy { $0 >= 32 && $0 < 127 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
            guard isPlain, !value.isEmpty else { return nil }
            self.value = "\"\(value)\""
        }
    }
}
