import Client
import JSON
import ServiceCatalog

/// What a resource is called and where it lives: everything that the verbs need to know.
struct Kind: Sendable {
    /// How an object can be named on the command line besides by its id.
    enum Naming: Sendable {
        /// `?name=` finds it.
        case filtered
        /// The list has no such filter, or ids have no recognisable form: the whole list is read and compared.
        case listed
        /// The name is the id.
        case byPath
        /// Ids only.
        case none
    }

    /// The words of the command: `["volume", "snapshot"]`.
    let command: [String]
    /// In sentences: `security group`.
    let noun: String
    let service: CloudService
    /// Below the API's version: `/servers`.
    let path: RESTPath
    /// The list with all fields, where it is another one: `/servers/detail`.
    var listPath: RESTPath?
    /// The member around one object; nil where there is none (images).
    let member: String?
    /// The member around a list.
    let collection: String
    var microversion: String?
    var naming: Naming = .filtered
    /// The field that people call it by.
    var nameField = "name"
    var idField = "id"
    /// Added to every list request.
    var listQuery: [(String, String)] = []
    let columns: [Column]
    /// Fields of `show`; nil shows what the API sends.
    var fields: [Column]?
    /// How it is seen that a change is complete; nil when every change is complete at once.
    var progress: ProgressRule?

    var commandText: String { "osctl " + command.joined(separator: " ") }
    var listCommand: String { commandText + " list" }
    var plural: String { noun.hasSuffix("y") ? noun.dropLast() + "ies" : noun + "s" }
    /// `a server`, `an image`.
    var oneOf: String { (noun.first.map { "aeio".contains($0) } ?? false ? "an " : "a ") + noun }

    /// How an object is called in messages.
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

    /// The object in the body of an answer.
    func object(_ body: JSONValue) throws -> JSONValue {
        guard let member else { return body }
        guard let object = body[member] else { throw CommandFailure("The service's answer has no member \(member).") }
        return object
    }

    /// The body of a request.
    func body(_ members: JSONObject) -> JSONValue {
        member.map { .object([$0: .object(members)]) } ?? .object(members)
    }
}

/// What a status means while waiting.
struct ProgressRule: Sendable {
    let field: String
    /// States in which a creation has succeeded.
    let created: Set<String>
    let failed: Set<String>
    /// States that mean deleted, for services that show an object for a while.
    var deleted: Set<String> = []
    /// More about the state: a task, a fault.
    var detail: @Sendable (JSONValue) -> String = { _ in "" }
    /// Why it failed, in the object's own words.
    var reason: @Sendable (JSONValue) -> String? = { _ in nil }
    /// The verb that says more about a failure.
    var explainedBy = "show"
}
