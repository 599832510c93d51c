import Database
import JSON
import Kernel
import Logging
import Workflow

extension StepFailure {
    /// The `fault` of a server.
    func fault(at now: Timestamp) -> JSONValue {
        ["code": 500, "created": .string(now.iso8601), "message": .string(message), "details": JSONValue(details)]
    }
}

extension Compute {
    /// Logs why a workflow of a server has failed.
    func log(_ failure: StepFailure, of server: String, _ message: String) {
        log.warning(
            "\(message)", metadata: ["server": "\(server)", "message": "\(failure.message)", "details": "\(failure.details ?? "")"])
    }
}

extension ServerActions {
    /// Like `finish`.
    ///
    /// - Parameter failure: nil if the action succeeded.
    static func finish(
        _ connection: Connection, server: String, action: String, failure: StepFailure?, now: Timestamp
    ) throws {
        try finish(connection, server: server, action: action, error: failure?.message, details: failure?.description, now: now)
    }
}
