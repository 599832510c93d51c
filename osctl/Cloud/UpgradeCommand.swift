import ArgumentParser
import Database
import Glibc
import Kernel
import Schema

extension CloudCommand {
    struct Upgrade: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Replace the running cloud's services and agents with those of this build, one after the other.",
            discussion: """
                Servers, database, broker, OVN, Open vSwitch and libvirt run on. Each service is away for as long as it takes to stop the \
                old one and to start the new one. Contracting migrations are left for `osctl db contract`.
                """)

        @OptionGroup var options: CloudOptions

        func run() async throws {
            let layout = try options.layout()
            guard let old = SupervisorRecord.running(layout) else {
                throw CloudError("no cloud runs in \(layout.state); `make up` starts it with this build")
            }
            let time = SystemTime()
            let begun = time.monotonicNanoseconds()
            // Before anything is replaced, so that a failure leaves the cloud unchanged.
            print("The schema has \(try await CloudCommand.migrate(layout)).")
            try await end(old, layout, time)
            unlink(layout.progress)
            let program = try Machine.executablePath()
            let arguments = [
                program, "cloud", "run", "--adopt", "--state", layout.state, "--port-offset", "\(layout.portOffset)", "--hosts",
                "\(layout.hostCount)", "--with", layout.extraServices.joined(separator: ","),
            ]
            var environment = Machine.environment
            environment["PORT_OFFSET"] = nil
            let launch = Launch(arguments: arguments, environment: environment, output: layout.log + "/supervisor.log")
            try await CloudCommand.follow(layout, SupervisorRecord(process: try launch.spawn()), time)
            let tenths = Int(Double(time.monotonicNanoseconds() - begun) / 1e8)
            print("The cloud runs release \(WolkeVersion.current), after \(tenths / 10).\(tenths % 10) s.")
        }

        /// SIGTERM would also stop the parts. If it is killed, the next supervisor takes over the parts.
        private func end(_ old: SupervisorRecord, _ layout: CloudLayout, _ time: SystemTime) async throws {
            old.process.signal(SIGKILL)
            guard try await old.process.waitForEnd(.seconds(10), time) else {
                throw CloudError("the supervisor (process \(old.process.pid)) does not stop")
            }
        }
    }

    /// Migrates the schema to the version that this build needs.
    ///
    /// - Returns: a description of the result.
    static func migrate(_ layout: CloudLayout) async throws -> String {
        let database = Database(DatabaseConfiguration(connectionString: layout.databaseURL, connectionsMax: 1).unlimited())
        defer { database.close() }
        let applied = try await Schema.migrate(database)
        let state = try await Schema.state(database)
        let pending = state.pending().map { ", \($0.number) waits for `osctl db contract`" }.joined()
        return "version \(state.newest)" + (applied.isEmpty ? "" : ", applied \(applied.count)") + pending
    }
}

extension RecordedPart {
    /// Processes that an earlier supervisor left running, by part; infrastructure parts only if they were ready.
    static func inherited(_ layout: CloudLayout) -> [String: RecordedPart] {
        let running = all(layout).filter { part in
            part.process?.isRunning == true && (part.group == Part.Group.wolke.rawValue || part.state == PartRecord.State.ready.rawValue)
        }
        return Dictionary(running.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
    }
}
