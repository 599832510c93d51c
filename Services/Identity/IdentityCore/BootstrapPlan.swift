package import JSON
package import Kernel

/// The initial contents of a cloud: the file that `wolke-identity bootstrap --file` reads.
///
///     {
///       "region": "RegionOne",
///       "projects": [{"name": "admin", "description": "…"}, {"name": "service"}, {"name": "demo"}],
///       "users": [
///         {"name": "admin", "password": "…", "default_project": "admin",
///          "assignments": [{"project": "admin", "roles": ["admin"]}, {"system": true, "roles": ["admin"]}]},
///         {"name": "wolke", "password": "…", "assignments": [{"project": "service", "roles": ["service"]}]},
///         {"name": "demo", "password": "…", "assignments": [{"project": "demo", "roles": ["member"]}]}
///       ],
///       "services": [
///         {"type": "compute", "name": "compute", "url": "http://127.0.0.1:8774/v2.1"},
///         {"type": "image", "name": "image",
///          "endpoints": {"public": "http://…", "internal": "http://…", "admin": "http://…"}}
///       ]
///     }
///
/// Everything is in the domain `default`. The roles admin, manager, member, reader and service are always there, and
/// admin implies manager implies member implies reader. `url` stands for the same URL on all three interfaces.
/// Assignments are to a `project` by name, to the `domain` "default", or to the `system`.
package struct BootstrapPlan: Sendable {
    /// The target of a role assignment.
    package enum Target: Sendable, Hashable {
        case project(String)
        case defaultDomain
        case system
    }

    /// A user with the roles that it has at least.
    package struct User: Sendable {
        package let name: String
        package let password: Secret<String>
        package let defaultProject: String?
        package let assignments: [(target: Target, roles: [String])]
    }

    /// A service of the catalog.
    package struct Service: Sendable {
        package let type: String
        package let name: String
        package let description: String
        /// Interface → URL.
        package let endpoints: [(interface: String, url: String)]
    }

    package static let roles = ["admin", "manager", "member", "reader", "service"]
    package static let implied = [("admin", "manager"), ("manager", "member"), ("member", "reader")]

    package let region: String
    package let projects: [(name: String, description: String)]
    package let users: [User]
    package let services: [Service]

    /// The names of the projects of the cloud's operators: those in which a user has a role of operators, and the default projects
    /// of users with such a role anywhere.
    ///
    /// - Parameter operatorRoles: the names of these roles in lower case.
    package func cloudProjects(_ operatorRoles: [String]) -> [String] {
        var names: Set<String> = []
        for user in users {
            let powerful = user.assignments.filter { $0.roles.contains { operatorRoles.contains($0.lowercased()) } }
            for case .project(let name) in powerful.map(\.target) { names.insert(name) }
            if !powerful.isEmpty, let name = user.defaultProject { names.insert(name) }
        }
        return names.sorted()
    }

    /// - Throws: 400 that names the place in the document and what is wrong there.
    package init(_ document: JSONValue) throws {
        let root = try BootstrapPlan.object(document, "the document", allowed: ["region", "projects", "users", "services"])
        region = try BootstrapPlan.text(root["region"] ?? "RegionOne", "region", max: 255)
        projects = try BootstrapPlan.list(root["projects"], "projects").enumerated().map { index, value in
            let object = try BootstrapPlan.object(value, "projects[\(index)]", allowed: ["name", "description"])
            return (
                try BootstrapPlan.text(object["name"], "projects[\(index)].name", max: 64),
                try BootstrapPlan.text(object["description"] ?? "", "projects[\(index)].description", min: 0, max: 4096)
            )
        }
        let names = Set(projects.map(\.name))
        users = try BootstrapPlan.list(root["users"], "users").enumerated().map {
            try BootstrapPlan.user($1, "users[\($0)]", projects: names)
        }
        services = try BootstrapPlan.list(root["services"], "services").enumerated().map {
            try BootstrapPlan.service($1, "services[\($0)]")
        }
    }

    private static func user(_ value: JSONValue, _ path: String, projects: Set<String>) throws -> User {
        let object = try object(value, path, allowed: ["name", "password", "default_project", "assignments"])
        let assignments = try list(object["assignments"], path + ".assignments").enumerated().map { index, value in
            try assignment(value, "\(path).assignments[\(index)]", projects: projects)
        }
        let project = try object["default_project"].map { try text($0, path + ".default_project", max: 64) }
        if let project, !projects.contains(project) { throw unknown(path + ".default_project", project) }
        return User(
            name: try text(object["name"], path + ".name", max: 255),
            password: Secret(try text(object["password"], path + ".password", max: 4096)), defaultProject: project,
            assignments: assignments)
    }

    private static func assignment(
        _ value: JSONValue, _ path: String, projects: Set<String>
    ) throws -> (target: Target, roles: [String]) {
        let object = try object(value, path, allowed: ["project", "domain", "system", "roles"])
        let target: Target
        if let project = object["project"]?.stringValue {
            guard projects.contains(project) else { throw unknown(path + ".project", project) }
            target = .project(project)
        } else if object["domain"]?.stringValue == "default" {
            target = .defaultDomain
        } else if object["system"]?.boolValue == true {
            target = .system
        } else {
            throw ResourceError.badRequest("\(path) needs \"project\", \"domain\": \"default\" or \"system\": true")
        }
        let roles = try list(object["roles"], path + ".roles").map { try text($0, path + ".roles", max: 255) }
        for role in roles where !BootstrapPlan.roles.contains(role) { throw unknown(path + ".roles", role) }
        return (target, roles)
    }

    private static func service(_ value: JSONValue, _ path: String) throws -> Service {
        let object = try object(value, path, allowed: ["type", "name", "description", "url", "endpoints"])
        var endpoints: [(interface: String, url: String)] = []
        for interface in ["public", "internal", "admin"] {
            guard let value = object["endpoints"]?[interface] ?? object["url"] else { continue }
            let url = try text(value, "\(path).endpoints.\(interface)", max: 2048)
            guard CatalogURL.isUsable(url) else {
                throw ResourceError.badRequest("\(path): \"\(url)\" is not an http or https URL with known placeholders")
            }
            endpoints.append((interface, url))
        }
        let type = try text(object["type"], path + ".type", max: 255)
        return Service(
            type: type, name: try text(object["name"] ?? .string(type), path + ".name", max: 255),
            description: try text(object["description"] ?? "", path + ".description", min: 0, max: 4096),
            endpoints: endpoints)
    }

    // MARK: parts

    private static func object(_ value: JSONValue, _ path: String, allowed: [String]) throws -> JSONObject {
        guard let object = value.objectValue else { throw ResourceError.badRequest("\(path) must be an object") }
        if let name = object.names.first(where: { !allowed.contains($0) }) {
            throw ResourceError.badRequest("\(path) has the unknown member \"\(name)\"; known: \(allowed.joined(separator: ", "))")
        }
        return object
    }

    private static func list(_ value: JSONValue?, _ path: String) throws -> [JSONValue] {
        guard let value else { return [] }
        guard let array = value.arrayValue else { throw ResourceError.badRequest("\(path) must be a list") }
        return array
    }

    private static func text(_ value: JSONValue?, _ path: String, min: Int = 1, max: Int) throws -> String {
        guard let text = value?.stringValue, (min...max).contains(text.unicodeScalars.count), !text.utf8.contains(0) else {
            throw ResourceError.badRequest("\(path) must be a text of \(min) to \(max) characters")
        }
        return text
    }

    private static func unknown(_ path: String, _ name: String) -> ResourceError {
        .badRequest("\(path) names \"\(name)\", which the document does not define")
    }
}
