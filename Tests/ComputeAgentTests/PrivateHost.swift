import Commands
import Contracts
import FileTransfer
import Foundation
import JSON
import Kernel
import Logging
import Messaging
import NIOCore
import OVSDB
import Synchronization
import Telemetry
import TestKit
import Testing
import WebAPI

@testable import ComputeAgentCore
@testable import ComputeAgentService
@testable import Libvirt

/// A private hypervisor host for tests: libvirtd in private directories and a switch's database. It ends with the test process,
/// with its guests.
final class PrivateHost: Sendable {
    static let shared = Task { try await PrivateHost() }

    let directory: String
    private let processes = Mutex<[String: pid_t]>([:])
    private static let running = Mutex<PrivateHost?>(nil)
    static let bridge = "br-int"

    var libvirtURI: String { "qemu:///system?socket=\(directory)/run/libvirt-sock" }
    var switchSocket: String { directory + "/switch.sock" }

    private init() async throws {
        directory = "/tmp/wolke-agent-\(ProcessInfo.processInfo.processIdentifier)"
        let missing = ["/usr/sbin/libvirtd", "/usr/sbin/virtlogd", "/usr/bin/qemu-system-x86_64", "/usr/sbin/ovsdb-server", "/dev/net/tun"]
            .filter { !Files.exists($0) }
        guard missing.isEmpty, geteuid() == 0 else {
            throw ResourceError.internalError(
                "the agent's tests need root and \(missing.joined(separator: ", ")): run `make install`")
        }
        for name in ["etc", "lib", "run", "log", "cache"] { try Files.makeDirectory("\(directory)/\(name)", mode: 0o755) }
        let libvirtd = """
            unix_sock_ro_perms = "0700"
            unix_sock_rw_perms = "0700"
            auth_unix_ro = "none"
            auth_unix_rw = "none"
            listen_tls = 0
            listen_tcp = 0
            log_outputs = "3:file:\(directory)/libvirtd.log"
            """
        let qemu = """
            user = "libvirt-qemu"
            group = "kvm"
            security_driver = "none"
            dynamic_ownership = 1
            remember_owner = 0
            namespaces = [ "mount" ]
            seccomp_sandbox = 1
            cgroup_controllers = []
            """
        for (name, text) in [("libvirtd.conf", libvirtd), ("qemu.conf", qemu), ("virtlogd.conf", "")] {
            try Files.replace("\(directory)/etc/\(name)", with: Array(text.utf8))
        }
        PrivateHost.running.withLock { $0 = self }
        atexit { PrivateHost.running.withLock { $0 }?.remove() }
        try run("ovsdb-tool", ["/usr/bin/ovsdb-tool", "create", directory + "/switch.db", "/usr/share/openvswitch/vswitch.ovsschema"])
        try startSwitch()
        try mounted("virtlogd", ["/usr/sbin/virtlogd", "-f", "/etc/libvirt/virtlogd.conf", "-p", "/run/libvirt/virtlogd.pid"])
        try await wait(for: directory + "/run/virtlogd-sock")
        try await startLibvirt()
    }

    func startLibvirt() async throws {
        try mounted("libvirtd", ["/usr/sbin/libvirtd", "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/libvirtd.pid"])
        try await wait(for: directory + "/run/libvirt-sock")
    }

    /// Kills libvirtd; its guests keep running.
    func killLibvirt() throws {
        let pid = try libvirtPID()
        if pid > 0 { kill(pid, SIGKILL) }
        if let old = processes.withLock({ $0.removeValue(forKey: "libvirtd") }) { Spawn.wait(for: old) }
        try Files.remove(directory + "/run/libvirt-sock")
    }

    private func startSwitch() throws {
        try launch(
            "switch",
            [
                "/usr/sbin/ovsdb-server", directory + "/switch.db", "--remote=punix:\(switchSocket)", "--unixctl=\(directory)/switch.ctl",
                "-vconsole:off", "-vsyslog:off", "--no-chdir",
            ])
        try run(
            "ovs-vsctl",
            [
                "/usr/bin/ovs-vsctl", "--retry", "--timeout=10", "--db=unix:\(switchSocket)", "--no-wait", "--", "init", "--",
                "--may-exist", "add-br", PrivateHost.bridge,
            ])
    }

    func restartSwitch() throws {
        if let old = processes.withLock({ $0.removeValue(forKey: "switch") }) {
            kill(old, SIGKILL)
            Spawn.wait(for: old)
        }
        try Files.remove(switchSocket)
        try startSwitch()
    }

    /// The pid of a guest's QEMU; nil if there is none.
    func emulatorPID(_ serverID: String) throws -> Int32? {
        let text = String(decoding: try Files.read("\(directory)/run/qemu/\(serverID).pid") ?? [], as: UTF8.self)
        guard let pid = Int32(text.trimmingCharacters(in: .whitespacesAndNewlines)), kill(pid, 0) == 0 else { return nil }
        return pid
    }

    func libvirtPID() throws -> Int32 {
        let text = String(decoding: try Files.read(directory + "/run/libvirtd.pid") ?? [], as: UTF8.self)
        return Int32(text.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
    }

    /// The disks that QEMU has opened without an explicit format, from libvirt's logs of all domains so far.
    func guessedFormats() -> [String] {
        do {
            return try Files.list(directory + "/log/qemu").flatMap { name in
                let text = String(decoding: try Files.read("\(directory)/log/qemu/\(name)") ?? [], as: UTF8.self)
                return DiskArguments.commandLines(inLog: text).flatMap(DiskArguments.problems)
            }
        } catch {
            return ["\(error)"]
        }
    }

    func mountNamespace(of pid: Int32) throws -> String {
        try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/ns/mnt")
    }

    // MARK: processes

    private func mounted(_ name: String, _ arguments: [String]) throws {
        // libvirtd's directories are fixed; each instance sees its own through private mounts.
        let script = """
            for d in etc:/etc/libvirt lib:/var/lib/libvirt run:/run/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
              mkdir -p "${d#*:}" && mount --bind "$0/${d%%:*}" "${d#*:}" || exit 1
            done
            # As udev has it.
            if [ -c /dev/kvm ] && [ "$(stat -c %G /dev/kvm)" != kvm ]; then
              mkdir -p "$0/dev" && mount -t tmpfs -o mode=0711 tmpfs "$0/dev" && mknod -m 660 "$0/dev/kvm" c 10 232 \
                && chgrp kvm "$0/dev/kvm" && mount --bind "$0/dev/kvm" /dev/kvm || exit 1
            fi
            exec "$@"
            """
        try launch(name, ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, directory] + arguments)
    }

    private func spawn(_ arguments: [String]) throws -> pid_t {
        try Spawn.start(arguments, environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C"])
    }

    private func launch(_ name: String, _ arguments: [String]) throws {
        let pid = try spawn(arguments)
        processes.withLock { $0[name] = pid }
    }

    private func run(_ name: String, _ arguments: [String]) throws {
        let status = Spawn.wait(for: try spawn(arguments))
        guard status == 0 else {
            throw ResourceError.internalError("\(arguments.joined(separator: " ")) failed with \(status)")
        }
    }

    private func wait(for path: String) async throws {
        for _ in 0..<200 {
            if Files.exists(path) { return }
            try await SystemTime().sleep(for: .milliseconds(50))
        }
        throw ResourceError.internalError("\(path) did not appear within 10 s")
    }

    private func remove() {
        let pids = processes.withLock { Array($0.values) }
        for pid in pids { kill(pid, SIGKILL) }
        do {
            for name in try Files.list(directory + "/run/qemu") where name.hasSuffix(".pid") {
                if let pid = try emulatorPID(String(name.dropLast(4))) { kill(pid, SIGKILL) }
            }
            for pid in pids { Spawn.wait(for: pid) }
            try Files.removeTree(directory)
        } catch { print("could not remove the private host: \(error)") }
    }
}

/// The image source for tests: data by image id.
final class TestImages: ImageSource {
    private let images: Mutex<[String: [UInt8]]>
    let downloads = Mutex<Int>(0)

    init(_ images: [String: [UInt8]]) { self.images = Mutex(images) }

    func download(_ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void)
        async throws
    {
        guard let bytes = images.withLock({ $0[imageID] }) else { throw PermanentFailure("image \(imageID) does not exist") }
        downloads.withLock { $0 += 1 }
        for start in stride(from: 0, to: bytes.count, by: 65536) {
            try await receive(ByteBuffer(bytes: bytes[start..<min(start + 65536, bytes.count)]))
        }
    }

    static let talking = "ffffffff-0000-0000-0000-000000000001"
    static let stopping = "ffffffff-0000-0000-0000-000000000002"

    /// Disks of one boot sector: it says a word on the serial line; then it waits for ever, or powers itself off.
    static var all: TestImages { TestImages([talking: disk(stops: false), stopping: disk(stops: true)]) }

    static var bytes: [UInt8] { disk(stops: false) }

    private static func disk(stops: Bool) -> [UInt8] {
        // xor ax,ax; mov ds,ax; mov si,text; next: lodsb; test al,al; jz end; mov dx,0x3f8; out dx,al; jmp next
        var code: [UInt8] = [0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0, 0x7c, 0xac, 0x84, 0xc0, 0x74, 6, 0xba, 0xf8, 3, 0xee, 0xeb, 0xf5]
        // end: mov dx,0x604; mov ax,0x2000; out dx,ax: ACPI's power-off
        if stops { code += [0xba, 4, 6, 0xb8, 0, 0x20, 0xef] }
        code += [0xf4, 0xeb, 0xfd]
        code[5] = UInt8(code.count)
        code += Array("hello from the guest\n".utf8) + [0]
        var disk = code + [UInt8](repeating: 0, count: (1 << 20) - code.count)
        (disk[510], disk[511]) = (0x55, 0xaa)
        return disk
    }
}

/// The Image service as the agent uploads to it: data by image id.
final class TestUploads: ImageTarget {
    private struct State {
        var data: [String: [UInt8]] = [:]
        var subjects: [ActingSubject] = []
        /// Errors of the next uploads, in order; nil is a success.
        var answers: [ResourceError?] = []
        var statuses: [String: String] = [:]
        var isHeld = false
        var begun = 0
    }

    private let state = Mutex(State())

    var begun: Int { state.withLock { $0.begun } }
    var subjects: [ActingSubject] { state.withLock { $0.subjects } }
    func data(_ id: String) -> [UInt8]? { state.withLock { $0.data[id] } }
    func answer(_ errors: [ResourceError?]) { state.withLock { $0.answers = errors } }
    /// Uploads do not end until this is false.
    func hold(_ isHeld: Bool) { state.withLock { $0.isHeld = isHeld } }

    func upload(_ imageID: String, from path: String, as subject: ActingSubject, _ progress: @escaping @Sendable (Int) -> Void)
        async throws
    {
        state.withLock { state in
            state.begun += 1
            state.subjects.append(subject)
        }
        while state.withLock({ $0.isHeld }) { try await SystemTime().sleep(for: .milliseconds(20)) }
        if let error = state.withLock({ $0.answers.isEmpty ? nil : $0.answers.removeFirst() }) { throw error }
        let bytes = try Files.read(path) ?? []
        progress(bytes.count)
        state.withLock { $0.data[imageID] = bytes }
    }

    func look(_ imageID: String, as subject: ActingSubject) async throws -> UploadedImage {
        state.withLock { UploadedImage(status: $0.data[imageID] == nil ? "queued" : "active", size: $0.data[imageID]?.count) }
    }
}

/// A host of fixed size.
struct TestFacts: HostFacts {
    func inventory() async throws -> HostInventory {
        HostInventory(cpus: 4, memoryMiB: 4096, diskGiB: 40, virtType: .qemu, hypervisorVersion: 7_002_000)
    }
    func sandboxProblem() async -> String? { nil }
    func network() async -> SwitchReport { SwitchReport(datapath: "netdev") }
    func usage() async throws -> (freeMemoryMiB: Int, freeDiskGiB: Int) { (1024, 20) }
    func uptime() async throws -> HostUptimeQuestion.Answer { HostUptimeQuestion.Answer(uptime: 3600, loadAverages: [1, 0.5, 0.25]) }
}

/// An agent's parts in the test's process, with a bus whose other end the test holds.
final class TestAgent: Sendable {
    private let host: PrivateHost
    let bus = InMemoryBus()
    let fleet: ServerFleet
    let hypervisor: Hypervisor
    let switchDatabase: OVSDBClient
    let disks: ServerDisks
    let images: ImageCache
    private let tasks: [Task<Void, any Error>]
    private let reports = Mutex<[ObservedReportDocument]>([])

    struct ObservedReportDocument: Sendable {
        let body: JSONValue
        var power: String? { body["power_state"]?.stringValue }
        var state: String? { body["state"]?.stringValue }
        var server: String? { body["server_id"]?.stringValue }
    }

    init(
        _ host: PrivateHost, state: String, images: TestImages = .all, uploads: TestUploads = TestUploads(), dedicated: [Int] = []
    ) async throws {
        self.host = host
        var log = Logger(label: "agent")
        log.logLevel = ProcessInfo.processInfo.environment["WOLKE_TEST_LOG"] == nil ? .critical : .debug
        let ambient = Ambient()
        let threads = WorkerThreads(name: "agent", count: 4)
        let runner = CommandRunner(threads: threads)
        hypervisor = Hypervisor(uri: host.libvirtURI, log: log)
        switchDatabase = OVSDBClient(
            OVSDBConfiguration(
                endpoints: [.unix(path: host.switchSocket)], database: "Open_vSwitch", monitors: SwitchPorts.monitors),
            ambient: ambient, logger: log)
        let directory = MetadataDirectory()
        let ports = SwitchPorts(client: switchDatabase, bridge: PrivateHost.bridge)
        let links = Links(runner: runner, threads: threads)
        var options = AgentOptions(
            stateDirectory: state,
            domains: DomainOptions(virtType: .qemu, diskCache: "writeback", emulator: "/usr/bin/qemu-system-x86_64"))
        options.auditInterval = .milliseconds(500)
        options.shutdownTimeout = .seconds(1)
        options.imageLifetime = .seconds(3600)
        options.parallelStarts = 2
        options.dedicatedProcessors = dedicated
        options.tpmDirectory = host.directory + "/lib/swtpm"
        let module = try AgentModule.make(
            options,
            AgentSurroundings(
                host: "test", hypervisor: hypervisor, events: hypervisor.events(), links: links, bridge: ports,
                metadata: MetadataNetworks(
                    links: links, ports: ports, directory: directory, random: SystemRandom(), metrics: Metrics(),
                    limits: .small, log: log),
                directory: directory, disks: SandboxedDiskMaker(RecordedTools.shared.sandbox), images: images,
                uploads: uploads, facts: TestFacts(), threads: threads, copyThreads: threads, bus: bus, ambient: ambient,
                metrics: Metrics(), log: log))
        (fleet, disks, self.images) = (module.fleet, module.disks, module.images)
        try await module.restore()
        // The plane is the test itself.
        let loops = module.loops.filter { !["listen", "announce"].contains($0.name) }
        tasks =
            [
                Task { [switchDatabase] in await switchDatabase.run() },
                Task { [hypervisor] in await hypervisor.keepConnected(every: .milliseconds(200), time: SystemTime()) },
                Task { [fleet, switchDatabase] in try await fleet.followSwitch(switchDatabase) },
            ] + loops.map { loop in Task { try await loop.run() } }
        try await switchDatabase.waitUntilConnected()
    }

    /// Stops the agent; guests keep running.
    func stop() async {
        for task in tasks { task.cancel() }
        await hypervisor.close()
        #expect(RecordedTools.shared.newProblems() == [], "S2: disks are opened without a format")
        #expect(host.guessedFormats() == [], "S2: QEMU opens disks without a format")
    }

    /// All reports about a server so far.
    func reports(_ serverID: String) -> [ObservedReportDocument] {
        let news = bus.take(from: .computeAgents).map { ObservedReportDocument(body: $0.body) }
        return reports.withLock {
            $0 += news
            return $0.filter { $0.server == serverID }
        }
    }

    /// Waits for a matching report.
    func waitForReport(
        _ serverID: String, within seconds: Int = 60, _ fits: (ObservedReportDocument) -> Bool
    ) async throws -> JSONValue {
        for _ in 0..<(seconds * 20) {
            if let found = reports(serverID).last(where: fits) { return found.body }
            try await SystemTime().sleep(for: .milliseconds(50))
        }
        let all = reports(serverID).map(\.body.description).joined(separator: "\n")
        throw ResourceError.internalError("no such report within \(seconds) s; there were:\n\(all)")
    }
}
