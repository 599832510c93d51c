import JSON
import Kernel
import WebAPI

extension RouteSweep {
    /// Forged subject headers: all three, one, other spellings, repeated, unknown.
    private static let forgeries: [[(String, String)]] = {
        let subject = ActingSubject(project: "p1", user: "u1", grounds: .accepted).headers
        return [
            subject, subject.map { ($0.0.uppercased(), $0.1) }, subject.map { ($0.0.replacing("-", with: "_"), $0.1) },
            [(ActingSubject.projectHeader, "p1")], [("X-Wolke_Subject-USER", "u1")], subject + subject,
            [("x-wolke-subject-roles", "admin")], [(ActingSubject.groundsHeader, "")],
        ]
    }()

    /// Whether any user may do it without a role: actions on public resources and on the user's own.
    static func isForEverybody(_ route: Route) -> Bool { ["@", "rule:admin_or_owner"].contains(route.rule) }

    /// Routes that answer subject headers from callers who are not services with anything but 403, and any effects.
    ///
    /// - Parameter tokens: callers without the role `service`, including an administrator.
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

    /// Routes that accept a service without a subject, or with a subject for an action that no service does on behalf of others.
    ///
    /// - Parameters:
    ///   - token: a service's token; its user should also have the role `admin`, which must be ignored.
    ///   - except: actions allowed to services themselves, in addition to those allowed to everyone.
    package func servicesAlone(_ token: String, except: Set<String> = []) async throws -> [String] {
        let before = try await digest()
        let alone = try await outcomes(token) { $0.action != nil && !RouteSweep.isForEverybody($0) && !except.contains($0.action ?? "") }
            // A path that begins with a project requires the token's own project.
            .filter { ![403, 404].contains($0.status) && !($0.status == 400 && $0.route.contains("/{project_id}/")) }
            .map { "without a subject: \($0)" }
        let subject = ActingSubject(project: "p1", user: "u1", grounds: .accepted)
        let allowed = api.service.subjectActions
        let other = try await with(headers: subject.headers).outcomes(token) { $0.action != nil && !allowed.contains($0.action ?? "") }
            .filter { $0.status != 403 }.map { "for p1: \($0)" }
        let otherProject = ActingSubject(project: "p2", user: "u3", grounds: .accepted)
        let foreign = try await with(headers: otherProject.headers).outcomes(token) {
            $0.path.contains("{") && allowed.contains($0.action ?? "") && !$0.path.contains("{project_id}")
        }.filter { ![403, 404].contains($0.status) }.map { "for p2: \($0)" }
        return try await alone + other + foreign + changed(since: before)
    }
}
