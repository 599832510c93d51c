import JSON
import Kernel
import WebAPI

extension RouteSweep {
    /// Subject headers as somebody might forge them: all three, one, other spellings, repeated, unknown.
    private static let forgeries: [[(String, String)]] = {
        let subject = ActingSubject(project: "p1", user: "u1", grounds: .accepted).headers
        return [
            subject, subject.map { ($0.0.uppercased(), $0.1) }, subject.map { ($0.0.replacing("-", with: "_"), $0.1) },
            [(ActingSubject.projectHeader, "p1")], [("X-Wolke_Subject-USER", "u1")], subject + subject,
            [("x-wolke-subject-roles", "admin")], [(ActingSubject.groundsHeader, "")],
        ]
    }()

    /// Whether any user may, without a role: what everybody sees, and what belongs to the user.
    static func isForEverybody(_ route: Route) -> Bool { ["@", "rule:admin_or_owner"].contains(route.rule) }

    /// Routes that answer anything but 403 to subject headers from callers who are no services, and effects of that.
    ///
    /// - Parameter tokens: of callers without the role `service`, an administrator among them.
    package func forgedSubjects(_ tokens: [String]) async throws -> [String] {
        var findings: [String] = []
        let before = try await digest()
        for headers in RouteSweep.forgeries {
            for token in tokens {
                findings += try await with(headers: headers).outcomes(token) { $0.action != nil }.filter { $0.status != 403 }.map {
                    "\(headers.map(\.0)) from \(token): \($0)"
                }
            }
        }
        return try await findings + changed(since: before)
    }

    /// Routes that let a service in that names no subject, or names one for what no service does on behalf of others.
    ///
    /// - Parameters:
    ///   - token: a service's; its user should have the role `admin` too, which must not count.
    ///   - except: actions that are for services by themselves, beside those for everybody.
    package func servicesAlone(_ token: String, except: Set<String> = []) async throws -> [String] {
        let before = try await digest()
        let alone = try await outcomes(token) { $0.action != nil && !RouteSweep.isForEverybody($0) && !except.contains($0.action ?? "") }
            // A path that begins with a project is the token's own.
            .filter { ![403, 404].contains($0.status) && !($0.status == 400 && $0.route.contains("/{project_id}/")) }
            .map { "without a subject: \($0)" }
        let subject = ActingSubject(project: "p1", user: "u1", grounds: .accepted)
        let allowed = api.service.subjectActions
        let other = try await with(headers: subject.headers).outcomes(token) { $0.action != nil && !allowed.contains($0.action ?? "") }
            .filter { $0.status != 403 }.map { "for p1: \($0)" }
        let stranger = ActingSubject(project: "p2", user: "u3", grounds: .accepted)
        let foreign = try await with(headers: stranger.headers).outcomes(token) {
            $0.path.contains("{") && allowed.contains($0.action ?? "") && !$0.path.contains("{project_id}")
        }.filter { ![403, 404].contains($0.status) }.map { "for p2: \($0)" }
        return try await alone + other + foreign + changed(since: before)
    }
}
