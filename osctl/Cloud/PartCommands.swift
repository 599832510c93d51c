import ArgumentParser
import Glibc
import Kernel

extension CloudCommand {
    /// Longest time for one part to stop or to become ready.
    static let partLimit: Duration = .seconds(60)

    /// One part of one cloud.
    struct PartOptions: ParsableArguments {
        @OptionGroup var options: CloudOptions
        @Argument(help: "The part, such as postgres.")
        var part: String

        /// - Throws: `CloudError` if the cloud does not run or has no such part.
        func layout() throws -> CloudLayout {
            let layout = try options.layout()
            try CloudCommand.checkPart(part, layout)
            return layout
        }
    }

    struct StopPart: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "stop", abstract: "Stop one part and keep it stopped, for maintenance.",
            discussion: "The parts' names are those of `osctl status`.")

        @OptionGroup var chosen: PartOptions

        func run() async throws {
            let (layout, part) = (try chosen.layout(), chosen.part)
            try Machine.write(layout.heldMark(part), "\n")
            try await CloudCommand.wait(part, layout, for: "held")
            print("\(part) is stopped; `osctl cloud start \(part)` starts it again.")
        }
    }

    struct StartPart: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "start", abstract: "Start a stopped part.")

        @OptionGroup var chosen: PartOptions

        func run() async throws {
            let (layout, part) = (try chosen.layout(), chosen.part)
            unlink(layout.heldMark(part))
            try await CloudCommand.wait(part, layout, for: "ready")
            print("\(part) is ready.")
        }
    }

    fileprivate static func checkPart(_ name: String, _ layout: CloudLayout) throws {
        guard SupervisorRecord.running(layout) != nil else {
            throw CloudError("no cloud runs in \(layout.state); start it with `make up`")
        }
        let names = RecordedPart.all(layout).map(\.name)
        guard names.contains(name) else {
            throw CloudError("there is no part \(name); there are: \(names.joined(separator: ", "))")
        }
    }

    fileprivate static func wait(_ name: String, _ layout: CloudLayout, for state: String) async throws {
        let time = SystemTime()
        let end = time.monotonicNanoseconds() + UInt64(partLimit.microseconds) * 1000
        while true {
            let part = RecordedPart.all(layout).first { $0.name == name }
            if part?.state == state { return }
            guard time.monotonicNanoseconds() < end else {
                throw CloudError("\(name) is \(part?.state ?? "unknown") after \(partLimit): \(part?.problem ?? "see its log")")
            }
            try await time.sleep(for: .milliseconds(100))
        }
    }
}
