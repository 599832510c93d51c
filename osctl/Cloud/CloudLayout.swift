import Kernel
import ServiceCatalog

/// The paths, ports and names of one cloud on this machine, derived only from the state directory and the port offset.
struct CloudLayout: Sendable, Hashable {
    /// Absolute path.
    let state: String
    /// Added to every port; also distinguishes the bridges and external networks of two clouds.
    let portOffset: Int
    /// Hypervisor hosts: the machine itself and simulated ones.
    var hostCount = 1
    /// The names of optional services that the cloud has.
    var extraServices: [String] = []
    /// Decided at each start; until then, the type that works everywhere.
    var datapath = Datapath.userspace

    /// Longest state path, because paths of sockets below it must fit into the 107 bytes of a Unix socket's address.
    static let statePathMax = 70
    static let portOffsetMax = 9_000

    // MARK: Ports

    var postgresPort: Int { 15_432 + portOffset }
    var amqpPort: Int { 5_673 + portOffset }
    var erlangDistributionPort: Int { 25_673 + portOffset }
    var epmdPort: Int { 14_369 + portOffset }
    func port(_ standard: Int) -> Int { standard + portOffset }

    // MARK: Services

    /// The API services of this cloud: all that are not optional, and the optional ones that were asked for.
    var services: [CloudService] { CloudService.all.filter { !$0.isOptional || extraServices.contains($0.name) } }
    /// Every service of this cloud with a process.
    var processes: [CloudService] { services + CloudService.gateways }

    // MARK: Directories and files

    var run: String { state + "/run" }
    var log: String { state + "/log" }
    var secrets: String { state + "/secrets" }
    var postgres: String { state + "/postgres" }
    var rabbitmq: String { state + "/rabbitmq" }
    var ovn: String { state + "/ovn" }
    var images: String { state + "/images" }
    /// The certificate authorities of controllers of bare metal.
    var controllerCertificates: String { state + "/controller-certificates" }
    /// The database user's password in libpq's password file (mode 0600).
    var databasePasswords: String { secrets + "/pgpass" }
    var configuration: String { state + "/wolke.yaml" }
    var clouds: String { state + "/clouds.yaml" }
    var description: String { state + "/cloud.json" }
    var supervisorRecord: String { run + "/supervisor.json" }
    var partsRecord: String { run + "/parts.json" }
    var progress: String { run + "/progress" }
    /// Exists while network devices and namespaces with this cloud's names belong to this cloud. Another cloud may have the same
    /// offset, and stopping this one must not remove its devices.
    var devicesMark: String { run + "/devices" }
    /// Exists, with the datapath's type, while the cloud's bridges use it.
    var datapathMark: String { run + "/datapath" }
    var fleetRecord: String { run + "/simulated-hosts.json" }
    /// A recent file with the name of a simulated host makes that host silent.
    var silencedHosts: String { run + "/silenced-hosts" }
    /// Exists while an operator keeps a part stopped.
    func heldMark(_ part: String) -> String { "\(run)/held-\(part)" }

    var northboundSocket: String { ovn + "/run/nb.sock" }
    var southboundSocket: String { ovn + "/run/sb.sock" }

    // MARK: Network

    private var suffix: String { portOffset == 0 ? "" : String(portOffset) }
    /// OVS creates its internal ports in the machine's own network namespace, so each cloud needs its own names.
    var integrationBridge: String { "wbr-int" + suffix }
    var externalBridge: String { "wbr-ex" + suffix }
    var tunnelBridge: String { "wbr-ul" + suffix }
    var datapathDevice: String { "wovs-dp" + suffix }
    static let physicalNetwork = "physnet1"

    /// The external network's range; the machine has its first address on the external bridge.
    var externalNetwork: IPNetwork {
        let value = portOffset < CloudLayout.offsetsPerBlock ? block(172, 24) : block(10, 152)
        return IPNetwork(IPAddress(version: .v4, value: value), prefixLength: 24)
    }

    private static let offsetsPerBlock = 250

    /// The /24 of this cloud's offset; each offset has a different one.
    func block(_ first: Int, _ second: Int) -> UInt128 {
        let third = 4 + portOffset % CloudLayout.offsetsPerBlock
        return UInt128(first) << 24 | UInt128(second + portOffset / CloudLayout.offsetsPerBlock) << 16 | UInt128(third) << 8
    }

    func externalAddress(_ host: Int) -> IPAddress {
        IPAddress(version: .v4, value: externalNetwork.network.value + UInt128(host))
    }

    // MARK: Connections

    /// The connection as the owner of the cloud's database, who has no other rights.
    var databaseURL: String { databaseURL(user: "wolke", database: "wolke") + " passfile=\(databasePasswords)" }
    /// The connection as PostgreSQL's superuser, which is only possible for the server's user and root.
    func superuserURL(database: String) -> String { databaseURL(user: "postgres", database: database) }

    private func databaseURL(user: String, database: String) -> String {
        "host=\(postgres)/run port=\(postgresPort) user=\(user) dbname=\(database)"
    }

    /// Problems of the chosen directory and offset.
    func problem() -> String? {
        if state.utf8.count > CloudLayout.statePathMax {
            return
                """
                the state directory's path is longer than \(CloudLayout.statePathMax) bytes, too long for the \
                sockets in it: \(state)\nChoose a shorter one, for example STATE=/var/tmp/cloud.
                """
        }
        // libpq and libvirt connection strings are not quoted; such characters would need it.
        if state.utf8.contains(where: { !CloudLayout.isPlain($0) }) {
            return "the state directory's path may hold letters, digits and / . _ - + only: \(state)"
        }
        if !(0...CloudLayout.portOffsetMax).contains(portOffset) {
            return "PORT_OFFSET must be from 0 to \(CloudLayout.portOffsetMax), not \(portOffset)"
        }
        if !(1...HostLayout.countMax).contains(hostCount) {
            return "there can be 1 to \(HostLayout.countMax) hosts, not \(hostCount)"
        }
        let optional = CloudService.optional.map(\.name)
        if let unknown = extraServices.first(where: { !optional.contains($0) }) {
            return "there is no optional service '\(unknown)', only \(optional.joined(separator: ", "))"
        }
        return nil
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "/"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "+"):
            true
        default: false
        }
    }
}
