import Kernel

/// A hypervisor host of the cloud: the machine itself, or a simulated one in its own network namespace.
struct HostLayout: Sendable, Hashable {
    let cloud: CloudLayout
    /// 1 is the machine itself.
    let number: Int

    static let countMax = 4

    var isMachine: Bool { number == 1 }
    var name: String { isMachine ? Machine.hostName() : "host-\(number)" }
    /// Distinguishes the names of this host's parts from those of the first host.
    var partSuffix: String { isMachine ? "" : "@" + name }

    // MARK: Files

    var directory: String { isMachine ? cloud.state : "\(cloud.state)/\(name)" }
    var ovn: String { directory + "/ovn" }
    var libvirt: String { directory + "/libvirt" }
    /// The agent's disks, image cache and records.
    var agent: String { directory + "/agent" }
    var namespaces: String { directory + "/netns" }
    var hostsFile: String { directory + "/hosts" }
    var configuration: String { isMachine ? cloud.configuration : directory + "/wolke.yaml" }
    var vswitchSocket: String { ovn + "/run/db.sock" }
    var libvirtSocket: String { libvirt + "/run/libvirt-sock" }
    var libvirtURI: String { "qemu:///system?socket=" + libvirtSocket }

    // MARK: Network

    /// The network namespace of a simulated host.
    var namespace: String? { isMachine ? nil : "wolke\(cloud.portOffset)-\(name)" }

    /// The machine's devices that lead to this host: management, tunnels, external network.
    func device(_ kind: String) -> String { "w\(kind)\(cloud.portOffset)h\(number)" }
    static let managementDevice = "eth0"
    static let tunnelDevice = "eth1"
    static let externalDevice = "eth2"

    /// The machine's address for this host's connections to APIs and broker.
    var machineAddress: IPAddress { isMachine ? cloud.loopback : cloud.management(number * 4 + 1) }
    /// This host's address for connections from the machine.
    var address: IPAddress { isMachine ? cloud.loopback : cloud.management(number * 4 + 2) }
    /// This host's address for guests that come from other hosts.
    var migrationAddress: IPAddress { isMachine && cloud.hostCount > 1 ? cloud.management(2 * 4 + 1) : address }
    var tunnelAddress: IPAddress { cloud.hostCount == 1 ? cloud.loopback : cloud.underlay(number) }

    /// The command, run on this host.
    func command(_ arguments: [String]) -> [String] {
        guard let namespace else { return arguments }
        return [Tool.find("ip") ?? "/usr/sbin/ip", "netns", "exec", namespace] + arguments
    }

    /// The command, run on this host with these directories in place of fixed ones.
    ///
    /// - Parameters:
    ///   - opening: a directory that other users can access in the mount namespace, regardless of the modes of its parents.
    ///   - devices: a directory for device nodes that QEMU's user may use.
    func command(
        _ arguments: [String], program: String, mounts: [(source: String, target: String)], opening: String? = nil,
        devices: String? = nil
    ) -> [String] {
        if isMachine {
            return PrivateMounts.command(program: program, mounts: mounts, opening: opening, devices: devices, arguments)
        }
        return command(
            PrivateMounts.command(
                program: program, mounts: mounts + [(source: hostsFile, target: "/etc/hosts")], hostName: name, opening: opening,
                devices: devices, arguments))
    }

    /// Whether this host has a network device of this name.
    func hasDevice(_ device: String) async throws -> Bool {
        if isMachine { return Machine.exists("/sys/class/net/\(device)") }
        return try await Tool.run(command(["ip", "link", "show", device])).status == 0
    }
}

extension CloudLayout {
    var hosts: [HostLayout] { (1...hostCount).map { HostLayout(cloud: self, number: $0) } }
    var machine: HostLayout { HostLayout(cloud: self, number: 1) }

    var loopback: IPAddress { IPAddress(version: .v4, value: 0x7f00_0001) }
    /// Addresses between the machine and its simulated hosts, which tenants cannot reach.
    func management(_ number: Int) -> IPAddress { IPAddress(version: .v4, value: block(10, 72) | UInt128(number)) }
    func underlay(_ number: Int) -> IPAddress { IPAddress(version: .v4, value: block(10, 112) | UInt128(number)) }
    /// The networks of these addresses.
    var internalNetworks: [IPNetwork] { [management(0), underlay(0)].map { IPNetwork($0, prefixLength: 24) } }
}

/// The network namespaces of simulated hosts, and the virtual cables to them.
struct SimulatedHosts: Sendable {
    let layout: CloudLayout
    /// Leaves room for a tenant's 1442 bytes in a tunnel.
    private static let underlayMTU = 1700

    private var hosts: [HostLayout] { layout.hosts.filter { !$0.isMachine } }

    /// Creates what is missing.
    func create() async throws {
        for host in hosts {
            guard let namespace = host.namespace else { continue }
            if !Machine.exists("/run/netns/" + namespace) {
                try await Tool.require(["ip", "netns", "add", namespace])
                try await Tool.require(host.command(["ip", "link", "set", "lo", "up"]))
            }
            try Machine.makeDirectory(host.namespaces)
            let names = layout.hosts.map { "\($0.isMachine ? host.machineAddress : $0.address) \($0.name)\n" }.joined()
            try Machine.write(host.hostsFile, "127.0.0.1 localhost\n" + names)
            try await cable(host, "mg", HostLayout.managementDevice)
            try await cable(host, "ul", HostLayout.tunnelDevice)
            try await cable(host, "ex", HostLayout.externalDevice)
            try await Tool.require(["ip", "address", "replace", "\(host.machineAddress)/30", "dev", host.device("mg")])
            try await Tool.require(
                host.command(["ip", "address", "replace", "\(host.address)/30", "dev", HostLayout.managementDevice]))
            // Guests move between any two hosts; their memory goes through the machine.
            let network = IPNetwork(layout.management(0), prefixLength: 24)
            try await Tool.require(host.command(["ip", "route", "replace", "\(network)", "via", "\(host.machineAddress)"]))
        }
        if !hosts.isEmpty { try await keepTenantsOut() }
    }

    /// The first of two priorities of the machine's routing rules, before those of the table `main`.
    private static let rulePriority = 5200

    /// Lets the machine answer from its internal addresses to internal addresses only. It has these addresses on devices
    /// of its own, but accepts packets for them on every device, also those of guests that arrive from the external network.
    private func keepTenantsOut() async throws {
        try await letTenantsIn()
        for rule in rules { try await Tool.require(["ip", "rule", "add"] + rule) }
    }

    /// Removes the rules of `keepTenantsOut`.
    private func letTenantsIn() async throws {
        // The status tells whether there was one.
        for rule in rules { _ = try await Tool.run(["ip", "rule", "del"] + rule) }
    }

    private var rules: [[String]] {
        layout.internalNetworks.flatMap { network in
            [
                ["pref", "\(SimulatedHosts.rulePriority)", "from", "\(network)", "to", "\(network)", "lookup", "main"],
                ["pref", "\(SimulatedHosts.rulePriority + 1)", "from", "\(network)", "prohibit"],
            ]
        }
    }

    private func cable(_ host: HostLayout, _ kind: String, _ inner: String) async throws {
        let outer = host.device(kind)
        guard !Machine.exists("/sys/class/net/" + outer), let namespace = host.namespace else { return }
        let mtu = "\(SimulatedHosts.underlayMTU)"
        try await Tool.require([
            "ip", "link", "add", outer, "mtu", mtu, "type", "veth", "peer", "name", inner, "mtu", mtu, "netns", namespace,
        ])
        // Open vSwitch gets copies of the frames, so the sender must not offload checksums to a device.
        for (command, device) in [([], outer), (host.command([]), inner)] as [([String], String)] {
            try await Tool.require(command + ["ethtool", "-K", device, "tx", "off"])
            try await Tool.require(command + ["ip", "link", "set", device, "up"])
            // On the switched cables, the bridge has the address, not the machine.
            if kind != "mg" { try await Tool.require(command + ["ip", "link", "set", device, "arp", "off"]) }
        }
    }

    /// Removes namespaces and cables of hosts, including hosts that this cloud no longer has.
    func remove() async throws {
        try await letTenantsIn()
        for number in 2...HostLayout.countMax {
            let host = HostLayout(cloud: layout, number: number)
            for kind in ["mg", "ul", "ex"] where Machine.exists("/sys/class/net/" + host.device(kind)) {
                _ = try await Tool.run(["ip", "link", "delete", host.device(kind)])
            }
            if let namespace = host.namespace, Machine.exists("/run/netns/" + namespace) {
                _ = try await Tool.run(["ip", "netns", "delete", namespace])
            }
        }
    }
}
