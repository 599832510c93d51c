import Contracts
import Database
import Kernel
import Logging
import WebAPI

/// Why hosts cannot take a running server, found out before its move is accepted. It claims nothing: whether the chosen host still has
/// room is decided when the move begins.
struct MovePreview: Sendable {
    /// Sentences by host. Empty if a host can take the server, or if the scheduler does not answer.
    let reasons: [String: [String]]
    private let hasHost: Bool

    /// At most this many hosts are named.
    private static let hostsNamedMax = 8
    /// Filters whose reasons only repeat the request.
    private static let ownFilters: Set<String> = ["ExcludedHostFilter", "RequestedHostFilter"]

    /// - Parameter requested: the host that the request names; nil for any other than the server's.
    /// - Throws: 400 for an extra spec or image property that is invalid for the scheduler.
    static func ask(about server: ServerRecord, to requested: String?, _ compute: Compute) async throws -> MovePreview {
        let (id, source) = (server.id, server.host ?? "")
        let operation = compute.ambient.newUUID()
        let loaded = try await compute.database.read { connection -> (ScheduleServer, [String: [String]])? in
            guard var question = try SchedulingQuestion.load(connection, server: id, operation: operation.description) else { return nil }
            let obstacles = try MoveChecks(connection, compute).obstacles(of: id, from: source)
            question.dryRun = true
            question.host = requested
            question.excludedHosts = [source] + (requested == nil ? obstacles.keys.sorted() : [])
            return (question, obstacles)
        }
        guard let (question, obstacles) = loaded, requested != source else { return MovePreview(reasons: [:], hasHost: true) }
        let answer: SchedulingAnswer
        do {
            answer = try await compute.clients.scheduler.schedule(question, operation: operation)
        } catch let error as ResourceError where error.isRetryable {
            // The move asks again.
            compute.log.info("a move is not checked by the scheduler", metadata: ["server": "\(id)", "error": "\(error)"])
            return MovePreview(reasons: [:], hasHost: true)
        }
        guard answer.result == .rejected else { return MovePreview(reasons: [:], hasHost: true) }
        var reasons = requested == nil ? obstacles : [:]
        for refusal in answer.refusals ?? [] where refusal.host != source && !ownFilters.contains(refusal.filter) {
            reasons[refusal.host, default: []].append(refusal.reason.prefix(1).uppercased() + refusal.reason.dropFirst() + ".")
        }
        return MovePreview(reasons: reasons, hasHost: false)
    }

    /// - Throws: 400 with the reasons if no host can take the server.
    func requireHost(for id: String) throws {
        guard !hasHost else { return }
        var texts = reasons.sorted { $0.key < $1.key }.prefix(MovePreview.hostsNamedMax).map { host, reasons in
            "\(host): \(reasons.joined(separator: " "))"
        }
        if reasons.count > texts.count { texts.append("There are \(reasons.count - texts.count) more hosts.") }
        let explanation = texts.isEmpty ? "there is no other host." : texts.joined(separator: " ")
        throw ResourceError.badRequest("Migration pre-check error: no host can take instance \(id): \(explanation)")
    }
}
