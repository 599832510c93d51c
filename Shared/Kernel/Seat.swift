/// A request's permission to use the processors, which it gives back while it waits for something else.
package protocol Seat: Sendable {
    /// Gives the seat to others. May be called more than once at a time; each call needs its `resume`.
    func yield()
    /// Takes the seat back at once.
    func resume()
}

/// The seat of the work that the current task does.
package enum WorkSeat {
    /// nil for work that needs none: the plane's own.
    @TaskLocal package static var current: (any Seat)?

    /// Waits for another process without keeping the seat.
    package static func yielding<Value>(_ wait: () async throws -> Value) async rethrows -> Value {
        guard let seat = current else { return try await wait() }
        seat.yield()
        defer { seat.resume() }
        return try await wait()
    }
}
