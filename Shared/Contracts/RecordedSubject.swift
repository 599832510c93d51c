import Kernel

/// A user as rows, workflows and messages keep them, to act for with the rights that they have when the work is done.
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
