import Client
import JSON
import ServiceCatalog

/// A resource's names and paths: everything that the verbs need to know.
struct Kind: Sendable {
    /// How an object can be named on the command line, in addition to its id.
    enum Naming: Sendable {
        /// By the filter `?name=`.
        case filtered
        /// The list has no such filter, or ids have no recognizable form: the complete list is read and compared.
        case listed
        /// The name is the id.
        case byPath
        /// Only by id.
        case none
    }

    /// The words of the command: `["volume", "snapshot"]`.
    let command: [String]
    /// The noun in sentences: `security group`.
    let noun: String
    let service: CloudService
    /// The path below the API's version: `/servers`.
    let path: RESTPath
    /// The list with all fields, if it has another path: `/servers/detail`.
    var listPath: RESTPath?
    /// The member that wraps one object; nil if there is none (images).
    let member: String?
    /// The member that wraps a list.
    let collection: String
    var microversion: String?
    var naming: Naming = .filtered
    /// The field that users know as the name.
    var nameField = "name"
    var idField = "id"
    /// Added to every list request.
    var listQuery: [(String, String)] = []
    let columns: [OutputColumn]
    /// The fields of `show`; nil for all fields of the API.
    var fields: [OutputColumn]?
    /// How to detect that a change is complete; nil if every change is complete at once.
    var progress: ProgressRule?

    var commandText: String { "osctl " + command.joined(separator: " ") }
    var listCommand: String { commandText + " list" }
    var plural: String { noun.hasSuffix("y") ? noun.dropLast() + "ies" : noun + "s" }
    /// `a server`, `an image`.
    var oneOf: String { (noun.first.map { "aeio".contains($0) } ?? false ? "an " : "a ") + noun }

    /// The name of an object in messages.
    func title(_ object: JSONValue) -> String {
        for field in [nameField, idField] {
            if let text = object[field]?.stringValue, !text.isEmpty { return text }
        }
        return "?"
    }

    func id(_ object: JSONValue) throws -> String {
        if let id = object[idField]?.stringValue { return id }
        if let id = object[idField]?.intValue { return String(id) }
        throw CommandFailure("The service sent \(oneOf) without \(idField).")
    }

    func path(id: String) -> RESTPath { path + "/\(id)" }

    /// The object in the body of a response.
    func object(_ body: JSONValue) throws -> JSONValue {
        guard let member else { return body }
        guard let object = body[member] else { throw CommandFailure("The service's response has no member \(member).") }
        return object
    }

    /// The body of a request.
    func body(_ members: JSONObject) -> JSONValue {
        member.map { .object([$0: .object(members)]) } ?? .object(members)
    }
}

/// The meaning of statuses while waiting.
struct ProgressRule: Sendable {
    let field: String
    /// Statuses of a successful creation.
    let created: Set<String>
    let failed: Set<String>
    /// Statuses that mean deleted, for services that show an object for a while.
    var deleted: Set<String> = []
    /// Details of the state: a task, a fault.
    var detail: @Sendable (JSONValue) -> String = { _ in "" }
    /// Why it failed, according to the object.
    var reason: @Sendable (JSONValue) -> String? = { _ in nil }
    /// The verb that explains a failure.
    var explainedBy = "show"
}
