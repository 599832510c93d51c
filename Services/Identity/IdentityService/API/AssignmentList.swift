import Authorization
import Database
import JSON
import Kernel
import WebAPI

/// `GET /v3/role_assignments`
extension Identity {
    func listAssignments(_ context: RequestContext) async throws -> Response {
        let own = try context.caller.domainID
        try context.authorize(target: ["target.domain_id": own])
        let query = context.query
        let effective = Identity.isSet(query, "effective")
        let names = Identity.isSet(query, "include_names")
        if effective, query["group.id"] != nil {
            throw ResourceError.badRequest("Combining effective and group filter will always result in an empty list.")
        }
        let conditions = try Identity.assignmentConditions(query, domain: own)
        return try await database.read { connection in
            let rows = try Identity.assignments(connection, effective: effective, where: conditions)
            let list = try rows.map { try Identity.assignment($0, names: names, context) }
            return .json(
                200,
                [
                    "role_assignments": .array(list),
                    "links": context.wholeListLinks,
                ])
        }
    }

    private static func assignment(_ row: Row, names: Bool, _ context: RequestContext) throws -> JSONValue {
        func entity(_ kind: String) throws -> JSONValue? {
            guard let id = try row.optionalString(kind + "_id") else { return nil }
            var object: JSONObject = ["id": .string(id)]
            if names {
                object["name"] = JSONValue(try row.optionalString(kind + "_name"))
                if kind != "domain" {
                    let domain = try row.optionalString(kind + "_domain_id")
                    object["domain"] =
                        try domain.map {
                            ["id": .string($0), "name": JSONValue(try row.optionalString(kind + "_domain_name"))]
                        } ?? (kind == "role" ? nil : .null)
                }
            }
            return .object(object)
        }
        var scope = JSONObject()
        var path = "/v3"
        let inherited = try row.bool("inherited")
        if inherited {
            scope["OS-INHERIT:inherited_to"] = "projects"
            path += "/OS-INHERIT"
        }
        if let project = try entity("project") {
            scope["project"] = project
            path += "/projects/\(try row.string("project_id"))"
        } else if let domain = try entity("domain") {
            scope["domain"] = domain
            path += "/domains/\(try row.string("domain_id"))"
        } else {
            scope["system"] = ["all": true]
            path += "/system"
        }
        var object: JSONObject = ["scope": .object(scope), "role": try entity("role") ?? .null]
        if let user = try entity("user") {
            object["user"] = user
            path += "/users/\(try row.string("user_id"))"
        } else if let group = try entity("group") {
            object["group"] = group
            path += "/groups/\(try row.string("group_id"))"
        }
        path += "/roles/\(try row.string("role_id"))" + (inherited ? "/inherited_to_projects" : "")
        object["links"] = ["assignment": .string(context.publicURL + path)]
        return .object(object)
    }
}
