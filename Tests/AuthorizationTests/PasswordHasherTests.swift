@testable import Authorization
import Database
import Dispatch
import Kernel
import Synchronization
import Testing

@Suite struct PasswordHasherTests {
    private let hasher = PasswordHasher(cost: 1, threads: 2)

    @Test func onlyTheRightPasswordIsVerified() async throws {
        let first = try await hasher.hash(Secret("pässword"))
        let second = try await hasher.hash(Secret("pässword"))
        #expect(first != second)
        #expect(first.hasPrefix("$y$j75$"))
        #expect(try await hasher.verify(Secret("pässword"), hash: first))
        #expect(try await hasher.verify(Secret("pässword"), hash: second))
        #expect(try await !hasher.verify(Secret("password"), hash: first))
        #expect(try await !hasher.verify(Secret(""), hash: first))
        #expect(try await !hasher.verify(Secret("pässword"), hash: nil))
        #expect(try await !hasher.verify(Secret("pässword"), hash: "nonsense"))
    }

    /// The result of the system's crypt(3) with the default cost.
    @Test func knownHash() async throws {
        let known = "$y$j9T$......................$oCkJQ4VqrRtlYonaZlrZ7efw93GPiYbUn.9WWdruzcC"
        #expect(try await hasher.verify(Secret("x"), hash: known))
        #expect(try await !hasher.verify(Secret("y"), hash: known))
    }

    /// crypt(3) reads up to a NUL; the text after it must not be ignored.
    @Test func passwordsWithNULAreRefused() async throws {
        let stored = try await hasher.hash(Secret("abc"))
        #expect(try await !hasher.verify(Secret("abc\u{0}def"), hash: stored))
        for bad in ["", "a\u{0}b", String(repeating: "x", count: 4097)] {
            await #expect(throws: ResourceError.self) { try await hasher.hash(Secret(bad)) }
        }
    }

    @Test func manyAtOnceWait() async throws {
        let hasher = hasher
        let stored = try await hasher.hash(Secret("abc"))
        let right = try await withThrowingTaskGroup(of: Bool.self) { group in
            for index in 0..<64 { group.addTask { try await hasher.verify(Secret(index % 2 == 0 ? "abc" : "abd"), hash: stored) } }
            return try await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        #expect(right == 32)
    }

    private func from<Value: Sendable>(_ source: String, _ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
        try await DatabaseScope.$current.withValue(.request(ClientPresence(source: source))) { try await body() }
    }

    /// A gate before the first hash, and the order of the hashed passwords.
    private final class Gate: Sendable {
        private let isOpen = DispatchSemaphore(value: 0)
        private let passwords = Mutex<[String]>([])
        var order: [String] { passwords.withLock { $0 } }

        func pass(_ password: Secret<String>) {
            let isFirst = passwords.withLock { passwords in
                passwords.append(password.exposed)
                return passwords.count == 1
            }
            if isFirst { isOpen.wait() }
        }

        func open() { isOpen.signal() }
    }

    private final class Count: Sendable {
        private let count = Mutex(0)
        var value: Int { count.withLock { $0 } }
        func add() { count.withLock { $0 += 1 } }
    }

    /// A hasher with one thread that stops at its first hash until the gate is opened.
    private struct GatedHasher: Sendable {
        let gate = Gate()
        let hasher: PasswordHasher
        var order: [String] { gate.order }

        init() { hasher = PasswordHasher(cost: 1, threads: 1, willHash: { [gate] in gate.pass($0) }) }

        func open() { gate.open() }

        func waitForGate() async throws {
            while order.isEmpty { try await SystemTime().sleep(for: .milliseconds(1)) }
        }

        func wait(for count: Int) async throws {
            while hasher.waitingCount < count { try await SystemTime().sleep(for: .milliseconds(1)) }
        }
    }

    @Test("S18: a flood of sign-ons from one address delays another's by one turn")
    func s18AFloodDelaysOthersByOneTurn() async throws {
        let stored = try await hasher.hash(Secret("x"))
        let gated = GatedHasher()
        let flood = (0..<100).map { n in
            Task { try await from("192.0.2.1") { try await gated.hasher.verify(Secret("y"), hash: stored, of: "u\(n)") } }
        }
        // One job has reached the gate: from here on nothing leaves the queue.
        try await gated.waitForGate()
        try await gated.wait(for: 99)
        let other = Task {
            try await from("192.0.2.2") { try await gated.hasher.verify(Secret("x"), hash: stored, of: "me") }
        }
        try await gated.wait(for: 100)
        gated.open()
        #expect(try await other.value)
        for task in flood { #expect(try await !task.value) }
        #expect(gated.order.count == 101)
        #expect(try #require(gated.order.firstIndex(of: "x")) <= 2, "it did not wait for the flood")
    }

    @Test("S18: sign-ons of one user from one address do not fill the queue")
    func s18OneUsersSignOnsAreBounded() async throws {
        let stored = try await hasher.hash(Secret("x"))
        let gated = GatedHasher()
        let first = Task { try await from("192.0.2.9") { try await gated.hasher.verify(Secret("y"), hash: stored) } }
        try await gated.waitForGate()
        let refused = Count()
        let flood = (0..<100).map { _ in
            Task {
                do {
                    _ = try await from("192.0.2.1") { try await gated.hasher.verify(Secret("y"), hash: stored, of: "victim") }
                } catch let error as ResourceError {
                    #expect(error.code == .tooManyRequests)
                    refused.add()
                }
            }
        }
        // Nothing leaves the queue until the gate is opened, so all but 32 are refused first.
        while refused.value < 68 { try await SystemTime().sleep(for: .milliseconds(1)) }
        try await gated.wait(for: 32)
        let own = Task {
            try await from("192.0.2.2") { try await gated.hasher.verify(Secret("x"), hash: stored, of: "victim") }
        }
        try await gated.wait(for: 33)
        gated.open()
        for task in flood { try await task.value }
        #expect(refused.value == 68)
        #expect(try await own.value, "nobody is locked out")
        #expect(try await !first.value)
    }
}
