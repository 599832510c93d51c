package import Kernel

/// An address of a port.
package struct FixedIP: Hashable, Sendable {
    package let subnetID: UUID128
    package let address: IPAddress

    package init(subnetID: UUID128, address: IPAddress) {
        self.subnetID = subnetID
        self.address = address
    }
}

/// An allowed address pair: another address that a guest may use on its port.
package struct AddressPair: Hashable, Sendable {
    package let mac: MACAddress?
    /// An address or a network, as written in the API.
    package let ip: String

    package init(mac: MACAddress?, ip: String) {
        self.mac = mac
        self.ip = ip
    }

    /// - Parameter mac: the port's own hardware address, which is the default of pairs; nil if it is not known yet.
    /// - Throws: 400 naming a duplicate pair.
    package static func refuseDuplicates(_ pairs: [AddressPair], mac: MACAddress?) throws {
        var seen: Set<AddressPair> = []
        for pair in pairs where !seen.insert(AddressPair(mac: pair.mac ?? mac, ip: pair.ip)).inserted {
            let owner = (pair.mac ?? mac)?.description ?? "the port's own"
            throw ResourceError.badRequest(
                "Request contains duplicate address pair: ip_address '\(pair.ip)' with mac_address '\(owner)' comes twice.",
                type: "DuplicateAddressPairInRequest")
        }
    }
}

/// A port with the data that the compiler needs.
package struct Port: Hashable, Sendable {
    package var id: UUID128
    package var networkID: UUID128
    package var projectID: String
    package var name: String
    package var mac: MACAddress
    package var adminStateUp: Bool
    package var deviceID: String
    package var deviceOwner: String
    package var fixedIPs: [FixedIP]
    package var addressPairs: [AddressPair]
    package var portSecurityEnabled: Bool
    package var securityGroups: [UUID128]
    /// DHCP options of this port, in addition to those of its subnets.
    package var dhcpOptions: [DHCPOption]
    /// For each address of this port, the ports of the network with the address among their allowed address pairs.
    package var parents: [IPAddress: [UUID128]]
    /// The host to which the port is bound; empty for none.
    package var host = ""
    /// Other hosts to which it is bound, because its server moves between hosts.
    package var otherBindings: [Binding] = []

    /// A binding in addition to the active one.
    package struct Binding: Hashable, Sendable {
        package let host: String
        /// Whether the server is expected on this host. If not, the host had the server before.
        package let isExpected: Bool

        package init(host: String, isExpected: Bool) {
            self.host = host
            self.isExpected = isExpected
        }
    }

    package init(
        id: UUID128, networkID: UUID128, projectID: String, name: String = "", mac: MACAddress,
        adminStateUp: Bool = true, deviceID: String = "", deviceOwner: String = "", fixedIPs: [FixedIP] = [],
        addressPairs: [AddressPair] = [], portSecurityEnabled: Bool = true, securityGroups: [UUID128] = [],
        dhcpOptions: [DHCPOption] = [], parents: [IPAddress: [UUID128]] = [:]
    ) {
        self.id = id
        self.networkID = networkID
        self.projectID = projectID
        self.name = name
        self.mac = mac
        self.adminStateUp = adminStateUp
        self.deviceID = deviceID
        self.deviceOwner = deviceOwner
        self.fixedIPs = fixedIPs
        self.addressPairs = addressPairs
        self.portSecurityEnabled = portSecurityEnabled
        self.securityGroups = securityGroups
        self.dhcpOptions = dhcpOptions
        self.parents = parents
    }

    /// OVN's options of a port whose server moves between hosts. In between, two chassis have its interface and must not compete for it.
    /// The second one lets packets pass when its guest announces itself (by RARP, which QEMU sends).
    package var chassisOptions: [String: String]? {
        guard !host.isEmpty, !otherBindings.isEmpty else { return nil }
        let expected = otherBindings.filter(\.isExpected).map(\.host).sorted()
        let requested = ["requested-chassis": ([host] + expected).joined(separator: ",")]
        return expected.isEmpty ? requested : requested.merging(["activation-strategy": "rarp"]) { $1 }
    }

    /// A virtual IP and the ports of the guests that share it. Tools like keepalived reserve an address with an unbound
    /// port and list it in the allowed address pairs of the guests' ports. As in Neutron only the first address counts.
    package var virtualAddress: (address: IPAddress, parents: [UUID128])? {
        guard !DeviceOwner.isTrusted(deviceOwner), !DeviceOwner.isServer(deviceOwner) else { return nil }
        for fixed in fixedIPs {
            if let parents = parents[fixed.address], !parents.isEmpty { return (fixed.address, parents.sorted()) }
        }
        return nil
    }

    /// Whether security groups and the default drop apply.
    package var isSecured: Bool { portSecurityEnabled && !DeviceOwner.isTrusted(deviceOwner) }
}
