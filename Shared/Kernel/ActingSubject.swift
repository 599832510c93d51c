/// For whom a service calls another one: the callee's policy decides about this project and user, not about the service
/// (docs/adr/0010-on-behalf-of.md).
package struct ActingSubject: Sendable, Hashable {
    /// Which roles the subject has.
    package enum Grounds: String, Sendable {
        /// Those that the user has in the project now, like a token's.
        case user
        /// The caller decided about the user when it accepted a request and now carries the request out: the subject is
        /// a member of the project and nothing more, whatever has become of the user since.
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
    /// - Parameter administrator: who asked, where the request was accepted only because of an administrator's rights.
    ///   The callee then decides by the rights that this administrator has when it is called.
    package static func accepted(project: String, user: String, administrator: ActingSubject? = nil) -> ActingSubject {
        administrator ?? ActingSubject(project: project, user: user, grounds: .accepted)
    }

    package static let projectHeader = "x-wolke-subject-project"
    package static let userHeader = "x-wolke-subject-user"
    package static let groundsHeader = "x-wolke-subject-grounds"
    /// What the names of all subject headers begin with.
    package static let headerPrefix = "x-wolke-subject-"

    /// The headers of a call on behalf of the subject.
    package var headers: [(String, String)] {
        [
            (ActingSubject.projectHeader, project), (ActingSubject.userHeader, user),
            (ActingSubject.groundsHeader, grounds.rawValue),
        ]
    }
}
