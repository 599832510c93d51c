import Contracts
package import Kernel
import NetworkCore
import ServiceKit
package import Settings
package import WebAPI

/// Network settings of the operator.
package struct NetworkOptions: Sendable {
    /// MTU of the physical network between the hosts, in bytes; tunnel networks get `geneveOverhead` less.
    package var physicalMTU = 1500
    /// Physical networks that provider networks may use.
    package var physicalNetworks = ["physnet1"]
    /// Name servers for subnets that specify none.
    package var dnsServers: [IPAddress] = []
    package var availabilityZone = "nova"
    package var dhcpLeaseSeconds = 43_200
    /// Whether floating IPs are translated on the hypervisor of the server instead of the gateway chassis.
    package var distributedFloatingIPs = false
    /// The default quotas of projects.
    package var quota = NetworkQuota.make()

    package init() {}

    /// Outer IPv4, UDP and Geneve headers with options, and the inner Ethernet header.
    static let geneveOverhead = 58

    var tenantMTU: Int { physicalMTU - NetworkOptions.geneveOverhead }
}

extension NetworkOptions {
    /// Keys of the section `network`.
    package static let settingsKeys: [SettingsKey] =
        [
            .string(
                "ovn_nb", default: "unix:/run/ovn/ovnnb_db.sock",
                """
                OVN northbound database: `unix:PATH`, `tcp:HOST:PORT` or `ssl:HOST:PORT`; the addresses of a \
                cluster are separated by commas.
                """
            ),
            .string("ovn_sb", default: "unix:/run/ovn/ovnsb_db.sock", "OVN southbound database, in the same form."),
            .string(
                "ovn_private_key", default: "", "PEM file with Network's private key for `ssl:` addresses of OVN's databases."),
            .string("ovn_certificate", default: "", "PEM file with Network's certificate."),
            .string("ovn_ca_certificate", default: "", "PEM file with the certificate authorities of OVN's databases."),
            .list(
                "physical_networks", default: ["physnet1"],
                "Physical networks (names in `ovn-bridge-mappings`) that provider networks may use."),
            .integer("physical_mtu", default: 1500, in: 1280...65_535, "MTU of the physical network between the hosts, in bytes."),
            .list("dns_servers", default: [], "Name servers for subnets that specify none."),
            .duration("dhcp_lease", default: "12h", "How long a DHCP lease is valid."),
            .string("availability_zone", default: "nova", "Name of the availability zone of networks and routers."),
            .boolean(
                "distributed_floating_ips", default: false,
                "Whether floating IPs are translated on the hypervisor of the server; every hypervisor then needs the external network."),
            .duration("audit_interval", default: "5m", "Time between audits, which compare OVN with the database."),
        ] + QuotaDeclaration.settingsKeys(NetworkQuotas.all)

    /// - Throws: 400 naming the invalid setting.
    init(_ settings: Settings) throws {
        physicalMTU = settings.integer("network.physical_mtu")
        physicalNetworks = settings.list("network.physical_networks")
        dnsServers = try settings.list("network.dns_servers").map { text in
            guard let address = IPAddress(text) else {
                throw ResourceError.badRequest("network.dns_servers: '\(text)' is not an IP address")
            }
            return address
        }
        availabilityZone = settings.string("network.availability_zone")
        dhcpLeaseSeconds = Int(settings.duration("network.dhcp_lease").microseconds / 1_000_000)
        distributedFloatingIPs = settings.boolean("network.distributed_floating_ips")
        quota = NetworkQuota.make(settings)
    }
}
