import ArgumentParser
import Client
import Glibc
import JSON
import Kernel

/// `osctl demo`: an example tenant on the one-machine cloud, using only the public APIs.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Run an example tenant on this machine's cloud: from a key pair to SSH into a server; then delete everything.",
        discussion: "Acts as the user demo, without operator's rights. Deletes everything that it created, even if it fails.")

    @OptionGroup var options: CloudOptions

    func run() async throws {
        let layout = try options.layout()
        guard SupervisorRecord.running(layout) != nil else {
            throw CloudError("no cloud runs in \(layout.state); start it with `make up`")
        }
        let secrets = try CloudSecrets.load(layout, Ambient())
        let narrator = Narrator(time: SystemTime())
        let begun = narrator.elapsed
        let story = DemoStory(
            layout: layout, client: DemoCommand.client(layout, user: "demo", password: secrets.demo), narrator: narrator,
            directory: layout.run + "/demo")
        let audit = DemoAudit(
            layout: layout, tenant: story.client, operator: DemoCommand.client(layout, user: "admin", password: secrets.admin))
        let before = try await audit.usage()
        var failure: (any Error)?
        do {
            try await story.tell()
        } catch {
            failure = error
            narrator.failed("\(DemoCommand.words(error))")
        }
        try await story.undo()
        narrator.chapter("What is left")
        let left = try await audit.leftovers(of: story.created, usageBefore: before)
        for line in left.clean { narrator.tell(line) }
        for line in left.found { narrator.failed(line) }
        guard failure == nil, left.found.isEmpty else {
            print("\nThe story did not end well; see `make status` and the logs in \(layout.log).")
            throw ExitCode(1)
        }
        print("\nThe demo succeeded and everything was deleted, after \(Narrator.seconds(narrator.elapsed - begun)).")
        print("Next: export OS_CLIENT_CONFIG_FILE=\(layout.clouds) OS_CLOUD=wolke-demo, then use `openstack` or `osctl`.")
    }

    static func client(_ layout: CloudLayout, user: String, password: String) -> RESTClient {
        RESTClient(
            CloudConfiguration(
                name: "wolke-" + user, authURL: CloudFiles.authURL(layout),
                credentials: .password(user: .name(user, domain: .id("default")), password: Secret(password)),
                scope: .project(.name(user, domain: .id("default"))), region: CloudFiles.region))
    }

    static func words(_ error: any Error) -> String {
        guard let error = error as? ResourceError else { return "\(error)" }
        return error.context.map { "\(error.message) (\($0))" } ?? error.message
    }
}

/// Prints the progress on the terminal.
final class Narrator: Sendable {
    private let time: any TimeSource
    private let begun: UInt64

    init(time: any TimeSource) {
        self.time = time
        begun = time.monotonicNanoseconds()
    }

    var elapsed: Double { Double(time.monotonicNanoseconds() - begun) / 1e9 }

    func chapter(_ title: String) { Terminal.print("\n== \(title)") }
    func tell(_ text: String) { Terminal.print("\(Text.pad(Narrator.seconds(elapsed), 8, right: true))  \(text)") }
    func failed(_ text: String) { Terminal.print("\(Text.pad(Narrator.seconds(elapsed), 8, right: true))  !! \(text)") }

    static func seconds(_ value: Double) -> String {
        let tenths = Int(value * 10)
        return "\(tenths / 10).\(tenths % 10) s"
    }

    /// Calls `body` every 250 ms until it returns a value.
    ///
    /// - Throws: `CloudError` after `limit`; errors of `body`.
    func wait<Value>(_ what: String, _ limit: Duration, _ body: () async throws -> Value?) async throws -> Value {
        let end = time.monotonicNanoseconds() + UInt64(limit.microseconds) * 1000
        while true {
            if let value = try await body() { return value }
            guard time.monotonicNanoseconds() < end else { throw CloudError("\(what) did not happen within \(limit)") }
            try await time.sleep(for: .milliseconds(250))
        }
    }
}
