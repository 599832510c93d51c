import Kernel
import Synchronization

/// Progress messages: lines in a file that `osctl cloud up` shows, and that remains as the cloud's history.
final class Progress: Sendable {
    private let path: String
    private let time: any TimeSource
    private let begun: UInt64
    private let begunNames = Mutex(Set<String>())
    private let counts = Mutex((done: 0, total: 0))

    init(path: String, total: Int, time: any TimeSource) {
        self.path = path
        self.time = time
        begun = time.monotonicNanoseconds()
        counts.withLock { $0.total = total }
    }

    /// Reports once that an action has started; later attempts are reported as problem or success.
    func begin(_ name: String) {
        if begunNames.withLock({ $0.insert(name).inserted }) { write("… ", name, "starting") }
    }

    func done(_ name: String, _ text: String, _ seconds: Double) {
        let place = counts.withLock { counts -> String in
            counts.done = min(counts.done + 1, counts.total)
            return "\(counts.done)/\(counts.total)"
        }
        write("ok", name, text, place)
    }

    func stopped(_ name: String, _ seconds: Double) {
        let tenths = Int(seconds * 10)
        write("ok", name, "stopped in \(tenths / 10).\(tenths % 10) s")
    }

    func trouble(_ name: String, _ text: String) { write("!!", name, text) }

    private func write(_ mark: String, _ name: String, _ text: String, _ place: String = "") {
        let elapsed = Double(time.monotonicNanoseconds() - begun) / 1e9
        let whole = Int(elapsed * 10)
        let clock = Text.pad("\(whole / 10).\(whole % 10) s", 8, right: true)
        Machine.append(path, "\(clock)  \(mark) \(Text.pad(place, 5, right: true))  \(Text.pad(name, 21)) \(text)\n")
    }

    /// Reports the end; `up` waits for this line.
    func end(_ problem: String?) {
        if let problem {
            Machine.append(path, Progress.failedMark + problem.replacing("\n", with: "\u{1}") + "\n")
        } else {
            Machine.append(path, Progress.readyMark + "\n")
        }
    }

    static let readyMark = "#ready"
    static let failedMark = "#failed "
}

/// Standard output without buffering, so that progress is visible immediately, also through a pipe.
enum Terminal {
    static func print(_ line: String) { Machine.write(to: 1, line + "\n") }
}

/// Text in columns.
enum Text {
    static func pad(_ text: String, _ width: Int, right: Bool = false) -> String {
        let fill = String(repeating: " ", count: max(0, width - text.count))
        return right ? fill + text : text + fill
    }

    /// Rows under headings, each column as wide as its widest cell.
    static func table(_ headings: [String], _ rows: [[String]]) -> String {
        let widths = headings.indices.map { column in
            ([headings] + rows).map { $0[column].count }.max() ?? 0
        }
        return ([headings] + rows).map { row in
            var line = row.indices.map { pad(row[$0], widths[$0]) }.joined(separator: "  ")
            while line.last == " " { line.removeLast() }
            return line
        }.joined(separator: "\n")
    }
}
