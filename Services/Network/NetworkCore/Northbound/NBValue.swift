package import Kernel

/// The northbound tables that this control plane writes, by their names in OVN.
package enum NBTable: String, Sendable, Hashable, CaseIterable {
    case logicalSwitch = "Logical_Switch"
    case logicalSwitchPort = "Logical_Switch_Port"
    case logicalRouter = "Logical_Router"
    case logicalRouterPort = "Logical_Router_Port"
    case staticRoute = "Logical_Router_Static_Route"
    case nat = "NAT"
    case portGroup = "Port_Group"
    case acl = "ACL"
    case dhcpOptions = "DHCP_Options"
    case gatewayChassis = "Gateway_Chassis"

    /// Columns with many values: changed by element. All other columns have at most one value.
    package var manyValued: [String] {
        switch self {
        case .logicalSwitch: ["ports", "acls"]
        case .logicalSwitchPort: ["addresses", "port_security"]
        case .logicalRouter: ["ports", "static_routes", "nat"]
        case .logicalRouterPort: ["networks", "gateway_chassis"]
        case .portGroup: ["ports", "acls"]
        case .staticRoute, .nat, .acl, .dhcpOptions, .gatewayChassis: []
        }
    }

    /// Columns that hold other rows.
    package var referenceColumns: [String] {
        switch self {
        case .logicalSwitch: ["ports", "acls"]
        case .logicalRouter: ["ports", "static_routes", "nat"]
        case .logicalRouterPort: ["gateway_chassis"]
        case .portGroup: ["ports", "acls"]
        case .logicalSwitchPort, .staticRoute, .nat, .acl, .dhcpOptions, .gatewayChassis: []
        }
    }

    /// Columns that own other rows: in rows of this control plane they may only contain its own rows.
    package var ownedColumns: [String] { self == .portGroup ? ["acls"] : referenceColumns }

    /// The default value of columns that a monitor omits.
    package func unsaid(_ column: String) -> NBValue {
        switch (self, column) {
        case (.logicalSwitchPort, "type"): .string("")
        case (.acl, "log"): .boolean(false)
        default: .none
        }
    }

    /// Columns that the control plane reads back.
    package var columns: [String] {
        switch self {
        case .logicalSwitch: ["name", "ports", "other_config", "external_ids"]
        case .logicalSwitchPort:
            [
                "name", "type", "options", "tag", "addresses", "port_security", "up", "enabled", "dhcpv4_options",
                "dhcpv6_options", "external_ids",
            ]
        case .logicalRouter: ["name", "ports", "static_routes", "nat", "enabled", "options", "external_ids"]
        case .logicalRouterPort:
            ["name", "gateway_chassis", "options", "networks", "mac", "enabled", "ipv6_ra_configs", "external_ids"]
        case .staticRoute: ["ip_prefix", "nexthop", "output_port", "policy", "options", "external_ids"]
        case .nat:
            ["type", "external_ip", "external_mac", "logical_ip", "logical_port", "options", "external_ids"]
        case .portGroup: ["name", "ports", "acls", "external_ids"]
        case .acl: ["priority", "direction", "match", "action", "name", "log", "severity", "external_ids"]
        case .dhcpOptions: ["cidr", "options", "external_ids"]
        case .gatewayChassis: ["name", "chassis_name", "priority", "external_ids"]
        }
    }
}

/// The identity of a row, constant over its lifetime and stored in `external_ids`.
package struct NBKey: Hashable, Sendable, CustomStringConvertible {
    package let table: NBTable
    package let id: String
    /// FNV-1a hash of the id, computed once because keys are looked up often. Clients cannot choose ids, so collisions
    /// cannot be forced.
    private let digest: UInt64

    package init(_ table: NBTable, _ id: String) {
        self.table = table
        self.id = id
        var digest: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in id.utf8 { digest = (digest ^ UInt64(byte)) &* 0x100_0000_01b3 }
        self.digest = digest
    }

    package static func == (left: NBKey, right: NBKey) -> Bool {
        left.digest == right.digest && left.table == right.table && left.id == right.id
    }

    package func hash(into hasher: inout Hasher) { hasher.combine(digest) }

    package func _rawHashValue(seed: Int) -> Int { UUID128(high: digest, low: digest)._rawHashValue(seed: seed) }

    package var description: String { "\(table.rawValue)(\(id))" }

    /// `external_ids` entries that mark a row as owned by this control plane. A row without an id of its own is the main
    /// row of its subject.
    package static let idEntry = "wolke:id"
    package static let subjectEntry = "wolke:subject"

    /// Whether an entry of `external_ids` is written by this control plane, other than the marks; entries of others are
    /// kept.
    static func isLabel(_ entry: String) -> Bool {
        entry.hasPrefix("wolke:") && entry != idEntry && entry != subjectEntry
    }
}

/// One element of a column.
package enum NBAtom: Hashable, Sendable {
    case string(String)
    case integer(Int)
    case boolean(Bool)
    /// A row by its key; resolved to `uuid` or `named` in a transaction.
    case row(NBKey)
    case uuid(UUID128)
    /// A row that is inserted by the same transaction.
    case named(String)
}

/// Columns by name.
package typealias NBColumns = SmallMap<String, NBValue>

/// The entries of a map column.
package typealias NBEntries = SmallMap<String, String>

/// The value of a column: a scalar is a set of one, an absent optional the empty set.
package enum NBValue: Hashable, Sendable {
    case set(SmallSet<NBAtom>)
    case map(NBEntries)

    package static let none = NBValue.set([])
    package static func string(_ value: String) -> NBValue { .set(SmallSet(.string(value))) }
    package static func integer(_ value: Int) -> NBValue { .set(SmallSet(.integer(value))) }
    package static func boolean(_ value: Bool) -> NBValue { .set(SmallSet(.boolean(value))) }
    package static func strings(_ values: some Sequence<String>) -> NBValue {
        .set(SmallSet(values.lazy.map { .string($0) }))
    }
    package static func row(_ key: NBKey?) -> NBValue { .set(key.map { SmallSet(.row($0)) } ?? []) }

    package var atoms: SmallSet<NBAtom> { if case .set(let atoms) = self { atoms } else { [] } }
    package var entries: NBEntries { if case .map(let entries) = self { entries } else { [:] } }
    package var isEmpty: Bool { atoms.isEmpty && entries.isEmpty }
}

/// A desired row.
package struct NBRow: Hashable, Sendable {
    package let key: NBKey
    /// The row whose `parentColumn` contains this one; nil for rows without a parent.
    package let parent: NBKey?
    package let parentColumn: String
    package let columns: NBColumns

    package init(_ key: NBKey, in parent: NBKey? = nil, column: String = "", _ columns: NBColumns) {
        self.key = key
        self.parent = parent
        self.parentColumn = column
        self.columns = columns
    }
}

/// A row's membership in a port group.
package struct NBMembership: Hashable, Sendable {
    package let group: NBKey
    package let member: NBKey

    package init(group: NBKey, member: NBKey) {
        self.group = group
        self.member = member
    }
}

/// The unit of reconciliation: one resource of the API with the northbound rows derived from it.
package enum NBSubject: Hashable, Sendable, Comparable, CustomStringConvertible {
    case global
    case network(UUID128)
    case subnet(UUID128)
    case port(UUID128)
    case router(UUID128)
    case floatingIP(UUID128)
    case securityGroup(UUID128)

    package var description: String {
        switch self {
        case .global: "global"
        case .network(let id): "network/\(id)"
        case .subnet(let id): "subnet/\(id)"
        case .port(let id): "port/\(id)"
        case .router(let id): "router/\(id)"
        case .floatingIP(let id): "floatingip/\(id)"
        case .securityGroup(let id): "securitygroup/\(id)"
        }
    }

    /// Parses the text of `description`.
    package init?(_ text: String) {
        if text == "global" {
            self = .global
            return
        }
        let bytes = text.utf8
        guard let slash = bytes.firstIndex(of: UInt8(ascii: "/")), let id = UUID128(text[bytes.index(after: slash)...])
        else { return nil }
        self.init(String(text[..<slash]), id)
    }

    /// - Parameter kind: the first part of `description`.
    package init?(_ kind: String, _ id: UUID128) {
        switch kind {
        case "network": self = .network(id)
        case "subnet": self = .subnet(id)
        case "port": self = .port(id)
        case "router": self = .router(id)
        case "floatingip": self = .floatingIP(id)
        case "securitygroup": self = .securityGroup(id)
        default: return nil
        }
    }

    /// Order in which subjects are applied: referenced subjects come first.
    package var rank: Int {
        switch self {
        case .global: 0
        case .securityGroup: 1
        case .network: 2
        case .subnet: 3
        case .router: 4
        case .port: 5
        case .floatingIP: 6
        }
    }

    package var id: UUID128? {
        switch self {
        case .global: nil
        case .network(let id), .subnet(let id), .port(let id), .router(let id), .floatingIP(let id), .securityGroup(let id): id
        }
    }

    package func _rawHashValue(seed: Int) -> Int { (id ?? UUID128(high: 0, low: 0))._rawHashValue(seed: seed ^ rank) }

    /// By rank; the order within a rank is arbitrary.
    package static func < (left: NBSubject, right: NBSubject) -> Bool {
        guard left.rank == right.rank, let first = left.id, let second = right.id else { return left.rank < right.rank }
        return first < second
    }
}

/// The desired rows of one subject; empty if the subject was deleted.
package struct NBDesired: Hashable, Sendable {
    package var rows: [NBRow]
    package var memberships: SmallSet<NBMembership>

    package init(rows: [NBRow] = [], memberships: SmallSet<NBMembership> = []) {
        self.rows = rows
        self.memberships = memberships
    }

    package static let nothing = NBDesired()
}
