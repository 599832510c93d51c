/// A request's permission to use the processors. The request gives it up while it waits for something else.
package protocol Seat: Sendable {
    /// Gives the seat to others. May be called more than once at a time; each call needs its `resume`.
    func yield()
    /// Takes the seat back at once.
    func resume()
}

/// The seat of the current task's request.
package enum WorkSeat {
    /// nil for work of the services themselves, which needs no seat.
    @TaskLocal package static var current: (any Seat)?

    /// Gives up the seat while waiting for another process.
    package static func yielding<Value>(_ wait: () async throws -> Value) async rethrows -> Value {
        guard let seat = current else { return try await wait() }
        seat.yield()
        defer { seat.resume() }
        return try await wait()
    }
}
