import ArgumentParser
import Foundation
import JSON
import Kernel
import ServiceCatalog

/// `osctl cloud`: a complete cloud on this machine, in one directory.
struct CloudCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cloud", abstract: "A complete cloud on this machine, in one directory.",
        subcommands: [
            Up.self, Down.self, Upgrade.self, StatusCommand.self, ServicesCommand.self, StopPart.self, StartPart.self, Run.self,
            PrivateMounts.self,
        ])

    /// Longest time from the start to a ready cloud.
    static let startLimit: Duration = .seconds(180)

    struct Up: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Start the cloud, unless it is running.")

        @OptionGroup var options: CloudOptions
        @Option(help: "Disk image that becomes the public image `guest`.")
        var guestImage: String?

        func run() async throws {
            let time = SystemTime()
            let begun = time.monotonicNanoseconds()
            let layout = try options.layout()
            var supervisor = SupervisorRecord.running(layout)
            if supervisor == nil {
                supervisor = try await start(layout)
            } else {
                print("The cloud in \(layout.state) is already running.")
                let missing = layout.processes.filter { service in !RecordedPart.all(layout).contains { $0.name == service.executable } }
                guard missing.isEmpty else {
                    throw CloudError(
                        """
                        It runs without \(missing.map(\.executable).joined(separator: ", ")); stop it with `make down`, and start it again \
                        with WITH=\(layout.extraServices.joined(separator: ",")).
                        """)
                }
                let others = Set(RecordedPart.all(layout).filter { $0.group == Part.Group.wolke.rawValue }.map(\.version))
                    .subtracting([WolkeVersion.current, ""])
                if !others.isEmpty {
                    print(
                        """
                        It runs release \(others.sorted().joined(separator: ", ")); `make upgrade` replaces that \
                        by \(WolkeVersion.current).
                        """
                    )
                }
            }
            guard let supervisor else { return }
            try await CloudCommand.follow(layout, supervisor, time)
            let seconds = Double(time.monotonicNanoseconds() - begun) / 1e9
            print(Summary.text(layout, seconds: seconds, program: CommandLine.arguments[0]))
        }

        private func start(_ layout: CloudLayout) async throws -> SupervisorRecord {
            let program = try Machine.executablePath()
            try Leftovers.create(layout)
            let cloud = Cloud(
                layout: layout, secrets: try .load(layout, Ambient()), program: program, guestImage: guestImage, ambient: Ambient())
            try await Leftovers.stop(layout, guests: false)
            let obstacles = cloud.obstacles()
            guard obstacles.isEmpty else {
                throw CloudError("this machine is not ready for a cloud:\n  " + obstacles.joined(separator: "\n  "))
            }
            unlink(layout.progress)
            let choice = try options.datapathChoice()
            var arguments = [
                program, "cloud", "run", "--state", layout.state, "--port-offset", "\(layout.portOffset)",
                "--hosts", "\(layout.hostCount)", "--with", layout.extraServices.joined(separator: ","), "--datapath", choice.rawValue,
            ]
            if let guestImage {
                guard let path = realpath(guestImage, nil) else { throw Machine.failure("find the image", guestImage) }
                arguments += ["--guest-image", String(cString: path)]
                free(path)
            }
            var environment = Machine.environment
            environment["PORT_OFFSET"] = nil
            let launch = Launch(arguments: arguments, environment: environment, output: layout.log + "/supervisor.log")
            return SupervisorRecord(process: try launch.spawn())
        }
    }

    /// Shows the supervisor's progress until the start has ended.
    static func follow(_ layout: CloudLayout, _ supervisor: SupervisorRecord, _ time: SystemTime) async throws {
        var shown = 0
        while true {
            let lines = (Machine.readText(layout.progress) ?? "").split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            for line in lines.dropFirst(shown) {
                if line == Progress.readyMark { return }
                if line.hasPrefix(Progress.failedMark) {
                    throw CloudError(
                        line.dropFirst(Progress.failedMark.count).replacing("\u{1}", with: "\n")
                            + "\nThe other parts keep running; see `make status`, stop it with `make down`.")
                }
                Terminal.print(String(line))
            }
            shown = lines.count
            var status: Int32 = 0
            waitpid(supervisor.process.pid, &status, WNOHANG)
            if !supervisor.process.isRunning {
                let last = Machine.tail(layout.log + "/supervisor.log", lines: 5).joined(separator: "\n  ")
                throw CloudError("the supervisor ended; the last lines of \(layout.log)/supervisor.log:\n  \(last)")
            }
            try await time.sleep(for: .milliseconds(50))
        }
    }

    struct Down: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Stop everything that `up` started, and nothing else.")

        @OptionGroup var options: CloudOptions

        func run() async throws {
            let layout = try options.layout()
            let time = SystemTime()
            let begun = time.monotonicNanoseconds()
            let supervisor = SupervisorRecord.running(layout)
            try await FleetProcess.running(layout)?.stop()
            if let supervisor {
                print("Stopping the cloud in \(layout.state)")
                supervisor.process.signal(SIGTERM)
                if try await !supervisor.process.waitForEnd(.seconds(90), time) {
                    throw CloudError(
                        "the supervisor (process \(supervisor.process.pid)) did not stop within 90 s; see \(layout.log)/supervisor.log")
                }
            }
            let left = try await Leftovers.stop(layout, guests: true)
            if supervisor == nil, left == 0 {
                print("No cloud runs in \(layout.state).")
            } else {
                let tenths = Int(Double(time.monotonicNanoseconds() - begun) / 1e8)
                print("Stopped in \(tenths / 10).\(tenths % 10) s. `make up` starts the same cloud again.")
            }
        }
    }

    struct Run: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Run the cloud's supervisor in the foreground; SIGTERM or SIGINT stops the cloud.")

        @OptionGroup var options: CloudOptions
        @Option(help: "Disk image that becomes the public image `guest`.")
        var guestImage: String?
        @ArgumentParser.Flag(help: "Take over the processes of an earlier supervisor, and replace the services and agents.")
        var adopt = false

        func run() async throws {
            var layout = try options.layout()
            if SupervisorRecord.running(layout) != nil { throw CloudError("the cloud in \(layout.state) already has a supervisor") }
            let ambient = Ambient()
            try Leftovers.create(layout)
            if !adopt {
                let (datapath, reason) = try await options.datapathChoice().resolve(
                    layout, ownsKernel: Machine.exists(layout.datapathMark) && layout.datapath == .kernel)
                layout.datapath = datapath
                try Machine.write(layout.datapathMark, datapath.rawValue)
                print("Open vSwitch uses the \(datapath.words)\(reason.isEmpty ? "" : ": \(reason)")")
            }
            let cloud = Cloud(
                layout: layout, secrets: try .load(layout, ambient), program: try Machine.executablePath(),
                guestImage: guestImage, ambient: ambient)
            try SupervisorRecord.write(layout)
            try CloudFiles(layout: layout, secrets: cloud.secrets).write()
            // The parts inherit the working directory, so it must be the state directory.
            guard chdir(layout.state) == 0 else { throw Machine.failure("enter", layout.state) }
            try await Session(cloud: cloud, inherited: adopt ? RecordedPart.inherited(layout) : [:]).run()
            unlink(layout.supervisorRecord)
        }
    }
}

/// The supervisor's run, from start to signal.
struct Session: Sendable {
    let cloud: Cloud
    /// Processes of an earlier supervisor that this one takes over.
    var inherited: [String: RecordedPart] = [:]
    /// How long guests may take to shut down before they are killed.
    static let guestGrace: Duration = .seconds(8)

    func run() async throws {
        let stop = StopSignal()
        let network = cloud.layout.hosts.map { NetworkParts(layout: cloud.layout, host: $0) }
        try Machine.write(cloud.layout.devicesMark, "\n")
        try await SimulatedHosts(layout: cloud.layout).create()
        let parts = cloud.parts(network: network)
        if inherited.isEmpty { for part in parts { unlink(cloud.layout.heldMark(part.name)) } }
        let milestones = cloud.milestones
        let time = cloud.ambient.time
        let progress = Progress(path: cloud.layout.progress, total: parts.count + milestones.count, time: time)
        let supervisor = Supervisor(
            layout: cloud.layout, parts: parts, milestones: milestones, inherited: inherited, time: time, progress: progress)
        let starting = Task {
            do {
                try await supervisor.start(within: CloudCommand.startLimit)
                progress.end(nil)
            } catch {
                progress.end("\(error)")
            }
        }
        while !stop.isRaised { try await time.sleep(for: .milliseconds(100)) }
        starting.cancel()
        progress.begin("stopping")
        await supervisor.stop {
            await withTaskGroup(of: Void.self) { tasks in
                for libvirt in cloud.libvirt {
                    tasks.addTask { await libvirt.stopGuests(grace: Session.guestGrace, progress: progress) }
                }
            }
        }
        try await Leftovers.removeDevices(cloud.layout)
    }
}

/// Whether SIGTERM or SIGINT was received.
final class StopSignal: Sendable {
    private static let raised = Latch()

    init() {
        for number in [SIGTERM, SIGINT] { signal(number) { _ in StopSignal.raised.raise() } }
        signal(SIGHUP, SIG_IGN)
        signal(SIGPIPE, SIG_IGN)
    }

    var isRaised: Bool { StopSignal.raised.isRaised }
}
