import Authorization
import Database
import Kernel
import Testing

@Suite struct PasswordHasherTests {
    private let hasher = PasswordHasher(cost: 1, threads: 2)

    @Test func rightAndWrong() async throws {
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

    /// What crypt(3) of the system says to the default cost.
    @Test func knownHash() async throws {
        let known = "$y$j9T$......................$oCkJQ4VqrRtlYonaZlrZ7efw93GPiYbUn.9WWdruzcC"
        #expect(try await hasher.verify(Secret("x"), hash: known))
        #expect(try await !hasher.verify(Secret("y"), hash: known))
    }

    /// crypt reads up to a NUL: what comes after it must not be ignored.
    @Test func whatCryptWouldNotSeeIsRefused() async throws {
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

    @Test("S18: a flood of sign-ons from one address delays another's by one turn")
    func s18AFloodDelaysOthersByOneTurn() async throws {
        let hasher = PasswordHasher(cost: 1, threads: 1)
        let stored = try await hasher.hash(Secret("abc"))
        let flood = (0..<300).map { n in
            Task { try await from("192.0.2.1") { try await hasher.verify(Secret("x"), hash: stored, of: "u\(n)") } }
        }
        while hasher.hashesDone < 5 { try await SystemTime().sleep(for: .milliseconds(1)) }
        #expect(try await from("192.0.2.2") { try await hasher.verify(Secret("abc"), hash: stored, of: "me") })
        #expect(hasher.hashesDone < 150, "it did not wait for the flood")
        for task in flood { #expect(try await !task.value) }
    }

    @Test("S18: sign-ons of one user from one address do not fill the queue")
    func s18OneUsersSignOnsAreBounded() async throws {
        let hasher = PasswordHasher(cost: 1, threads: 1)
        let stored = try await hasher.hash(Secret("abc"))
        let tasks = (0..<400).map { _ in
            Task { try await from("192.0.2.1") { try await hasher.verify(Secret("x"), hash: stored, of: "victim") } }
        }
        #expect(try await from("192.0.2.2") { try await hasher.verify(Secret("abc"), hash: stored, of: "victim") }, "nobody is locked out")
        var refused = 0
        for task in tasks {
            do { _ = try await task.value } catch let error as ResourceError {
                #expect(error.code == .tooManyRequests)
                refused += 1
            }
        }
        #expect(refused > 50)
    }
}
