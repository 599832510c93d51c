package import Contracts
package import JSON
import Kernel

/// The messages from the control plane to `agent.<host>`.
package enum PlaneMessage: Sendable, Hashable {
    case ensure(DesiredServer)
    /// The complete set of servers of this host.
    case sync(servers: [DesiredServer], unreadable: [UnreadableServer])
    case consoleLog(serverID: String, lines: Int?)
    case diagnostics(serverID: String, ofHypervisor: Bool)
    case hostUptime
    case processors(serverID: String)
    case crashDump(serverID: String)
    case setPassword(SetPasswordQuestion)
    case connectConsole(ConsoleConnection)
    case cacheImages([DesiredImage])

    /// - Throws: `FormError`.
    package static func decode(_ body: JSONValue) throws(FormError) -> PlaneMessage {
        switch body["type"]?.stringValue {
        case EnsureServer.type: return .ensure(try DesiredServer.decode(try read(body, EnsureServer.self).server.document))
        case SyncServers.type:
            var servers: [DesiredServer] = []
            var unreadable: [UnreadableServer] = []
            for server in try read(body, SyncServers.self).servers {
                do { servers.append(try DesiredServer.decode(server.document)) } catch {
                    unreadable.append(UnreadableServer(document: server.document, error: error))
                }
            }
            return .sync(servers: servers, unreadable: unreadable)
        case ConsoleLogQuestion.type:
            let question = try read(body, ConsoleLogQuestion.self)
            return .consoleLog(
                serverID: try FormRules("message").uuid("server_id", question.serverID), lines: question.lines.map { max(0, $0) })
        case DiagnosticsQuestion.type:
            let question = try read(body, DiagnosticsQuestion.self)
            return .diagnostics(
                serverID: try FormRules("message").uuid("server_id", question.serverID), ofHypervisor: question.ofHypervisor ?? false)
        case HostUptimeQuestion.type: return .hostUptime
        case ProcessorsQuestion.type:
            return .processors(serverID: try FormRules("message").uuid("server_id", try read(body, ProcessorsQuestion.self).serverID))
        case CrashDumpQuestion.type:
            return .crashDump(serverID: try FormRules("message").uuid("server_id", try read(body, CrashDumpQuestion.self).serverID))
        case SetPasswordQuestion.type:
            var question = try read(body, SetPasswordQuestion.self)
            question.serverID = try FormRules("message").uuid("server_id", question.serverID)
            return .setPassword(question)
        case ConsoleConnection.type:
            let order = try read(body, ConsoleConnection.self)
            _ = try FormRules("message").uuid("server_id", order.serverID)
            return .connectConsole(order)
        case CacheImages.type:
            let order = try read(body, CacheImages.self)
            return .cacheImages(
                try FormRules("message").list("images", order.images) { (image, form) throws(FormError) in
                    try DesiredImage(image, project: order.projectID, user: order.userID, form)
                })
        case let other?: throw FormRules("message").wrong("type", "\"\(other)\" is not known to this agent")
        case nil: throw FormRules("message").wrong("type", "is missing")
        }
    }

    private static func read<Body: MessageBody>(_ body: JSONValue, _ type: Body.Type) throws(FormError) -> Body {
        try FormError.wrap("message") { try Body(document: body) }
    }
}

extension ObservedDomain {
    /// The power in the words of a report.
    package func reportedPower(desired: DesiredPower?) -> ReportedPower {
        switch power {
        case .running, .stopping: .running
        case .paused: .paused
        case .shutoff:
            if hasManagedSave {
                .suspended
            } else if offReason == .failure, desired == .running {
                .crashed
            } else {
                .shutoff
            }
        }
    }
}
