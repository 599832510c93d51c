import Kernel

/// The number of attempts of a request, and the delays between them.
package struct RetryPolicy: Sendable {
    /// Maximum number of attempts.
    package var attemptsMax = 4
    /// The delay after the first failure; doubled after each further one.
    package var pauseFirst: Duration = .milliseconds(100)
    /// Longest delay, even if the service's `Retry-After` is longer.
    package var pauseMax: Duration = .seconds(5)

    package init() {}

    /// One attempt.
    package static var none: RetryPolicy {
        var policy = RetryPolicy()
        policy.attemptsMax = 1
        return policy
    }

    /// The delay after a failed attempt (counted from 1). It doubles, and half of it is random so that clients do not retry
    /// simultaneously.
    func pause(after attempt: Int, asked: Int?, random: any RandomSource) -> Duration {
        if let asked { return min(.seconds(max(0, asked)), pauseMax) }
        let full = min(pauseFirst * (1 << min(attempt - 1, 16)), pauseMax)
        return full / 2 + .microseconds(Int64(random.below(max(1, Int(full.microseconds / 2)))))
    }
}
