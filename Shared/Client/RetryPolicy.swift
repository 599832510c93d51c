import Kernel

/// How often and after which pauses a request is repeated.
package struct RetryPolicy: Sendable {
    /// Attempts in all.
    package var attemptsMax = 4
    /// The pause after the first failure; each further one doubles it.
    package var pauseFirst: Duration = .milliseconds(100)
    /// Longest pause, also where the service's `Retry-After` asks for more.
    package var pauseMax: Duration = .seconds(5)

    package init() {}

    /// One attempt.
    package static var none: RetryPolicy {
        var policy = RetryPolicy()
        policy.attemptsMax = 1
        return policy
    }

    /// The pause after a failed attempt (counted from 1): doubling, and half of it random so that many clients don't come back at once.
    func pause(after attempt: Int, asked: Int?, random: any RandomSource) -> Duration {
        if let asked { return min(.seconds(max(0, asked)), pauseMax) }
        let full = min(pauseFirst * (1 << min(attempt - 1, 16)), pauseMax)
        return full / 2 + .microseconds(Int64(random.below(max(1, Int(full.microseconds / 2)))))
    }
}
