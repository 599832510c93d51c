package import ComputeAgentCore
package import Kernel
import Libvirt

/// The host's ovs-vswitchd: its process, and queries through its control socket.
package struct SwitchControl: Sendable {
    /// Holds `ovs-vswitchd.pid` and `ovs-vswitchd.PID.ctl`.
    private let directory: String
    private let runner: CommandRunner
    private let threads: WorkerThreads

    package init(directory: String, runner: CommandRunner, threads: WorkerThreads) {
        self.directory = directory
        self.runner = runner
        self.threads = threads
    }

    /// The process that runs now; nil when there is none.
    ///
    /// - Throws: `FileError`.
    package func process() async throws -> SwitchProcess? {
        let file = directory + "/ovs-vswitchd.pid"
        return try await threads.run {
            let text = String(decoding: try Files.read(file) ?? [], as: UTF8.self)
            guard let pid = Int32(text.filter { !$0.isWhitespace }), pid > 0,
                // The kernel's files have no size.
                Files.exists("/proc/\(pid)/stat")
            else { return nil }
            return SwitchProcess(pid: pid, stat: SwitchControl.stat(pid))
        }
    }

    /// Empty when the process has just ended.
    private static func stat(_ pid: Int32) -> String {
        do { return String(decoding: try Files.read("/proc/\(pid)/stat", offset: 0, count: 4096), as: UTF8.self) } catch {
            return ""
        }
    }

    /// Identifies the kernel's present boot.
    ///
    /// - Throws: `FileError`.
    package func bootID() async throws -> String {
        try await threads.run {
            let bytes = try Files.read("/proc/sys/kernel/random/boot_id", offset: 0, count: 64)
            return String(decoding: bytes, as: UTF8.self).filter { !$0.isWhitespace }
        }
    }

    /// The limits of tracked connections that the datapath has, by zone.
    ///
    /// - Throws: `CommandError`.
    package func limits(_ process: SwitchProcess, datapath: String) async throws -> [Int: Int] {
        ZoneLimits.parse(try await ask(process, ["dpctl/ct-get-limits", SwitchControl.name(datapath)]))
    }

    /// - Throws: `CommandError`.
    package func apply(_ plan: ZoneLimits.Plan, _ process: SwitchProcess, datapath: String) async throws {
        for command in ZoneLimits.commands(plan, datapath: SwitchControl.name(datapath)) { _ = try await ask(process, command) }
    }

    /// All bridges of one type share a datapath of this name.
    private static func name(_ datapath: String) -> String { "\(datapath)@ovs-\(datapath)" }

    private func ask(_ process: SwitchProcess, _ arguments: [String]) async throws -> String {
        let socket = "\(directory)/ovs-vswitchd.\(process.pid).ctl"
        return try await runner.run(["ovs-appctl", "-T", "5", "-t", socket] + arguments, timeout: .seconds(10))
    }
}
