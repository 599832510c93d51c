import Foundation

/// A point in time, in microseconds since 1970-01-01T00:00:00Z: PostgreSQL's own resolution.
package struct Timestamp: Hashable, Sendable, Comparable {
    package var microseconds: Int64

    package init(microseconds: Int64) { self.microseconds = microseconds }
    package init(seconds: Int64) { self.microseconds = seconds * 1_000_000 }

    /// Whole seconds since 1970, rounded down.
    package var seconds: Int64 { microseconds.flooredDivision(by: 1_000_000) }

    package static func < (left: Timestamp, right: Timestamp) -> Bool { left.microseconds < right.microseconds }

    /// The time plus a duration.
    package static func + (left: Timestamp, right: Duration) -> Timestamp {
        Timestamp(microseconds: left.microseconds + right.microseconds)
    }

    /// The duration from `right` to `left`.
    package static func - (left: Timestamp, right: Timestamp) -> Duration {
        .microseconds(left.microseconds - right.microseconds)
    }

    /// `2026-01-31T12:34:56Z`, the form of Compute, Network and Image.
    package var iso8601: String { text(separator: "T", fraction: false) + "Z" }

    /// `2026-01-31T12:34:56.000000Z`, the form of Identity.
    package var iso8601Microseconds: String { text(separator: "T", fraction: true) + "Z" }

    /// `2026-01-31T12:34:56.000000`, the form of Block Storage and some Compute fields.
    package var iso8601NoZone: String { text(separator: "T", fraction: true) }

    /// The input form of PostgreSQL's `timestamptz`.
    package var postgresql: String { text(separator: " ", fraction: true) + "+00" }

    private func text(separator: String, fraction: Bool) -> String {
        let days = seconds.flooredDivision(by: 86_400)
        let second = Int(seconds - days * 86_400)
        let (year, month, day) = CivilDate.fromDays(days)
        var text = Timestamp.pad(year, 4) + "-" + Timestamp.pad(month, 2) + "-" + Timestamp.pad(day, 2)
        text += separator + Timestamp.pad(second / 3600, 2) + ":" + Timestamp.pad(second / 60 % 60, 2)
        text += ":" + Timestamp.pad(second % 60, 2)
        if fraction { text += "." + Timestamp.pad(Int(microseconds - seconds * 1_000_000), 6) }
        return text
    }

    private static func pad(_ value: Int, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    /// Reads ISO 8601 (`T` or space, optional fraction, `Z`, `±hh`, `±hh:mm` or nothing for UTC), which covers
    /// what the clients send and PostgreSQL's output.
    package init?(_ text: some StringProtocol) {
        var scanner = DigitScanner(Array(text.utf8))
        guard let year = scanner.number(4), scanner.skip("-"), let month = scanner.number(2), scanner.skip("-"),
            let day = scanner.number(2), (1...12).contains(month), (1...31).contains(day)
        else { return nil }
        var total = CivilDate.toDays(year: year, month: month, day: day) * 86_400
        var micro: Int64 = 0
        if !scanner.atEnd {
            guard scanner.skip("T") || scanner.skip(" "), let hour = scanner.number(2), scanner.skip(":"),
                let minute = scanner.number(2), hour < 24, minute < 60
            else { return nil }
            var second = 0
            if scanner.skip(":") {
                guard let value = scanner.number(2), value <= 60 else { return nil }
                second = value
            }
            if scanner.skip(".") { micro = scanner.fraction(digits: 6) }
            guard let offset = scanner.zoneOffset(), scanner.atEnd else { return nil }
            total += Int64(hour * 3600 + minute * 60 + second) - offset
        }
        self.init(microseconds: total * 1_000_000 + micro)
    }
}

private struct DigitScanner {
    private let bytes: [UInt8]
    private var index = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var atEnd: Bool { index == bytes.count }

    mutating func skip(_ character: Unicode.Scalar) -> Bool {
        guard index < bytes.count, bytes[index] == UInt8(ascii: character) else { return false }
        index += 1
        return true
    }

    mutating func number(_ digits: Int) -> Int? {
        guard index + digits <= bytes.count else { return nil }
        var value = 0
        for byte in bytes[index..<index + digits] {
            guard byte >= 48, byte <= 57 else { return nil }
            value = value * 10 + Int(byte - 48)
        }
        index += digits
        return value
    }

    mutating func fraction(digits: Int) -> Int64 {
        var value: Int64 = 0
        var read = 0
        while index < bytes.count, bytes[index] >= 48, bytes[index] <= 57 {
            if read < digits { value = value * 10 + Int64(bytes[index] - 48) }
            read += 1
            index += 1
        }
        while read < digits {
            value *= 10
            read += 1
        }
        return value
    }

    mutating func zoneOffset() -> Int64? {
        if atEnd || skip("Z") { return 0 }
        let sign: Int64
        if skip("+") { sign = 1 } else if skip("-") { sign = -1 } else { return nil }
        guard let hours = number(2) else { return nil }
        var minutes = 0
        if !atEnd {
            _ = skip(":")
            guard let value = number(2) else { return nil }
            minutes = value
        }
        return sign * Int64(hours * 3600 + minutes * 60)
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
package enum CivilDate {
    /// The day number of a date.
    package static func toDays(year: Int, month: Int, day: Int) -> Int64 {
        let shifted = month <= 2 ? year - 1 : year
        let era = (shifted >= 0 ? shifted : shifted - 399) / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        return Int64(era * 146_097 + dayOfEra - 719_468)
    }

    /// The date of a day number.
    package static func fromDays(_ days: Int64) -> (year: Int, month: Int, day: Int) {
        let shifted = Int(days) + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthIndex = (5 * dayOfYear + 2) / 153
        let month = monthIndex < 10 ? monthIndex + 3 : monthIndex - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * monthIndex + 2) / 5 + 1)
    }
}

extension Int64 {
    /// Division that rounds towards negative infinity.
    package func flooredDivision(by divisor: Int64) -> Int64 {
        let quotient = self / divisor
        return (self % divisor != 0 && (self < 0) != (divisor < 0)) ? quotient - 1 : quotient
    }
}

extension Duration {
    /// Whole microseconds, rounded towards zero.
    package var microseconds: Int64 {
        components.seconds * 1_000_000 + components.attoseconds / 1_000_000_000_000
    }

    /// Seconds with a fraction.
    package var inSeconds: Double { Double(microseconds) / 1_000_000 }
}

/// The source of time: the machine's clocks in a service, a manual clock in tests.
package protocol TimeSource: Sendable {
    /// Wall time, for timestamps that people and other systems see.
    func now() -> Timestamp
    /// Monotonic nanoseconds, for durations and timeouts.
    func monotonicNanoseconds() -> UInt64
    /// Suspends for `duration`; throws `CancellationError` if the task is cancelled.
    func sleep(for duration: Duration) async throws
    /// Replaces the database's clock in tests; nil to use the database's clock.
    func databaseNow() -> Timestamp?
}

extension TimeSource {
    package func databaseNow() -> Timestamp? { nil }
}

/// The machine's clocks.
package struct SystemTime: TimeSource {
    package init() {}

    package func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(microseconds: Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000)
    }

    package func monotonicNanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    package func sleep(for duration: Duration) async throws {
        try await Task.sleep(for: duration)
    }
}
