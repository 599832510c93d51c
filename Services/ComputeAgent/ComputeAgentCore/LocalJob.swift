package import Contracts
import JSON

/// A job that the agent has started. The server's record keeps it until the control plane no longer lists the job.
package struct LocalJob: Sendable, Hashable {
    package let id: String
    package var state: ServerJobReport.State
    /// The error for operators, and the one for the server's owner.
    package var error: String?
    package var reason: String?
    /// The last reported phase.
    package var phase: String?
    /// Files outside the server's directory that the job creates. After the job they belong to the control plane.
    package var files: [String]
    /// The new volume of a swap.
    package var exchange: ExchangedVolume?

    package init(
        id: String, state: ServerJobReport.State = .running, error: String? = nil, reason: String? = nil, phase: String? = nil,
        files: [String] = [], exchange: ExchangedVolume? = nil
    ) {
        self.exchange = exchange
        self.phase = phase
        self.files = files
        self.id = id
        self.state = state
        self.error = error
        self.reason = reason
    }

    var document: JSONValue {
        [
            "id": .string(id), "state": .string(state.rawValue), "error": JSONValue(error), "reason": JSONValue(reason),
            "phase": JSONValue(phase), "files": JSONValue(files), "exchange": exchange?.document ?? .null,
        ]
    }

    init(_ fields: FieldReader) throws(FormError) {
        let state = try fields.text("state")
        guard let known = ServerJobReport.State(rawValue: state) else { throw fields.wrong("state", "is \"\(state)\"") }
        let exchange = fields.object["exchange"] ?? .null
        self.init(
            id: try fields.text("id"), state: known, error: try fields.optionalText("error"), reason: try fields.optionalText("reason"),
            phase: try fields.optionalText("phase"),
            files: (fields.object["files"]?.arrayValue ?? []).compactMap(\.stringValue),
            exchange: exchange.isNull ? nil : try ExchangedVolume(FieldReader(exchange, path: fields.path("exchange"))))
    }

    /// Whether changes to the guest are deferred until the swap has finished, because the control plane has been told that the new volume
    /// has every write of the guest.
    package var holdsGuest: Bool { exchange != nil && state == .running && phase == ServerJobReport.synchronized }
}

/// The file of the new volume of a swap, and the size of the volume after the swap.
package struct ExchangedVolume: Sendable, Hashable {
    package let path: String
    /// `raw` or `qcow2`.
    package let format: String
    package let bytes: Int

    package init(path: String, format: String, bytes: Int) {
        self.path = path
        self.format = format
        self.bytes = bytes
    }

    var document: JSONValue { ["path": .string(path), "format": .string(format), "bytes": JSONValue(bytes)] }

    init(_ fields: FieldReader) throws(FormError) {
        self.init(path: try fields.text("path"), format: try fields.text("format"), bytes: try fields.integer("bytes", in: 0...Int.max))
    }
}

/// The jobs to start, cancel and forget.
package struct JobPlan: Sendable, Hashable {
    /// Started earlier and no longer wanted: to be cancelled, and their leftovers removed.
    package var dropped: [LocalJob]
    /// To be started, or started again after a restart of the agent.
    package var begun: [ServerJob]

    /// - Parameters:
    ///   - wanted: the jobs of the desired state.
    ///   - known: the jobs of the record.
    ///   - active: ids of the jobs that this process is working on.
    package init(wanted: [ServerJob], known: [LocalJob], active: Set<String>) {
        dropped = known.filter { job in !wanted.contains { $0.id == job.id } }
        begun = wanted.filter { job in
            guard let old = known.first(where: { $0.id == job.id }) else { return true }
            return old.state == .running && !active.contains(job.id)
        }
    }
}
