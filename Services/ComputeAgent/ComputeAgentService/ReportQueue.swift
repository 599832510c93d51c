import ComputeAgentCore
package import Contracts
import JSON
package import Kernel
package import Logging
package import Messaging

/// Reports not yet sent: the latest one of each server, kept until the broker has confirmed it.
package actor ReportQueue {
    private let bus: any MessageBus
    private let ambient: Ambient
    private let log: Logger
    private var order: [String] = []
    private var reports: [String: ObservedReport] = [:]
    private let (signals, signal) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))

    private static let batchMax = 64

    package init(bus: any MessageBus, ambient: Ambient, log: Logger) {
        self.bus = bus
        self.ambient = ambient
        self.log = log
    }

    /// Reports that wait.
    package var count: Int { reports.count }

    /// Adds a report, in place of an older one about the same server that waits.
    package func put(_ report: ObservedReport) {
        // A report of an unknown server must not replace a report with its state.
        if report.unknown, reports[report.serverID] != nil { return }
        if reports.updateValue(report, forKey: report.serverID) == nil { order.append(report.serverID) }
        signal.yield()
    }

    /// The oldest reports, each about another server.
    private func next() -> [ObservedReport] {
        let batch = order.prefix(ReportQueue.batchMax)
        order.removeFirst(batch.count)
        return batch.compactMap { reports.removeValue(forKey: $0) }
    }

    /// Gives a report back that could not be sent, unless there is a newer one.
    private func putBack(_ report: ObservedReport) {
        guard reports[report.serverID] == nil else { return }
        reports[report.serverID] = report
        order.insert(report.serverID, at: 0)
    }

    /// Sends until the task is cancelled.
    package func run() async throws {
        for await _ in signals {
            while case let batch = next(), !batch.isEmpty {
                guard let error = await send(batch) else { continue }
                try Task.checkCancellation()
                log.warning("a report waits for the broker", metadata: ["error": "\(error)"])
                try await ambient.time.sleep(for: .seconds(1))
            }
        }
        try Task.checkCancellation()
    }

    /// Sends reports in parallel and waits for all, so that reports about one server stay in order.
    ///
    /// - Returns: an error, when some could not be sent; those wait again.
    private func send(_ batch: [ObservedReport]) async -> (any Error)? {
        let messages = batch.map { report in (id: ambient.newUUID(), report: report) }
        return await withTaskGroup(of: (Int, (any Error)?).self) { [bus] group in
            for (index, item) in messages.enumerated() {
                group.addTask {
                    do {
                        try await bus.publish(try Message(item.report, id: item.id), to: .computeAgents)
                        return (index, nil)
                    } catch { return (index, error) }
                }
            }
            var failure: (any Error)?
            for await (index, error) in group where error != nil {
                putBack(batch[index])
                failure = error
            }
            return failure
        }
    }
}
