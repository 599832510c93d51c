import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension JSONObject {
    /// The text of a member; nil if it is absent or null.
    func text(_ name: String) -> String? { self[name]?.stringValue }
    func bool(_ name: String) -> Bool? { self[name]?.boolValue }
    func int(_ name: String) -> Int? { self[name]?.intValue }
    func list(_ name: String) -> [JSONValue]? { self[name]?.arrayValue }

    /// A member that the schema has validated as a UUID.
    func uuid(_ name: String) throws -> UUID128? {
        guard let text = text(name) else { return nil }
        return try JSONObject.uuid(text, name)
    }

    static func uuid(_ text: String, _ name: String) throws -> UUID128 {
        guard let uuid = UUID128(text) else {
            throw ResourceError.badRequest("Invalid input for \(name). Reason: '\(text.prefix(64))' is not a valid UUID.")
        }
        return uuid
    }

    static func address(_ text: String, _ name: String) throws -> IPAddress {
        guard let address = IPAddress(text) else {
            throw ResourceError.badRequest("Invalid input for \(name). Reason: '\(text.prefix(64))' is not a valid IP address.")
        }
        return address
    }

    func address(_ name: String) throws -> IPAddress? { try text(name).map { try JSONObject.address($0, name) } }

    /// The tags in the request; nil if absent.
    func tags() throws -> [String]? {
        guard let values = list("tags") else { return nil }
        return try Tags.checked(values.compactMap(\.stringValue))
    }
}

extension RequestContext {
    /// The objects of a create request (one or many), and whether the response is a list.
    func items(_ name: String, plural: String) -> (items: [JSONObject], isBulk: Bool) {
        if let one = body[name]?.objectValue { return ([one], false) }
        return (body[plural]?.arrayValue?.compactMap(\.objectValue) ?? [], true)
    }

    /// The project of a new resource, after the decision that the caller may create it.
    ///
    /// - Parameter attributes: members with an action of their own (`create_network:shared`), unless they have their default
    ///   value.
    func authorizeCreate(
        _ item: JSONObject, _ name: String, attributes: [(name: String, unless: JSONValue)] = []
    ) throws -> Authorized<String> {
        let asked = item.text("project_id") ?? item.text("tenant_id")
        if let project = item.text("project_id"), let tenant = item.text("tenant_id"), project != tenant {
            throw ResourceError.badRequest(
                "'project_id' and 'tenant_id' have been specified but with different values.")
        }
        let project = try asked ?? caller.requireProject()
        guard !project.isEmpty else { throw ResourceError.badRequest("Invalid input for project_id. Reason: it is empty.") }
        let target = PolicyTarget.project(project)
        let decision = try authorize(project, target: target, action: "create_\(name)")
        for attribute in attributes {
            guard let value = item[attribute.name], !value.isNull, value != attribute.unless else { continue }
            try authorize(target: target, action: "create_\(name):\(attribute.name)")
        }
        return decision
    }

    /// Decides about members of an update that have an action of their own.
    func authorizeAttributes(_ item: JSONObject, _ name: String, _ attributes: [String], target: PolicyTarget) throws {
        for attribute in attributes where item[attribute] != nil {
            try authorize(target: target, action: "update_\(name):\(attribute)")
        }
    }
}
