package import Kernel

/// Times in the form of HTTP header fields: `Sun, 06 Nov 1994 08:49:37 GMT`.
package enum HTTPDate {
    private static let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
    private static let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

    /// The time in whole seconds.
    package static func text(_ time: Timestamp) -> String {
        let day = time.seconds.flooredDivision(by: 86_400)
        let (year, month, date) = CivilDate.fromDays(day)
        let weekday = days[Int((day % 7 + 7) % 7)]
        let clock = time.iso8601.dropFirst(11).prefix(8)
        return "\(weekday), \(date < 10 ? "0" : "")\(date) \(months[month - 1]) \(year) \(clock) GMT"
    }
}
