import Commands
import Foundation
import Kernel
import TestKit
import Messaging
import Synchronization

/// A private RabbitMQ node for tests: its own directory, ports and cookie; ends with the test process.
final class PrivateRabbitMQ: Sendable {
    static let shared = Task { try await PrivateRabbitMQ() }

    let port: Int
    private let distributionPort: Int
    private let epmdPort: Int
    private let directory: String
    private let process = Mutex<pid_t?>(nil)

    var address: BrokerAddress { BrokerAddress(port: port) }

    private init() async throws {
        let ports = try FreePorts.take(3)
        (port, distributionPort, epmdPort) = (ports[0], ports[1], ports[2])
        directory =
            FileManager.default.temporaryDirectory
            .appendingPathComponent("wolke-rabbitmq-\(ProcessInfo.processInfo.processIdentifier)").path
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        try Data("[].".utf8).write(to: URL(fileURLWithPath: directory + "/enabled_plugins"))
        let configuration = """
            listeners.tcp.1 = 127.0.0.1:\(port)
            loopback_users = none
            vm_memory_high_watermark.absolute = 512MB
            disk_free_limit.absolute = 50MB
            log.console = false
            """
        try Data(configuration.utf8).write(to: URL(fileURLWithPath: directory + "/rabbit.conf"))
        PrivateRabbitMQ.running.withLock { $0 = self }
        atexit { PrivateRabbitMQ.running.withLock { $0 }?.remove() }
        try await start()
    }

    private static let running = Mutex<PrivateRabbitMQ?>(nil)

    func start() async throws {
        let environment = [
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": directory,
            "ERL_EPMD_PORT": String(epmdPort), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": directory + "/mnesia", "RABBITMQ_LOG_BASE": directory + "/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": directory + "/enabled_plugins",
            "RABBITMQ_NODENAME": "test@localhost", "RABBITMQ_CONFIG_FILE": directory + "/rabbit.conf",
            "RABBITMQ_DIST_PORT": String(distributionPort), "ERL_CRASH_DUMP_SECONDS": "0",
            // The script execs the node instead of waiting for it.
            "RABBITMQ_ALLOW_INPUT": "1", "RABBITMQ_PID_FILE": directory + "/pid",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "-noshell -noinput +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1} " + guardian,
        ]
        let node = try PrivateRabbitMQ.spawn(["/usr/lib/rabbitmq/bin/rabbitmq-server"], environment, in: directory)
        process.withLock { $0 = node }
        for _ in 0..<600 {
            if PrivateRabbitMQ.connects(port) { return }
            try await SystemTime().sleep(for: .milliseconds(100))
        }
        throw ResourceError.internalError("RabbitMQ did not start in \(directory)")
    }

    /// Makes the node stop itself and its port mapper when this process has ended in any way. One shell word.
    private var guardian: String {
        let gone = #"os:cmd("(sleep\s1;epmd\s-port\s\#(epmdPort)\s-kill)>/dev/null\s2>&1\s&"),halt()"#
        let alive = "filelib:is_dir(\"/proc/\(ProcessInfo.processInfo.processIdentifier)\")"
        return "-eval spawn(fun()->F=fun(G)->timer:sleep(500),(\(alive))orelse(fun()->\(gone)end()),G(G)end,F(F)end)."
    }

    /// Kills the node, as a power failure would.
    func kill() async throws {
        end()
        for _ in 0..<1000 where PrivateRabbitMQ.connects(port) {
            try await SystemTime().sleep(for: .milliseconds(50))
        }
    }

    private func end() {
        guard let node = process.withLock({ $0.take() }) else { return }
        Foundation.kill(node, SIGKILL)
        Spawn.wait(for: node)
    }

    /// Deletes all data of the stopped node.
    func wipe() throws { try FileManager.default.removeItem(atPath: directory + "/mnesia") }

    private func remove() {
        end()
        do {
            let epmd = try PrivateRabbitMQ.spawn(
                ["/usr/bin/epmd", "-port", String(epmdPort), "-kill"], ["HOME": directory], in: directory)
            Spawn.wait(for: epmd)
            try FileManager.default.removeItem(atPath: directory)
        } catch { print("could not remove the private RabbitMQ: \(error)") }
    }

    private static func spawn(
        _ arguments: [String], _ environment: [String: String], in directory: String
    ) throws -> pid_t {
        // A dying node writes its dumps to its working directory.
        try Spawn.start(
            ["/usr/bin/env", "--chdir=\(directory)"] + arguments, environment: environment.map { "\($0)=\($1)" })
    }

    private static func connects(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        defer { close(descriptor) }
        var address = loopback(port)
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }

    private static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr = in_addr(s_addr: UInt32(0x7f00_0001).bigEndian)
        return address
    }
}
