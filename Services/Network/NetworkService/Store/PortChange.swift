import Authorization
import Database
import JSON
import Kernel
import NetworkCore

/// The attributes of a port in a request, validated as far as possible without the database.
struct PortChange: Sendable {
    let body: JSONObject
    let mac: MACAddress?
    let fixedIPRequests: [AddressAllocator.FixedIPRequest]?
    /// Nil if not given.
    let groups: [UUID128]?
    let pairs: [AddressPair]?
    let dhcpOptions: JSONValue?
    /// Whether groups of other projects may be used.
    let anyGroup: Bool

    init(_ body: JSONObject, anyGroup: Bool) throws {
        self.body = body
        self.anyGroup = anyGroup
        mac = try body.text("mac_address").map { try PortChange.unicastMAC($0, "mac_address") }
        fixedIPRequests = try body.list("fixed_ips").map { try AddressAllocator.FixedIPRequest.parse($0) }
        if body["security_groups"]?.isNull == true {
            groups = []
        } else {
            groups = try body.list("security_groups").map { values in
                Array(Set(try values.map { try JSONObject.uuid($0.stringValue ?? "", "security_groups") })).sorted()
            }
        }
        if body["allowed_address_pairs"]?.isNull == true {
            pairs = []
        } else {
            pairs = try body.list("allowed_address_pairs").map { try PortChange.pairs($0) }
        }
        dhcpOptions = try body.list("extra_dhcp_opts").map { try DHCPOptions.checked($0) }
    }

    private static func unicastMAC(_ text: String, _ field: String) throws -> MACAddress {
        guard let mac = MACAddress(text), !mac.isMulticast, mac.value != 0 else {
            throw ResourceError.badRequest(
                "Invalid input for \(field). Reason: '\(text.prefix(32))' is not a unicast MAC address.")
        }
        return mac
    }

    private static func pairs(_ values: [JSONValue]) throws -> [AddressPair] {
        let pairs = try values.map { value -> AddressPair in
            let text = value["ip_address"]?.stringValue ?? ""
            guard let network = IPAddress(text).map({ IPNetwork($0, prefixLength: $0.version.width) }) ?? IPNetwork(text) else {
                throw ResourceError.badRequest(
                    "Invalid input for allowed_address_pairs. Reason: '\(text.prefix(64))' is neither an IP address nor a CIDR.")
            }
            try AddressRules.check(network, as: .addressPair, field: "allowed_address_pairs", text: text)
            return AddressPair(
                mac: try value["mac_address"]?.stringValue.map { try unicastMAC($0, "allowed_address_pairs") },
                ip: network.prefixLength == network.version.width ? network.network.description : network.description)
        }
        try AddressPair.refuseDuplicates(pairs, mac: nil)
        return pairs
    }

    static func json(_ pairs: [AddressPair], mac: MACAddress) -> JSONValue {
        .array(pairs.map { ["mac_address": .string(($0.mac ?? mac).description), "ip_address": .string($0.ip)] })
    }
}
