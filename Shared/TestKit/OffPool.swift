import Foundation

/// Runs something that blocks on a thread of its own: the pool that tests share with what they test is as small as the
/// machine, and a test that blocks it can keep the other side of its own conversation from running.
package func offPool<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
        Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
    }
}
