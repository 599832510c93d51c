import Database
import Inspections
import Kernel
import Logging
import NetworkCore
import OVSDB
import ServiceCatalog
import Telemetry

/// Carries out the effects of `NorthboundMachine` with OVN's databases and PostgreSQL. Used by one task.
final class NorthboundWorker {
    private let reconciler: NorthboundReconciler
    private let ledger: NorthboundLedger
    private var machine: NorthboundMachine
    /// Pending answers to the plans sent to OVN, by flight number.
    private var replies: [Int: Task<Void, any Error>] = [:]

    private var database: Database { reconciler.database }
    private var client: OVSDBClient { reconciler.northbound }
    private var clock: UInt64 { reconciler.ambient.time.monotonicNanoseconds() }

    init(_ reconciler: NorthboundReconciler) {
        self.reconciler = reconciler
        ledger = NorthboundLedger(database: reconciler.database, ambient: reconciler.ambient)
        func nanoseconds(_ duration: Duration) -> UInt64 { UInt64(max(0, duration.microseconds)) * 1000 }
        machine = NorthboundMachine(
            compiler: reconciler.compiler, auditInterval: nanoseconds(reconciler.configuration.auditInterval),
            heartbeatInterval: nanoseconds(reconciler.configuration.heartbeatInterval))
    }

    /// Runs one round. An error is logged, and the next wake-up retries.
    func step() async {
        do { try await round() } catch is CancellationError { return } catch {
            reconciler.log.warning("northbound reconciliation interrupted", metadata: ["reason": "\(error)"])
            reconciler.metrics.increment("wolke_northbound_interruptions_total", help: "Reconciliation steps that failed.")
        }
    }

    private func round() async throws {
        let holdsLock = await client.holdsLock
        reconciler.audits.isMine = holdsLock
        var event = NorthboundMachine.Event.woken(holdsLock: holdsLock, auditsAsked: reconciler.audits.asked)
        while true {
            do {
                guard let next = try await perform(machine.handle(event, at: clock)) else { return }
                event = next
            } catch {
                _ = try await perform(machine.handle(.failed, at: clock))
                throw error
            }
        }
    }

    /// - Returns: the event of the last effect; nil at the end of the round.
    private func perform(_ effects: [NorthboundMachine.Effect]) async throws -> NorthboundMachine.Event? {
        var event: NorthboundMachine.Event?
        for effect in effects { event = try await perform(effect) }
        return event
    }

    private func perform(_ effect: NorthboundMachine.Effect) async throws -> NorthboundMachine.Event? {
        switch effect {
        case .readNews: return .news(await client.takeChanges())
        case .readGateways:
            let isKnown = await reconciler.southbound.currentSchema != nil
            return .gateways(isKnown ? await reconciler.fleet.gateways() : nil)
        case .readGatewayPorts:
            return .gatewayPorts(
                try await database.read { connection in
                    try connection.query("SELECT gateway_port_id FROM routers WHERE gateway_port_id IS NOT NULL")
                        .map { try $0.uuid("gateway_port_id") }
                })
        case .readSubjects: return .allSubjects(Set(try await database.snapshot { try NorthboundReader.all($0) }))
        case .exchange(let job): return .work(try await ledger.run(job))
        case .awaitAnswer(let flight): return .answer(try await answer(to: flight))
        case .record(let findings):
            let now = reconciler.ambient.now
            Repairs.log(reconciler.log, findings)
            try await database.write { try Repairs.record($0, service: "network", findings, at: now) }
            return .done
        case .requestControllerSync:
            try await client.transact([
                .assertLock(NorthboundReconciler.lock),
                .mutate(table: "NB_Global", where: [], mutations: [.add("nb_cfg", 1)]),
            ])
            return .done
        case .send(let flight, let operations):
            let client = client
            replies[flight] = Task { try await NorthboundWorker.transact(operations, client) }
        case .discard(let flight): _ = await replies.removeValue(forKey: flight)?.result
        case .countOperations(let count, let isAudit):
            reconciler.metrics.increment(
                "wolke_northbound_operations_total", [("cause", isAudit ? "audit" : "change")], by: Double(count),
                help: "Operations on OVN's northbound database.")
        case .reportRefusal(let subject, let reason):
            reconciler.log.error("OVN refused a change", metadata: ["subject": "\(subject)", "reason": "\(reason)"])
            reconciler.metrics.increment("wolke_northbound_refused_total", help: "Changes that OVN refused.")
        case .reportUnkept(let subject): reconciler.log.error("OVN does not retain a change", metadata: ["subject": "\(subject)"])
        case .auditDone(let number): reconciler.audits.done = number
        case .finish: break
        }
        return nil
    }

    private static func transact(_ operations: [NBOperation], _ client: OVSDBClient) async throws {
        var transaction = OVSDBTransaction([OVSDBOperation.assertLock(NorthboundReconciler.lock)]) { $0.write(to: &$1) }
        try transaction.append(operations.gathered) { try NorthboundConversion.operation($0).write(to: &$1) }
        try await client.transact(transaction)
    }

    /// - Throws: errors after which it is unknown whether OVN applied the plan, and errors that a retry may fix.
    private func answer(to flight: Int) async throws -> NorthboundMachine.Answer {
        do { try await replies.removeValue(forKey: flight)?.value } catch let error as OVSDBError {
            guard case .transaction = error, !error.isPassing else { throw error }
            return .refused("\(error)")
        }
        return .committed
    }
}
