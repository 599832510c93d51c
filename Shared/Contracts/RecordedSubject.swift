package import Kernel

/// A user as recorded in rows, workflows and messages, on whose behalf work is done with the rights that the user has at that
/// time.
package struct RecordedSubject: Codable, Sendable, Hashable {
    package var project: String
    package var user: String

    package init(project: String, user: String) {
        self.project = project
        self.user = user
    }

    package init(_ subject: ActingSubject) { self.init(project: subject.project, user: subject.user) }

    package var subject: ActingSubject { ActingSubject(project: project, user: user, grounds: .user) }
}
