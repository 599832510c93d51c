import Contracts
import Kernel

/// How long a host has been running, in the form of uptime(1): ` 12:30:05 up 11 days,  6:02,  0 users,  load average: 0.10, 0.20, 0.30`.
enum HostUptimeText {
    /// - Parameter now: the time of day in the text is that of UTC.
    static func text(_ answer: HostUptimeQuestion.Answer, at now: Timestamp) -> String {
        let loads = answer.loadAverages.map(hundredths).joined(separator: ", ")
        // Users who are logged in are not counted.
        return " \(clock(now)) up \(length(answer.uptime)),  0 users,  load average: \(loads)"
    }

    private static func length(_ seconds: Int) -> String {
        let minutes = max(0, seconds) / 60
        let (days, hours) = (minutes / 1440, minutes / 60 % 24)
        let rest = hours > 0 ? padded(hours, " ") + ":" + padded(minutes % 60, "0") : "\(minutes % 60) min"
        switch days {
        case 0: return rest
        case 1: return "1 day, " + rest
        default: return "\(days) days, " + rest
        }
    }

    private static func clock(_ now: Timestamp) -> String {
        let second = ((Int(now.seconds) % 86_400) + 86_400) % 86_400
        let parts: [Int] = [second / 3600, second / 60 % 60, second % 60]
        return parts.map { padded($0, "0") }.joined(separator: ":")
    }

    private static func padded(_ number: Int, _ fill: String) -> String { number < 10 ? "\(fill)\(number)" : "\(number)" }

    private static func hundredths(_ value: Double) -> String {
        guard value.isFinite, (0...1_000_000).contains(value) else { return "0.00" }
        let number = Int((value * 100).rounded())
        return "\(number / 100).\(padded(number % 100, "0"))"
    }
}
