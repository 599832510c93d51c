import Commands
package import ComputeAgentCore
import Glibc
import GuestKeys
import Kernel
package import Settings
package import WebAPI

/// The agent's configuration, checked.
package struct AgentSettings: Sendable {
    package var host: String
    package var stateDirectory: String
    package var libvirtURI: String
    package var ovsdb: String
    package var integrationBridge: String
    /// Directory of ovs-vswitchd's pid file and control socket.
    package var switchRuntime: String
    /// Connections that the switch tracks for one port; 0 for any number.
    package var connectionsPerPort: Int
    /// Nil: find out by trying.
    package var virtType: VirtType?
    package var emulator: String
    package var cpuMode: String?
    package var cpuModel: String
    package var machine: String?
    /// Nil: find out by trying.
    package var diskCache: String?
    package var nicOffloads: Bool
    package var vncListen: String?
    package var heartbeatInterval: Duration
    package var auditInterval: Duration
    /// After it a guest that does not shut down is stopped.
    package var shutdownTimeout: Duration
    package var imageLifetime: Duration
    /// Numeric id of the user under which tools read images.
    package var sandboxUser: Int
    package var parallelStarts: Int
    /// How guests move to and from other hosts.
    package var moves = MoveOptions()
    package var reservedCPUs: Int
    /// Processors that can be dedicated to servers.
    package var dedicatedCPUs: Set<Int>
    /// Whether libvirt can set shares and quotas of processor time.
    package var hasProcessorRates: Bool
    /// The directory in which libvirt keeps the state of trusted platform modules.
    package var tpmDirectory: String
    package var reservedMemoryMiB: Int
    package var reservedDiskGiB: Int
    /// Promised amounts per real one.
    package var cpuRatio: Double
    package var memoryRatio: Double
    package var diskRatio: Double
    /// Limits of connections to the metadata service, per network and per guest.
    package var metadataLimits: ConnectionLimits

    /// All keys of the section `agent`.
    package static let keys: [SettingsKey] = [
        .string("host", default: nil, "This host's name in the cloud; by default the machine's name."),
        .string("state_directory", default: "/var/lib/wolke/agent", "Disks, image cache and records of the servers."),
        .string("libvirt_uri", default: "qemu:///system", "libvirt's connection URI."),
        .string("ovsdb", default: "unix:/run/openvswitch/db.sock", "Open vSwitch's database: `unix:PATH` or `tcp:HOST:PORT`."),
        .string("integration_bridge", default: "br-int", "OVN's integration bridge."),
        .string(
            "switch_runtime", default: nil,
            """
            Directory of ovs-vswitchd's pid file and control socket; by default the directory of the socket in \
            `ovsdb`, or /run/openvswitch.
            """
        ),
        .integer(
            "connections_per_port", default: 65_536,
            "Maximum number of tracked connections of one port; 0 means no limit ([operate.md](operate.md#tracked-connections))."),
        .choice("virt_type", ["auto", "kvm", "qemu"], default: "auto", "`auto` uses KVM if a test guest runs on it."),
        .string("emulator", default: "/usr/bin/qemu-system-x86_64", "Path of QEMU."),
        .choice(
            "cpu_mode", ["auto", "host-passthrough", "host-model", "custom"], default: "auto",
            "The guests' processor mode; `auto` is host-model with KVM and `cpu_model` without."),
        .string("cpu_model", default: "qemu64", "The processor model for `custom`."),
        .string("machine", default: nil, "QEMU's machine type; by default q35 with KVM and pc without."),
        .choice(
            "disk_cache", ["auto", "none", "writeback", "writethrough", "directsync", "unsafe"], default: "auto",
            "Cache mode of disks; `auto` is none if the file system supports direct I/O, otherwise writeback."),
        .boolean(
            "nic_offloads", default: false,
            "Whether checksums and segmentation are offloaded to the switch; must be off on the userspace datapath."),
        .string(
            "vnc_listen", default: nil,
            "Address on which the guests' VNC displays listen as well; without it only consoles reach them."),
        .duration("heartbeat_interval", default: "2s", "Interval of the agent's heartbeat messages."),
        .duration("audit_interval", default: "15s", "Interval at which the agent compares all servers with their desired state."),
        .duration("shutdown_timeout", default: "60s", "How long a guest may take to shut down before it is stopped."),
        .duration("image_lifetime", default: "1d", "How long an unused image is cached."),
        .integer(
            "sandbox_user", default: Sandbox.defaultUser, in: 1...65_533,
            "Numeric user and group id, used by nothing else, of the tools that read images."),
        .integer("parallel_starts", default: 4, in: 1...256, "Number of servers whose disks are built, or that are started, concurrently."),
        .string(
            "migration_uri", default: nil,
            "libvirt's connection URI of this host, as other hosts reach it; by default qemu+tls://HOST/system with this host's name."),
        .string(
            "migration_address", default: nil,
            "Name or address of this host to which other hosts send the memory of guests; by default libvirt's choice."),
        .integer("migration_connections", default: 1, in: 1...16, "Number of connections that carry the memory of one guest."),
        .boolean("migration_tls", default: false, "Whether the memory of guests is encrypted during a live migration."),
        .boolean(
            "migration_auto_converge", default: true,
            "Whether to slow down a guest that changes its memory faster than it can be sent."),
        .boolean(
            "migration_post_copy", default: false,
            "Whether forcing a live migration to complete switches it to post-copy; otherwise the guest is paused."),
        .integer("parallel_migrations", default: 1, in: 1...16, "Number of guests that leave this host at the same time."),
        .integer("reserved_vcpus", default: 0, "Number of processors reserved for the host."),
        .string(
            "dedicated_cpus", default: "",
            "Processors for servers with `hw:cpu_policy=dedicated`, such as `2-7,^4`; the others are for all other servers."),
        .boolean(
            "cpu_rates", default: false,
            "Whether libvirt has the control group `cpu` here, which `quota:cpu_*` needs."),
        .string("tpm_directory", default: "/var/lib/libvirt/swtpm", "Where libvirt keeps the state of trusted platform modules."),
        .integer("reserved_memory_mb", default: 512, "Memory reserved for the host, in MiB."),
        .integer("reserved_disk_gb", default: 0, "Disk space reserved for the host, in GiB."),
        .string("cpu_allocation_ratio", default: "4", "Allocation ratio of processors: virtual processors per processor."),
        .string("memory_allocation_ratio", default: "1", "Allocation ratio of memory."),
        .string("disk_allocation_ratio", default: "1", "Allocation ratio of disk space."),
        .integer(
            "metadata_connections", default: 64, in: 4...10_000,
            """
            Maximum number of connections to the metadata service of one network. Over the limit, the one that has \
            been idle longest is closed.
            """
        ),
        .integer(
            "metadata_connections_per_guest", default: 16, in: 2...10_000,
            "Maximum number of connections from one guest address to the metadata service."),
    ]

    /// - Throws: `SettingsError`.
    package init(_ settings: Settings) throws {
        func ratio(_ key: String) throws -> Double {
            let text = settings.string("agent.\(key)")
            guard let value = Double(text), value > 0, value <= 1000 else {
                throw SettingsError(["agent.\(key): \"\(text)\" is not a number above 0 and up to 1000"])
            }
            return value
        }
        func unlessAuto(_ key: String) -> String? {
            let word = settings.string("agent.\(key)")
            return word == "auto" ? nil : word
        }
        host = settings.optionalString("agent.host") ?? AgentSettings.machineName()
        stateDirectory = settings.string("agent.state_directory")
        libvirtURI = settings.string("agent.libvirt_uri")
        ovsdb = settings.string("agent.ovsdb")
        integrationBridge = settings.string("agent.integration_bridge")
        switchRuntime = settings.optionalString("agent.switch_runtime") ?? AgentSettings.runtime(of: ovsdb)
        connectionsPerPort = settings.integer("agent.connections_per_port")
        virtType = unlessAuto("virt_type").flatMap { VirtType(rawValue: $0) }
        emulator = settings.string("agent.emulator")
        cpuMode = unlessAuto("cpu_mode")
        cpuModel = settings.string("agent.cpu_model")
        machine = settings.optionalString("agent.machine")
        diskCache = unlessAuto("disk_cache")
        nicOffloads = settings.boolean("agent.nic_offloads")
        vncListen = settings.optionalString("agent.vnc_listen")
        heartbeatInterval = settings.duration("agent.heartbeat_interval")
        auditInterval = settings.duration("agent.audit_interval")
        shutdownTimeout = settings.duration("agent.shutdown_timeout")
        imageLifetime = settings.duration("agent.image_lifetime")
        sandboxUser = settings.integer("agent.sandbox_user")
        parallelStarts = settings.integer("agent.parallel_starts")
        moves.uri = settings.optionalString("agent.migration_uri") ?? "qemu+tls://\(host)/system"
        moves.address = settings.optionalString("agent.migration_address")
        moves.connections = settings.integer("agent.migration_connections")
        moves.encrypts = settings.boolean("agent.migration_tls")
        moves.slowsDown = settings.boolean("agent.migration_auto_converge")
        moves.allowsPostCopy = settings.boolean("agent.migration_post_copy")
        moves.parallel = settings.integer("agent.parallel_migrations")
        guard MigrationXML.isUsable(uri: moves.uri) else {
            throw SettingsError(["agent.migration_uri: \"\(moves.uri)\" is not a connection URI of libvirt's QEMU driver"])
        }
        if let address = moves.address, !MigrationXML.isUsable(address: address) {
            throw SettingsError(["agent.migration_address: \"\(address)\" is neither a host name nor an address"])
        }
        reservedCPUs = settings.integer("agent.reserved_vcpus")
        reservedMemoryMiB = settings.integer("agent.reserved_memory_mb")
        let dedicated = settings.string("agent.dedicated_cpus")
        guard let list = dedicated.isEmpty ? [] : ProcessorList.read(dedicated, largest: AgentSettings.largestProcessor) else {
            throw SettingsError(["agent.dedicated_cpus: \"\(dedicated)\" is not a list of processors such as 2-7,^4"])
        }
        dedicatedCPUs = list
        hasProcessorRates = settings.boolean("agent.cpu_rates")
        tpmDirectory = settings.string("agent.tpm_directory")
        reservedDiskGiB = settings.integer("agent.reserved_disk_gb")
        cpuRatio = try ratio("cpu_allocation_ratio")
        memoryRatio = try ratio("memory_allocation_ratio")
        diskRatio = try ratio("disk_allocation_ratio")
        metadataLimits = .small
        metadataLimits.connectionsMax = settings.integer("agent.metadata_connections")
        metadataLimits.connectionsPerSourceMax = settings.integer("agent.metadata_connections_per_guest")
        metadataLimits.idleTimeout = .seconds(30)
        guard stateDirectory.hasPrefix("/") else {
            throw SettingsError(["agent.state_directory: \"\(stateDirectory)\" is not absolute"])
        }
    }

    private static let largestProcessor = 8191

    /// The processors for servers without dedicated ones, as a list; nil if all processors are available to them.
    ///
    /// - Parameter online: the processors of the machine, as the kernel lists them.
    /// - Throws: `SettingsError` if a dedicated processor does not exist.
    package func sharedProcessors(online: String) throws -> String? {
        guard !dedicatedCPUs.isEmpty else { return nil }
        let all = ProcessorList.read(online.filter { !$0.isWhitespace }, largest: AgentSettings.largestProcessor) ?? []
        guard dedicatedCPUs.isSubset(of: all) else {
            let missing = ProcessorList.text(dedicatedCPUs.subtracting(all))
            throw SettingsError(["agent.dedicated_cpus: the machine has no processors \(missing); it has \(ProcessorList.text(all))"])
        }
        let shared = all.subtracting(dedicatedCPUs)
        return shared.isEmpty ? nil : ProcessorList.text(shared)
    }

    /// Open vSwitch keeps its database's socket and its daemons' sockets in one directory.
    private static func runtime(of ovsdb: String) -> String {
        guard ovsdb.hasPrefix("unix:/"), let slash = ovsdb.lastIndex(of: "/") else { return "/run/openvswitch" }
        return String(ovsdb[..<slash].dropFirst("unix:".count))
    }

    private static func machineName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        gethostname(&buffer, buffer.count - 1)
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
