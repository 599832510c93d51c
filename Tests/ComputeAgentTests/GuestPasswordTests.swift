import ComputeAgentCore
import JSON
import Kernel
import Logging
import Synchronization
import Testing

@testable import ComputeAgentService

/// Passwords that guests post to the metadata service.
@Suite struct GuestPasswordTests {
    private let log = Logger(label: "agent", factory: { _ in SwiftLogNoOpLogHandler() })

    private func post(_ body: String, _ directory: MetadataDirectory, _ server: DesiredServer) async -> Int {
        let request = SmallRequest(method: "POST", path: "/openstack/latest/password", remoteAddress: nil, body: Array(body.utf8))
        return await directory.response(to: request, of: server, log: log).status
    }

    @Test("S18: a guest sends one message, however often it posts") func s18_oneMessagePerDesiredState() async throws {
        let directory = MetadataDirectory()
        let server = try Fixture.server()
        directory.set(server.id, server)
        let sent = Mutex<[String]>([])
        directory.sendPasswords { server, password in sent.withLock { $0.append("\(server) \(password)") } }
        #expect(await post("one", directory, server) == 200)
        for _ in 0..<10 { #expect(await post("two", directory, server) == 409) }
        #expect(sent.withLock { $0 } == ["\(Fixture.serverID) one"])
        // After its owner cleared the password.
        directory.set(server.id, server)
        #expect(await post("three", directory, server) == 200)
    }

    @Test func aPasswordThatWasNotPassedOnCanBeLeftAgain() async throws {
        let directory = MetadataDirectory()
        let server = try Fixture.server()
        directory.set(server.id, server)
        let isDown = Mutex(true)
        directory.sendPasswords { _, _ in if isDown.withLock({ $0 }) { throw ResourceError.unavailable("no broker") } }
        #expect(await post("one", directory, server) == 503)
        isDown.withLock { $0 = false }
        #expect(await post("one", directory, server) == 200)
    }
}
