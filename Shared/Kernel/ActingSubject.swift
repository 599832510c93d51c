/// The user and project on whose behalf a service calls another one. The callee's policy is evaluated for them, not for the
/// service (docs/adr/0010-on-behalf-of.md).
package struct ActingSubject: Sendable, Hashable {
    /// The origin of the subject's roles.
    package enum Grounds: String, Sendable {
        /// The roles that the user has in the project now, as for a token.
        case user
        /// The caller authorized the user when it accepted the request and now carries it out. The subject acts as a plain
        /// member of the project, even if the user's roles have changed since.
        case accepted
    }

    package let project: String
    package let user: String
    package let grounds: Grounds

    package init(project: String, user: String, grounds: Grounds) {
        self.project = project
        self.user = user
        self.grounds = grounds
    }

    /// The subject of work on an accepted request.
    ///
    /// - Parameter administrator: the requesting administrator, if the request was accepted only because of administrator
    ///   rights. The callee then checks the rights that this administrator has at the time of the call.
    package static func accepted(project: String, user: String, administrator: ActingSubject? = nil) -> ActingSubject {
        administrator ?? ActingSubject(project: project, user: user, grounds: .accepted)
    }

    package static let projectHeader = "x-wolke-subject-project"
    package static let userHeader = "x-wolke-subject-user"
    package static let groundsHeader = "x-wolke-subject-grounds"
    /// Common prefix of the names of all subject headers.
    package static let headerPrefix = "x-wolke-subject-"

    /// The headers of a call on behalf of the subject.
    package var headers: [(String, String)] {
        [
            (ActingSubject.projectHeader, project), (ActingSubject.userHeader, user),
            (ActingSubject.groundsHeader, grounds.rawValue),
        ]
    }
}
