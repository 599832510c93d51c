package import Kernel

/// A security group with the data that the compiler needs.
package struct SecurityGroup: Hashable, Sendable {
    package var id: UUID128
    package var name: String
    package var stateful: Bool
    package var rules: [SecurityGroupRule]

    package init(id: UUID128, name: String, stateful: Bool = true, rules: [SecurityGroupRule] = []) {
        self.id = id
        self.name = name
        self.stateful = stateful
        self.rules = rules
    }
}

package struct SecurityGroupRule: Hashable, Sendable {
    package enum Direction: String, Sendable, CaseIterable {
        case ingress
        case egress
    }

    package enum EtherType: String, Sendable, CaseIterable {
        case v4 = "IPv4"
        case v6 = "IPv6"
    }

    package var id: UUID128
    package var direction: Direction
    package var etherType: EtherType
    /// The protocol as in the API: a name, a number as text, or nil for any.
    package var protocolName: String?
    /// The port range, or the type and code of ICMP.
    package var portRangeMin: Int?
    package var portRangeMax: Int?
    package var remoteNetwork: IPNetwork?
    package var remoteGroupID: UUID128?

    package init(
        id: UUID128, direction: Direction, etherType: EtherType = .v4, protocolName: String? = nil,
        portRangeMin: Int? = nil, portRangeMax: Int? = nil, remoteNetwork: IPNetwork? = nil,
        remoteGroupID: UUID128? = nil
    ) {
        self.id = id
        self.direction = direction
        self.etherType = etherType
        self.protocolName = protocolName
        self.portRangeMin = portRangeMin
        self.portRangeMax = portRangeMax
        self.remoteNetwork = remoteNetwork
        self.remoteGroupID = remoteGroupID
    }
}

/// IP protocols by Networking's names.
package enum IPProtocol {
    package static let numbers: [String: Int] = [
        "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "icmp": 1, "icmpv6": 58, "ipv6-icmp": 58, "igmp": 2,
        "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43, "ospf": 89,
        "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
    ]

    /// The protocol's number; nil for an unknown name or an invalid number.
    package static func number(_ text: String) -> Int? {
        if let number = numbers[text.lowercased()] { return number }
        guard let number = Int(text), (0...255).contains(number) else { return nil }
        return number
    }

    /// All spellings of the protocol in rules: its names and its number.
    package static func spellings(_ text: String) -> [String] {
        guard let number = number(text) else { return [] }
        return numbers.filter { $0.value == number }.map(\.key).sorted() + [String(number)]
    }

    package static let tcp = 6
    package static let udp = 17
    package static let sctp = 132
    package static let icmp = 1
    package static let icmpv6 = 58
    package static let dccp = 33
    package static let udplite = 136

    package static func hasPorts(_ number: Int) -> Bool { [tcp, udp, sctp, dccp, udplite].contains(number) }
}

extension SecurityGroupRule {
    /// - Throws: 400 with Networking's error type.
    package func validate() throws {
        if let protocolName, IPProtocol.number(protocolName) == nil {
            throw ResourceError.badRequest(
                "Security group rule protocol \(protocolName) not supported. Only protocol values "
                    + "\(IPProtocol.numbers.keys.sorted()) and integer representations [0 to 255] are supported.",
                type: "SecurityGroupRuleInvalidProtocol")
        }
        if remoteGroupID != nil, remoteNetwork != nil {
            throw ResourceError.badRequest(
                "Only remote_ip_prefix or remote_group_id may be provided.", type: "SecurityGroupMultipleRemoteEntites")
        }
        if let remoteNetwork, (remoteNetwork.version == .v4) != (etherType == .v4) {
            throw ResourceError.badRequest(
                "Conflicting value ethertype \(etherType.rawValue) for CIDR \(remoteNetwork)",
                type: "SecurityGroupRuleParameterConflict")
        }
        let number = protocolName.flatMap { IPProtocol.number($0) }
        if number == IPProtocol.icmpv6, etherType == .v4 {
            throw ResourceError.badRequest(
                "Conflicting value ethertype IPv4 for protocol \(protocolName ?? "")",
                type: "SecurityGroupEthertypeConflictWithProtocol")
        }
        try validatePorts(number)
    }

    private func validatePorts(_ number: Int?) throws {
        guard portRangeMin != nil || portRangeMax != nil else { return }
        guard let number else {
            throw ResourceError.badRequest(
                "Must also specify protocol if port range is given.", type: "SecurityGroupProtocolRequiredWithPorts")
        }
        if number == IPProtocol.icmp || number == IPProtocol.icmpv6 {
            for (field, value) in [("type", portRangeMin), ("code", portRangeMax)] {
                if let value, !(0...255).contains(value) {
                    throw ResourceError.badRequest(
                        "Invalid value for ICMP \(field) (\(field == "type" ? "port_range_min" : "port_range_max")) "
                            + "\(value). It must be 0 to 255.", type: "SecurityGroupInvalidIcmpValue")
                }
            }
            guard portRangeMin != nil else {
                throw ResourceError.badRequest(
                    "ICMP code (port-range-max) \(portRangeMax ?? 0) is provided but ICMP type (port-range-min) is "
                        + "missing.", type: "SecurityGroupMissingIcmpType")
            }
            return
        }
        guard IPProtocol.hasPorts(number) else {
            throw ResourceError.badRequest(
                "Invalid port range specified for protocol \(protocolName ?? ""): it has no ports.",
                type: "SecurityGroupInvalidProtocolForPort")
        }
        guard let low = portRangeMin, let high = portRangeMax, low <= high else {
            throw ResourceError.badRequest(
                "For TCP/UDP protocols, port_range_min must be <= port_range_max", type: "SecurityGroupInvalidPortRange")
        }
        for value in [low, high] where !(1...65_535).contains(value) {
            throw ResourceError.badRequest(
                "Invalid value for port \(value). It must be 1 to 65535.", type: "SecurityGroupInvalidPortValue")
        }
    }

    /// The key for detecting duplicate rules of a group. `0.0.0.0/0` and `::/0` are equal to no prefix.
    package var signature: String {
        let remote = remoteNetwork.flatMap { $0.prefixLength == 0 ? nil : $0 }
        let number = protocolName.flatMap { IPProtocol.number($0) }.map(String.init) ?? "any"
        return [
            direction.rawValue, etherType.rawValue, number, portRangeMin.map(String.init) ?? "",
            portRangeMax.map(String.init) ?? "", remote?.description ?? "", remoteGroupID?.description ?? "",
        ].joined(separator: "|")
    }
}
