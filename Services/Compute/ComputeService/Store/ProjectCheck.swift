import Database
import Kernel

/// Whether projects that requests name exist. Identity publishes them.
enum ProjectCheck {
    /// - Throws: 400 if there is no such project.
    static func require(_ connection: Connection, project: String) throws {
        if try connection.query("SELECT 1 AS one FROM published_projects WHERE id = \(project)").isEmpty {
            throw ResourceError.badRequest("Project ID \(project.prefix(64)) is not a valid project.")
        }
    }
}
