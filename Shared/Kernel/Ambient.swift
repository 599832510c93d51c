import Synchronization

/// The source of randomness: the operating system, or a seed in tests and simulation.
package protocol RandomSource: Sendable {
    /// 64 uniform bits.
    func next() -> UInt64
}

/// The operating system's generator.
package struct SystemRandom: RandomSource {
    package init() {}

    package func next() -> UInt64 {
        var generator = SystemRandomNumberGenerator()
        return generator.next()
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same sequence.
package final class SeededRandom: RandomSource {
    private let state: Mutex<UInt64>

    package init(seed: UInt64) { state = Mutex(seed) }

    package func next() -> UInt64 {
        state.withLock { state in
            state &+= 0x9e37_79b9_7f4a_7c15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
            return mixed ^ (mixed >> 31)
        }
    }
}

extension RandomSource {
    /// A uniform number in `0..<bound`; `bound` must be positive.
    package func below(_ bound: Int) -> Int {
        precondition(bound > 0)
        return Int((next().multipliedFullWidth(by: UInt64(bound))).high)
    }

    /// `count` uniform bytes.
    package func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            let word = next()
            for shift in 0..<8 where bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: word >> (shift * 8))) }
        }
        return bytes
    }

    /// A version 4 UUID.
    package func uuid() -> UUID128 {
        UUID128(
            high: (next() & 0xffff_ffff_ffff_0fff) | 0x4000,
            low: (next() & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000)
    }
}

/// The injected source of time and randomness. No other code may read the system clock or random generator.
package struct Ambient: Sendable {
    package let time: any TimeSource
    package let random: any RandomSource

    package init(time: any TimeSource = SystemTime(), random: any RandomSource = SystemRandom()) {
        self.time = time
        self.random = random
    }

    /// Wall time.
    package var now: Timestamp { time.now() }

    /// The end of a timeout, in nanoseconds of the monotonic clock; not affected when the wall clock is set.
    package func deadline(in duration: Duration) -> UInt64 {
        let clock = time.monotonicNanoseconds()
        return duration > .zero ? clock + UInt64(duration.microseconds) * 1000 : clock
    }

    /// A version 4 UUID.
    package func newUUID() -> UUID128 { random.uuid() }
    /// A typed id of a version 4 UUID.
    package func newID<Subject>(_ type: Subject.Type = Subject.self) -> ID<Subject> { ID(random.uuid()) }

    /// A random text of `length` characters from `a–z` and `0–9`, for generated passwords and secrets.
    package func newSecret(length: Int = 24) -> String {
        let alphabet = Array("abcdefghijklmnopqrstuvwxyz0123456789")
        return String((0..<length).map { _ in alphabet[random.below(alphabet.count)] })
    }
}
