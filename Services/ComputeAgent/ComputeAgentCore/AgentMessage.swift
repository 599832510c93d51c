import JSON
import Kernel

/// What the plane sends to `agent.<host>`.
package enum PlaneMessage: Sendable, Hashable {
    case ensure(DesiredServer)
    /// Everything that belongs on this host. A server that could not be read stands with its id and the reason.
    case sync(servers: [DesiredServer], unreadable: [FormError])
    case consoleLog(serverID: String, lines: Int?)
    case diagnostics(serverID: String)

    /// - Throws: `FormError`.
    package static func decode(_ value: JSONValue) throws(FormError) -> PlaneMessage {
        let fields = try FieldReader(value, path: "message")
        switch try fields.text("type") {
        case "ensure":
            guard let server = fields.object["server"] else { throw fields.wrong("server", "is missing") }
            return .ensure(try DesiredServer.decode(server))
        case "sync":
            guard let list = fields.object["servers"]?.arrayValue else {
                throw fields.wrong("servers", "must be an array")
            }
            var servers: [DesiredServer] = []
            var unreadable: [FormError] = []
            for value in list {
                do { servers.append(try DesiredServer.decode(value)) } catch {
                    let id = value["id"]?.stringValue ?? "?"
                    unreadable.append(FormError(path: "server \(id): \(error.path)", problem: error.problem))
                }
            }
            return .sync(servers: servers, unreadable: unreadable)
        case "console_log":
            let lines = try fields.optionalInteger("lines")
            return .consoleLog(serverID: try fields.uuid("server_id"), lines: lines.map { max(0, $0) })
        case "diagnostics": return .diagnostics(serverID: try fields.uuid("server_id"))
        case let other: throw fields.wrong("type", "\"\(other)\" is not known to this agent")
        }
    }
}

/// A server as the agent found or left it.
package struct ObservedReport: Sendable, Hashable {
    /// Whether the generation is in effect.
    package enum State: String, Sendable { case applied, failed }

    package var host: String
    package var serverID: String
    package var generation: Int
    package var epoch: Int
    /// `running`, `shutoff`, `paused`, `suspended`, `crashed` or `absent`.
    package var power: String
    package var state: State
    /// For operators.
    package var error: String?
    /// What the error means for the server's owner: without names of files, hosts or tools.
    package var reason: String?
    /// Trying the same again cannot help.
    package var permanent: Bool
    package var metadataReady: Bool
    package var operationID: String?
    /// A domain on this host that the plane did not order.
    package var unknown: Bool

    package init(
        host: String, serverID: String, generation: Int, epoch: Int, power: String, state: State = .applied,
        error: String? = nil, reason: String? = nil, permanent: Bool = false, metadataReady: Bool = false, operationID: String? = nil,
        unknown: Bool = false
    ) {
        self.host = host
        self.serverID = serverID
        self.generation = generation
        self.epoch = epoch
        self.power = power
        self.state = state
        self.error = error
        self.reason = reason
        self.permanent = permanent
        self.metadataReady = metadataReady
        self.operationID = operationID
        self.unknown = unknown
    }

    package var document: JSONValue {
        [
            "type": "observed", "host": .string(host), "server_id": .string(serverID),
            "generation": JSONValue(generation), "epoch": JSONValue(epoch), "power_state": .string(power),
            "state": .string(state.rawValue), "error": JSONValue(error),
            "reason": JSONValue(reason), "permanent": .bool(permanent),
            "metadata_ready": .bool(metadataReady), "operation_id": JSONValue(operationID),
            "unknown": .bool(unknown),
        ]
    }
}

extension ObservedDomain {
    /// The power in the words of a report.
    package func reportedPower(desired: DesiredPower?) -> String {
        switch power {
        case .running, .stopping: "running"
        case .paused: "paused"
        case .shutoff:
            if hasManagedSave { "suspended" } else if offReason == .failure, desired == .running { "crashed" } else {
                "shutoff"
            }
        }
    }
}
