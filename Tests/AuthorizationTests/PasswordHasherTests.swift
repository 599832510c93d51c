import Authorization
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
}
