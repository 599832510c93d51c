import Glibc
import JSON
import Kernel

/// Starts the parts in the order of their dependencies, watches them, and restarts parts that end.
actor Supervisor {
    /// Shortest and longest delay before a part is restarted.
    static let pauseMin: Duration = .milliseconds(500)
    static let pauseMax: Duration = .seconds(30)
    /// A part that ran for this long is restarted with the shortest delay.
    static let stableAfter: Duration = .seconds(60)

    private let layout: CloudLayout
    private let parts: [Part]
    private let milestones: [Milestone]
    private let time: any TimeSource
    private let progress: Progress
    private var records: [String: PartRecord] = [:]
    private var reached: Set<String> = []
    /// Parts whose last attempt failed permanently. They are retried in case the cause was fixed, but nothing waits for them.
    private var failed: Set<String> = []
    /// Processes of an earlier supervisor that are not taken over yet. Infrastructure parts are kept, the others are replaced.
    private var inherited: [String: ProcessIdentity]
    /// The order in which they are replaced, one at a time.
    private let replacements: [String]
    private var watchers: [Task<Void, Never>] = []
    private var isStopping = false
    private let since: Timestamp

    init(
        layout: CloudLayout, parts: [Part], milestones: [Milestone], inherited: [String: RecordedPart] = [:], time: any TimeSource,
        progress: Progress
    ) {
        self.layout = layout
        self.parts = parts
        self.milestones = milestones
        self.time = time
        since = time.now()
        self.progress = progress
        self.inherited = inherited.compactMapValues(\.process)
        replacements = parts.filter { $0.group == .wolke && inherited[$0.name] != nil }.map(\.name)
        for part in parts {
            let found = inherited[part.name]
            records[part.name] = PartRecord(
                name: part.name, state: found == nil ? .waiting : .ready, process: found?.process, startedAt: nil, restarts: 0,
                version: found?.version ?? "", problem: nil)
        }
    }

    // MARK: Starting

    /// Starts everything; returns when all parts are ready. Throws as soon as no further part can become ready, at the latest
    /// after `limit`.
    func start(within limit: Duration) async throws {
        writeRecords()
        for part in parts { watchers.append(Task { await self.keep(part) }) }
        for milestone in milestones { watchers.append(Task { await self.reach(milestone) }) }
        let end = time.monotonicNanoseconds() + UInt64(limit.microseconds) * 1000
        let all = Set(parts.map(\.name) + milestones.map(\.name))
        while !all.isSubset(of: reached) {
            if isStopping { throw CloudError("stopped while starting") }
            if time.monotonicNanoseconds() > end || isHopeless { throw CloudError(explainMissing(all)) }
            try await time.sleep(for: .milliseconds(50))
        }
    }

    /// Whether all parts that are not ready have failed permanently, or depend on a part that has.
    private var isHopeless: Bool {
        guard !failed.isEmpty else { return false }
        var open = (parts.map { ($0.name, $0.needs) } + milestones.map { ($0.name, $0.needs) }).filter { !reached.contains($0.0) }
        var lost = failed
        while true {
            let before = open.count
            for (name, needs) in open where !lost.isDisjoint(with: needs) { lost.insert(name) }
            open.removeAll { lost.contains($0.0) }
            if open.isEmpty { return true }
            if open.count == before { return false }
        }
    }

    private func noteIfFinal(_ name: String, _ error: any Error) {
        if (error as? CloudError)?.isFinal == true { failed.insert(name) }
    }

    private func explainMissing(_ all: Set<String>) -> String {
        var lines: [String] = []
        for part in parts where !reached.contains(part.name) {
            guard let record = records[part.name] else { continue }
            let waiting = part.needs.filter { !reached.contains($0) }
            if record.state == .waiting {
                lines.append("\(part.name): waits for \(waiting.joined(separator: ", "))")
            } else {
                lines.append("\(part.name): \(record.problem ?? "not ready yet") (log: \(part.launch.output))")
            }
        }
        for milestone in milestones where !reached.contains(milestone.name) {
            let waiting = milestone.needs.filter { !reached.contains($0) }
            let why = waiting.isEmpty ? milestoneProblems[milestone.name] ?? "under way" : "waits for " + waiting.joined(separator: ", ")
            lines.append("\(milestone.name): \(why)")
        }
        return "not everything became ready:\n  " + lines.joined(separator: "\n  ")
    }

    private var milestoneProblems: [String: String] = [:]

    private func reach(_ milestone: Milestone) async {
        guard await wait(for: milestone.needs) else { return }
        var pause = Supervisor.pauseMin
        while !Task.isCancelled {
            let begun = time.monotonicNanoseconds()
            progress.begin(milestone.name)
            failed.remove(milestone.name)
            do {
                let result = try await milestone.work()
                reached.insert(milestone.name)
                milestoneProblems[milestone.name] = nil
                progress.done(milestone.name, result, seconds(since: begun))
                return
            } catch is CancellationError {
                return
            } catch {
                let problem = "\(error)"
                if milestoneProblems[milestone.name] != problem { progress.trouble(milestone.name, problem) }
                milestoneProblems[milestone.name] = problem
                noteIfFinal(milestone.name, error)
            }
            guard await sleep(pause) else { return }
            pause = min(pause * 2, Supervisor.pauseMax)
        }
    }

    /// Keeps one part running until the supervisor stops.
    private func keep(_ part: Part) async {
        guard await wait(for: part.needs) else { return }
        var pause = Supervisor.pauseMin
        var endedAt: UInt64?
        while !Task.isCancelled, !isStopping {
            guard await holdBack(part) else { return }
            let begun = time.monotonicNanoseconds()
            let process: ProcessIdentity
            let running = inherited.removeValue(forKey: part.name)
            let isKept = running != nil && part.group == .infrastructure
            do {
                if let running, !isKept { guard try await replace(part, running) else { return } }
                if !isKept { update(part) { $0.state = .preparing } }
                failed.remove(part.name)
                progress.begin(part.name)
                if let running, isKept {
                    process = running
                } else {
                    try await part.prepare()
                    guard !isStopping else { return }
                    process = try part.launch.spawn()
                }
            } catch is CancellationError {
                return
            } catch {
                note(part, "\(error)")
                noteIfFinal(part.name, error)
                guard await sleep(pause) else { return }
                pause = min(pause * 2, Supervisor.pauseMax)
                continue
            }
            let startedAt = time.now()
            update(part) {
                $0.state = .starting
                $0.process = process
                $0.startedAt = startedAt
            }
            let (ending, wasReady) = await watch(part, process, begun: begun, endedAt: endedAt, isKept: isKept)
            guard !isStopping, !Task.isCancelled else { return }
            reached.remove(part.name)
            let now = time.now()
            if wasReady || endedAt == nil { endedAt = time.monotonicNanoseconds() }
            update(part) {
                $0.state = .restarting
                $0.process = nil
                $0.restarts += 1
                $0.outages.begin(at: now, ending)
            }
            if isHeld(part) { continue }
            note(part, ending)
            if seconds(since: begun) > Supervisor.stableAfter.inSeconds { pause = Supervisor.pauseMin }
            guard await sleep(pause) else { return }
            pause = min(pause * 2, Supervisor.pauseMax)
        }
    }

    /// Ends the process of an earlier supervisor once the previous ones have been replaced.
    ///
    /// - Returns: false if the supervisor stops first.
    private func replace(_ part: Part, _ running: ProcessIdentity) async throws -> Bool {
        guard await wait(for: Array(replacements.prefix { $0 != part.name })) else { return false }
        try await running.stop(part.stopSignal, grace: part.stopGrace, time)
        update(part) { $0.process = nil }
        return true
    }

    /// Watches a started process.
    ///
    /// - Parameters:
    ///   - endedAt: when the previous process ended.
    ///   - isKept: whether an earlier supervisor started it and waited for it to become ready.
    /// - Returns: a description of its end, and whether it had become ready.
    private func watch(
        _ part: Part, _ process: ProcessIdentity, begun: UInt64, endedAt: UInt64?, isKept: Bool
    ) async -> (ending: String, wasReady: Bool) {
        var isReady = false
        var nextProbe = time.monotonicNanoseconds()
        while !Task.isCancelled {
            var status: Int32 = 0
            if waitpid(process.pid, &status, WNOHANG) == process.pid { return (Supervisor.ending(part, status), isReady) }
            // Not our child process, so its exit status is unknown.
            if isKept, !process.isRunning { return ("ended; an earlier supervisor had started it", isReady) }
            if !isReady, time.monotonicNanoseconds() >= nextProbe {
                do {
                    let version = try await part.probe()
                    if !isKept { try await part.settle() }
                    isReady = true
                    reached.insert(part.name)
                    let away = endedAt.map { seconds(since: $0) } ?? 0
                    update(part) {
                        $0.outages.end(after: away)
                        $0.state = .ready
                        $0.version = version
                        $0.problem = nil
                    }
                    progress.done(part.name, [version, part.address].filter { !$0.isEmpty }.joined(separator: ", "), seconds(since: begun))
                } catch {
                    if seconds(since: begun) > part.readyWithin.inSeconds { note(part, "does not answer: \(error)") }
                    nextProbe = time.monotonicNanoseconds() + 100_000_000
                }
            }
            if isHeld(part) {
                await Supervisor.end(part, process, time)
                // Otherwise it would stay in the process table as long as the supervisor lives.
                waitpid(process.pid, &status, WNOHANG)
                return ("stopped by an operator", isReady)
            }
            guard await sleep(.milliseconds(isReady ? 200 : 40)) else { break }
        }
        return ("stopped", isReady)
    }

    private nonisolated func isHeld(_ part: Part) -> Bool { Machine.exists(layout.heldMark(part.name)) }

    /// Waits while an operator keeps the part stopped; false if the supervisor stops.
    private func holdBack(_ part: Part) async -> Bool {
        guard isHeld(part) else { return true }
        update(part) {
            $0.state = .held
            $0.process = nil
            $0.problem = "stopped by an operator; `osctl cloud start \(part.name)` starts it again"
        }
        progress.begin("\(part.name) is held")
        while isHeld(part) {
            guard await sleep(.milliseconds(100)) else { return false }
        }
        update(part) { $0.problem = nil }
        return true
    }

    static func ending(_ part: Part, _ status: Int32) -> String {
        let how =
            status & 0x7f == 0
            ? "ended with exit code \((status >> 8) & 0xff)" : "was ended by signal \(status & 0x7f)"
        let last = Machine.tail(part.launch.output, lines: 3).joined(separator: " | ")
        return last.isEmpty ? how : how + "; its last lines: " + last
    }

    // MARK: Stopping

    /// Stops everything, each part before its dependencies.
    ///
    /// - Parameter between: called between stopping the Wolke services and the rest, to stop the guests.
    func stop(between: @Sendable () async -> Void) async {
        isStopping = true
        for watcher in watchers { watcher.cancel() }
        for watcher in watchers { await watcher.value }
        await stopGroup(parts.filter { $0.group == .wolke })
        await between()
        var remaining = parts.filter { $0.group == .infrastructure }
        while !remaining.isEmpty {
            let needed = Set(remaining.flatMap(\.needs))
            var wave = remaining.filter { !needed.contains($0.name) }
            if wave.isEmpty { wave = remaining }
            await stopGroup(wave)
            remaining.removeAll { part in wave.contains { $0.name == part.name } }
        }
    }

    private func stopGroup(_ group: [Part]) async {
        let running = group.compactMap { part in records[part.name]?.process.map { (part, $0) } }
        let time = time
        await withTaskGroup(of: Void.self) { tasks in
            for (part, process) in running {
                tasks.addTask { [progress] in
                    let begun = time.monotonicNanoseconds()
                    await Supervisor.end(part, process, time)
                    progress.stopped(part.name, Double(time.monotonicNanoseconds() - begun) / 1e9)
                }
            }
        }
        for part in group {
            update(part) {
                $0.state = .stopped
                $0.process = nil
            }
        }
    }

    private static func end(_ part: Part, _ process: ProcessIdentity, _ time: any TimeSource) async {
        do {
            try await process.stop(part.stopSignal, grace: part.stopGrace, time)
        } catch {
            process.signal(SIGKILL)
        }
    }

    // MARK: Records

    private func wait(for needs: [String]) async -> Bool {
        while !needs.allSatisfy({ reached.contains($0) }) {
            guard await sleep(.milliseconds(25)) else { return false }
        }
        return true
    }

    private func sleep(_ duration: Duration) async -> Bool {
        do {
            try await time.sleep(for: duration)
            return !isStopping
        } catch {
            return false
        }
    }

    private func seconds(since begun: UInt64) -> Double { Double(time.monotonicNanoseconds() - begun) / 1e9 }

    private func note(_ part: Part, _ problem: String) {
        if records[part.name]?.problem != problem { progress.trouble(part.name, problem) }
        update(part) { $0.problem = problem }
    }

    private func update(_ part: Part, _ change: (inout PartRecord) -> Void) {
        guard var record = records[part.name] else { return }
        change(&record)
        records[part.name] = record
        writeRecords()
    }

    private func writeRecords() {
        let list = parts.compactMap { part in records[part.name].map { $0.json(part) } }
        do {
            try Machine.write(
                layout.partsRecord, JSONValue.object(["since": .string(since.iso8601), "parts": .array(list)]).description + "\n")
        } catch {
            progress.trouble("supervisor", "\(error)")
        }
    }
}

extension Outages {
    var json: JSONValue {
        ["count": JSONValue(count), "seconds": .double(seconds), "last_at": JSONValue(lastAt?.iso8601), "last_reason": .string(lastReason)]
    }

    init(json: JSONValue?) {
        count = json?["count"]?.intValue ?? 0
        seconds = json?["seconds"]?.doubleValue ?? 0
        lastAt = json?["last_at"]?.stringValue.flatMap { Timestamp($0) }
        lastReason = json?["last_reason"]?.stringValue ?? ""
    }
}

extension PartRecord {
    func json(_ part: Part) -> JSONValue {
        [
            "name": .string(name), "group": .string(part.group.rawValue), "address": .string(part.address),
            "state": .string(state.rawValue), "pid": process.map { JSONValue(Int($0.pid)) } ?? nil,
            "start_ticks": process.map { .string(String($0.startTicks)) } ?? nil,
            "started_at": JSONValue(startedAt?.iso8601), "restarts": JSONValue(restarts), "outages": outages.json,
            "version": .string(version),
            "problem": JSONValue(problem), "log": .string(part.launch.output),
            "stop_signal": JSONValue(Int(part.stopSignal)),
        ]
    }
}
