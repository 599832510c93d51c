import Foundation

/// Runs a blocking function on a thread of its own. The cooperative pool, which tests share with the tested code, has as many
/// threads as the machine has cores; a blocked pool could prevent the other side of a connection from running.
package func offPool<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
        Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
    }
}
