import Glibc
import JSON
import Kernel
import Synchronization

/// Open vSwitch and OVN with their own databases.
struct NetworkParts: Sendable {
    let layout: CloudLayout
    let host: HostLayout
    private let lock = DatapathLock()

    init(layout: CloudLayout, host: HostLayout) {
        self.layout = layout
        self.host = host
    }

    /// The databases of the whole cloud run on the first host.
    var all: [Part] {
        host.isMachine ? [switchDatabase, northbound, southbound, northd, vswitchd, controller] : [switchDatabase, vswitchd, controller]
    }

    private var runtime: String { host.ovn + "/run" }
    private var environment: [String: String] {
        [
            "PATH": Tool.searchPath, "LC_ALL": "C.UTF-8", "OVS_RUNDIR": runtime, "OVN_RUNDIR": runtime,
            "OVS_LOGDIR": layout.log, "OVN_LOGDIR": layout.log, "OVS_DBDIR": host.ovn, "OVN_DBDIR": host.ovn,
        ]
    }

    private func launch(_ name: String, _ arguments: [String]) -> Launch {
        Launch(
            arguments: host.command(arguments) + ["-vconsole:warn", "-vsyslog:off"], environment: environment,
            output: layout.log + "/\(name).log")
    }

    // MARK: Databases

    private func database(_ name: String, file: String, schema: String, socket: String, remotes: [String], address: String) -> Part {
        let path = host.ovn + "/" + file
        return Part(
            name: name, group: .infrastructure, address: address,
            launch: launch(
                name,
                ["/usr/sbin/ovsdb-server", path, "--remote=punix:\(socket)"] + remotes.map { "--remote=\($0)" }
                    + ["--unixctl=\(runtime)/\(name).ctl", "--no-chdir"]),
            needs: [],
            prepare: {
                try Machine.makeDirectory(runtime, mode: 0o755)
                if !Machine.exists(path) { try await Tool.require(["ovsdb-tool", "create", path, schema]) }
            },
            probe: {
                try await Probe.ovsdb(socket: socket)
                return try await version("ovsdb-server")
            })
    }

    private var switchDatabase: Part {
        database(
            "ovsdb-switch" + host.partSuffix, file: "switch.db", schema: "/usr/share/openvswitch/vswitch.ovsschema",
            socket: host.vswitchSocket, remotes: ["db:Open_vSwitch,Open_vSwitch,manager_options"],
            address: host.vswitchSocket)
    }

    private var northbound: Part {
        database(
            "ovn-northbound", file: "northbound.db", schema: "/usr/share/ovn/ovn-nb.ovsschema",
            socket: layout.northboundSocket, remotes: [], address: layout.northboundSocket)
    }

    private var southbound: Part {
        var part = database(
            "ovn-southbound", file: "southbound.db", schema: "/usr/share/ovn/ovn-sb.ovsschema",
            socket: layout.southboundSocket, remotes: [], address: layout.southboundSocket)
        part.settle = { try await removeFormerHosts() }
        return part
    }

    /// A host that was removed from the cloud must not be chosen as a gateway.
    private func removeFormerHosts() async throws {
        let command = ["ovn-sbctl", "--db=unix:\(layout.southboundSocket)", "--timeout=5", "--no-leader-only"]
        let names = try await Tool.require(command + ["--bare", "--columns=name", "list", "Chassis"])
        for name in names.split(separator: "\n").map(String.init) where !layout.hosts.contains(where: { $0.name == name }) {
            try await Tool.require(command + ["--if-exists", "chassis-del", name])
        }
    }

    private func version(_ program: String) async throws -> String {
        let text = try await Tool.require([program, "--version"])
        return text.split(separator: "\n").first?.split(separator: " ").last.map(String.init) ?? ""
    }

    // MARK: Daemons

    private var northd: Part {
        let control = runtime + "/ovn-northd.ctl"
        return Part(
            name: "ovn-northd", group: .infrastructure, address: "",
            launch: launch(
                "ovn-northd",
                [
                    "/usr/bin/ovn-northd", "--ovnnb-db=unix:\(layout.northboundSocket)",
                    "--ovnsb-db=unix:\(layout.southboundSocket)", "--unixctl=\(control)", "--no-chdir",
                ]),
            needs: ["ovn-northbound", "ovn-southbound"],
            probe: {
                let status = try await Tool.require(["ovn-appctl", "-T", "3", "-t", control, "status"])
                guard status.contains("active") else { throw CloudError("is not active: \(status)") }
                return try await version("ovn-northd")
            })
    }

    private var vswitchd: Part {
        Part(
            name: "ovs-vswitchd" + host.partSuffix, group: .infrastructure,
            address: host.isMachine
                ? "\(layout.externalBridge) has \(layout.externalAddress(1))/\(layout.externalNetwork.prefixLength)" : "",
            launch: launch(
                "ovs-vswitchd" + host.partSuffix,
                ["/usr/sbin/ovs-vswitchd", "unix:\(host.vswitchSocket)", "--pidfile=\(runtime)/ovs-vswitchd.pid", "--no-chdir"]
                    + (layout.datapath == .kernel ? [] : ["--disable-system"])),
            needs: ["ovsdb-switch" + host.partSuffix],
            prepare: {
                try await configureSwitch()
                try await start.prepare()
                guard host.isMachine, layout.datapath == .userspace else { return }
                try await lock.take()
                try await freeDatapathName()
            },
            probe: {
                try await Tool.require(
                    ["ovs-appctl", "-T", "3", "-t", "ovs-vswitchd", "version"], environment: ["OVS_RUNDIR": runtime])
                for bridge in bridges {
                    guard try await host.hasDevice(bridge) else { throw CloudError("the bridge \(bridge) does not exist yet") }
                }
                return try await version("ovs-vswitchd") + ", \(layout.datapath.words)"
            },
            settle: {
                if host.isMachine {
                    if layout.datapath == .userspace {
                        try await renameDatapath()
                        lock.release()
                    }
                    try await bringUp(
                        layout.externalBridge, "\(layout.externalAddress(1))/\(layout.externalNetwork.prefixLength)")
                }
                if layout.hostCount > 1 { try await bringUp(layout.tunnelBridge, "\(host.tunnelAddress)/24") }
                try await start.finish(controllerRuns: try await controllerRuns(), SystemTime())
            })
    }

    /// Configuration of the switch around its start.
    var start: SwitchStart {
        SwitchStart(socket: host.vswitchSocket, bridge: layout.integrationBridge, runtime: runtime, datapath: layout.datapath)
    }

    private func controllerRuns() async throws -> Bool {
        try await Tool.run(["ovn-appctl", "-T", "1", "-t", "ovn-controller", "version"], environment: ["OVN_RUNDIR": runtime]).status == 0
    }

    private var bridges: [String] {
        [layout.integrationBridge, layout.externalBridge] + (layout.hostCount > 1 ? [layout.tunnelBridge] : [])
    }

    private func bringUp(_ bridge: String, _ address: String) async throws {
        try await Tool.require(host.command(["ip", "address", "replace", address, "dev", bridge]))
        try await Tool.require(host.command(["ip", "link", "set", bridge, "up"]))
    }

    private var controller: Part {
        Part(
            name: "ovn-controller" + host.partSuffix, group: .infrastructure, address: "",
            launch: launch(
                "ovn-controller" + host.partSuffix,
                ["/usr/bin/ovn-controller", "unix:\(host.vswitchSocket)", "--pidfile=\(runtime)/ovn-controller.pid", "--no-chdir"]),
            needs: ["ovs-vswitchd" + host.partSuffix, "ovn-southbound"],
            probe: {
                let status = try await Tool.require(
                    ["ovn-appctl", "-T", "3", "-t", "ovn-controller", "connection-status"], environment: ["OVN_RUNDIR": runtime])
                guard status.contains("connected"), !status.contains("not connected") else {
                    throw CloudError("has no connection to the southbound database")
                }
                return try await version("ovn-controller")
            })
    }

    // MARK: Configuration of the switch

    private func configureSwitch() async throws {
        let name = host.name
        let datapath = layout.datapath.rawValue
        let connection = ["ovs-vsctl", "--db=unix:\(host.vswitchSocket)", "--no-wait", "--timeout=5"]
        try await Tool.require(connection + ["init"])
        try await Tool.require(
            connection
                + [
                    "--", "set", "Open_vSwitch", ".", "external_ids:system-id=\(name)", "external_ids:hostname=\(name)",
                    "external_ids:ovn-remote=unix:\(layout.southboundSocket)", "external_ids:ovn-encap-type=geneve",
                    "external_ids:ovn-encap-ip=\(host.tunnelAddress)",
                    // Without it the userspace datapath ends a tunnel at any address of the host, also at those that guests reach.
                    "external_ids:ovn-set-local-ip=true", "external_ids:ovn-bridge=\(layout.integrationBridge)",
                    "external_ids:ovn-bridge-datapath-type=\(datapath)", "external_ids:ovn-monitor-all=true",
                    "external_ids:ovn-bridge-mappings=\(CloudLayout.physicalNetwork):\(layout.externalBridge)",
                    "--", "--may-exist", "add-br", layout.integrationBridge,
                    "--", "set", "Bridge", layout.integrationBridge, "datapath_type=\(datapath)", "fail_mode=secure",
                    "other_config:disable-in-band=true",
                    "--", "--may-exist", "add-br", layout.externalBridge,
                    "--", "set", "Bridge", layout.externalBridge, "datapath_type=\(datapath)",
                ] + formerCables + cables)
    }

    /// For several hosts: a bridge for the tunnels, which can leave the userspace datapath only through its own ports, and the
    /// cables to the other hosts. The bridge has its own address, so that the machine does not answer for the cable.
    private var cables: [String] {
        guard layout.hostCount > 1 else { return [] }
        let others = layout.hosts.filter { $0.number != host.number }
        let tunnel = host.isMachine ? others.map { $0.device("ul") } : [HostLayout.tunnelDevice]
        let external = host.isMachine ? others.map { $0.device("ex") } : [HostLayout.externalDevice]
        let mac = "02:57:4f:00:00:0\(host.number)"
        let datapath = layout.datapath.rawValue
        return [
            "--", "--may-exist", "add-br", layout.tunnelBridge,
            "--", "set", "Bridge", layout.tunnelBridge, "datapath_type=\(datapath)", "other_config:hwaddr=\"\(mac)\"",
        ] + tunnel.flatMap { ["--", "--may-exist", "add-port", layout.tunnelBridge, $0] }
            + external.flatMap { ["--", "--may-exist", "add-port", layout.externalBridge, $0] }
    }

    /// Removes the ports to hosts that the cloud no longer has.
    private var formerCables: [String] {
        guard host.isMachine else { return [] }
        var commands: [String] = []
        for number in 2...HostLayout.countMax where number > layout.hostCount {
            let device = HostLayout(cloud: layout, number: number).device
            commands += ["--", "--if-exists", "del-port", layout.externalBridge, device("ex")]
            commands += ["--", "--if-exists", "del-port", device("ul")]
        }
        if layout.hostCount == 1 { commands += ["--", "--if-exists", "del-br", layout.tunnelBridge] }
        return commands
    }

    /// Every userspace datapath starts with a device called ovs-netdev, so only one can start at a time; the device is then
    /// renamed. One left over by a killed process is removed.
    private static let datapathName = "ovs-netdev"

    private func freeDatapathName() async throws {
        for _ in 0..<100 {
            guard Machine.exists("/sys/class/net/\(NetworkParts.datapathName)") else { return }
            // Fails while a process has it open.
            _ = try await Tool.run(["ip", "tuntap", "del", "dev", NetworkParts.datapathName, "mode", "tap"])
            try await SystemTime().sleep(for: .milliseconds(100))
        }
        lock.release()
        throw CloudError(
            "another Open vSwitch on this machine uses the userspace datapath (device \(NetworkParts.datapathName)); stop it first")
    }

    private func renameDatapath() async throws {
        guard Machine.exists("/sys/class/net/\(NetworkParts.datapathName)") else { return }
        _ = try await Tool.run(["ip", "link", "delete", layout.datapathDevice])
        try await Tool.require(["ip", "link", "set", NetworkParts.datapathName, "name", layout.datapathDevice])
    }

    /// The taps and other devices of the compute agent, according to the switch's stopped database.
    private func agentDevices() async -> [String] {
        let database = host.ovn + "/switch.db"
        guard Machine.exists(database) else { return [] }
        let question = #"["Open_vSwitch",{"op":"select","table":"Interface","where":[],"columns":["name","external_ids"]}]"#
        do {
            let answer = try await Tool.run(["ovsdb-tool", "query", database, question])
            let rows = try JSONValue.parse(answer.output).arrayValue?.first?["rows"]?.arrayValue ?? []
            return rows.compactMap { row in
                let isOurs = row["external_ids"]?.arrayValue?.last?.arrayValue?.contains {
                    $0.arrayValue?.first?.stringValue == "wolke-kind"
                }
                return isOurs == true ? row["name"]?.stringValue : nil
            }
        } catch {
            // Remaining devices are taken over by the next start.
            return []
        }
    }

    /// Removes the devices that Open vSwitch leaves behind when it stops.
    func removeDevices() async {
        let bridges = [layout.externalBridge, layout.integrationBridge, layout.tunnelBridge, layout.datapathDevice]
        for device in await agentDevices() + bridges where Machine.exists("/sys/class/net/\(device)") {
            do {
                _ = try await Tool.run(["ip", "link", "delete", device])
            } catch {
                // Without the program nothing more can be done; the next start takes over the devices.
                return
            }
        }
        guard layout.datapath == .kernel, Machine.exists(layout.datapathMark) else { return }
        do {
            _ = try await Tool.run(["ovs-dpctl", "del-dp", Datapath.kernelDevice])
        } catch {
            // Like above.
        }
    }
}

/// A lock between the clouds of one machine, held while a datapath device has its initial name.
final class DatapathLock: Sendable {
    private static let path = "/run/lock/wolke-datapath"
    private let descriptor = Mutex<Int32>(-1)

    /// - Throws: `CloudError` if another cloud holds the lock for more than 30 s.
    func take() async throws {
        if descriptor.withLock({ $0 >= 0 }) { return }
        let opened = open(DatapathLock.path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard opened >= 0 else { throw Machine.failure("open", DatapathLock.path) }
        for _ in 0..<600 {
            if flock(opened, LOCK_EX | LOCK_NB) == 0 {
                descriptor.withLock { $0 = opened }
                return
            }
            try await SystemTime().sleep(for: .milliseconds(50))
        }
        close(opened)
        throw CloudError("another cloud has been starting its switch for 30 s")
    }

    func release() {
        descriptor.withLock {
            if $0 >= 0 { close($0) }
            $0 = -1
        }
    }
}
