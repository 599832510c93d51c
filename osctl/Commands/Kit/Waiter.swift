import Client
import Glibc
import JSON
import Kernel

/// Waits until a change is complete and shows the progress: on a terminal in one line, otherwise one line per state.
struct Waiter {
    let api: CloudAPI
    /// The longest wait, in seconds.
    let limit: Int
    private let line = ProgressLine()

    init(_ api: CloudAPI, limit: Int) {
        self.api = api
        self.limit = limit
    }

    private static let pauseFirst: Duration = .milliseconds(250)
    private static let pauseMax: Duration = .seconds(2)

    /// Waits for one of the states `done`.
    ///
    /// - Returns: the object in that state.
    /// - Throws: `CommandFailure` if it fails, disappears or takes too long.
    func reach(_ done: Set<String>, _ kind: Kind, id: String, rule: ProgressRule) async throws -> JSONValue {
        let end = try await poll(kind, id, id, rule) { object, state in
            guard let object else { throw CommandFailure("The \(kind.noun) \(id) has disappeared.", hint: "See: \(kind.listCommand)") }
            if done.contains(state), rule.detail(object).isEmpty { return true }
            guard rule.failed.contains(state), !done.contains(state) else { return false }
            let reason = rule.reason(object).map { ": " + $0 } ?? "."
            throw CommandFailure(
                "The \(kind.noun) \(kind.title(object)) is now \(state)\(reason)",
                hint: "See: \(kind.commandText) \(rule.explainedBy) \(id)")
        }
        return end ?? .null
    }

    /// Waits until the object is gone.
    func gone(_ kind: Kind, id: String, name: String, rule: ProgressRule) async throws {
        _ = try await poll(kind, id, name, rule) { object, state in
            guard let object else { return true }
            if rule.deleted.contains(state) { return true }
            guard rule.failed.contains(state), state.lowercased().contains("delet") else { return false }
            throw CommandFailure(
                "The \(kind.noun) \(kind.title(object)) could not be deleted: it is \(state).", hint: "See: \(kind.commandText) show \(id)")
        }
    }

    /// Looks at the object until `isComplete` says so; nil if it is gone then.
    func poll(
        _ kind: Kind, _ id: String, _ name: String, _ rule: ProgressRule, until isComplete: (JSONValue?, String) throws -> Bool
    ) async throws -> JSONValue? {
        let time = api.client.ambient.time
        let begun = time.monotonicNanoseconds()
        var pause = Waiter.pauseFirst
        var title = name
        defer { line.clear() }
        while true {
            let object = try await current(kind, id)
            let state = object?[rule.field]?.stringValue ?? "gone"
            let detail = object.map(rule.detail) ?? ""
            let seconds = Double(time.monotonicNanoseconds() - begun) / 1e9
            title = object.map(kind.title) ?? title
            line.show("\(kind.noun) \(title): \(state.lowercased())\(detail.isEmpty ? "" : ", " + detail)", seconds: seconds)
            if try isComplete(object, state) { return object }
            guard seconds < Double(limit) else {
                throw CommandFailure(
                    "The \(kind.noun) \(title) is still \(state) after \(limit) s.",
                    hint: "The operation continues without osctl; see: \(kind.commandText) show \(id)")
            }
            try await time.sleep(for: pause)
            pause = min(pause * 3 / 2, Waiter.pauseMax)
        }
    }

    private func current(_ kind: Kind, _ id: String) async throws -> JSONValue? {
        do {
            return try await api.get(kind, id: id)
        } catch let error as ResourceError where error.code == .notFound {
            return nil
        }
    }
}

/// A line on standard error that is overwritten when it changes.
final class ProgressLine {
    private let isTerminal = isatty(2) == 1
    private var last = ""
    private var frame = 0

    func show(_ text: String, seconds: Double) {
        let tenths = Int(seconds * 10)
        if isTerminal {
            let mark = Array("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")[frame % 10]
            frame += 1
            Machine.write(to: 2, "\r\u{1b}[K\(mark) \(text)  \(tenths / 10).\(tenths % 10) s")
        } else if text != last {
            Machine.write(to: 2, "\(text)\n")
        }
        last = text
    }

    func clear() {
        if isTerminal, !last.isEmpty { Machine.write(to: 2, "\r\u{1b}[K") }
        last = ""
    }
}
