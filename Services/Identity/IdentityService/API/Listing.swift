import Database
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    /// A kind of Identity's, whose objects link to themselves. A field of the kind `members` holds what clients stored beside
    /// the known attributes.
    ///
    /// - Parameter link: where objects are, without their ids; `/v3/PLURAL` unless it is given.
    static func identity(
        _ name: String, plural: String? = nil, _ table: Table, link: (@Sendable (RequestContext) -> String)? = nil
    ) -> ResourceKind {
        let plural = plural ?? name + "s"
        let place = link ?? { _ in "/v3/\(plural)" }
        let own = Link("self", escapesID: true) { "\($0.publicURL)\(place($0))/" }
        return ResourceKind(
            name, plural: plural, table: table.keyed(by: .text).adding([Field("links", .linkMap([own]))]), visibility: .everything,
            grammar: ListGrammar { $0.hasFields = false }, pages: .object
        ) { Identity.missing(name.replacing("_", with: " "), $0) }
    }
}

extension RequestContext {
    /// Conditions from the query: exact and inexact (`name__contains`) for texts, true or false for flags.
    func conditions(texts: [String: String] = [:], flags: [String: String] = [:]) throws -> [SQL] {
        var conditions: [SQL] = []
        for (parameter, value) in query.items {
            if let column = flags[parameter] {
                guard let flag = value.isEmpty ? true : BodySchema.boolean(value) else {
                    throw ResourceError.badRequest(
                        "Invalid input for query parameter \(parameter). Value: '\(value.prefix(64))'. It must be true or false.")
                }
                conditions.append("\(raw: column) = \(flag)")
                continue
            }
            let parts = parameter.split(separator: "_", omittingEmptySubsequences: false)
            if let column = texts[parameter] {
                conditions.append(value.isEmpty ? "coalesce(\(raw: column), '') = ''" : "\(raw: column) = \(value)")
            } else if parts.count >= 3, parts[parts.count - 2].isEmpty,
                let column = texts[parts.dropLast(2).joined(separator: "_")], let comparison = parts.last
            {
                guard let condition = Self.inexact(column, String(comparison), value) else {
                    throw ResourceError.badRequest(
                        "Invalid query parameter '\(parameter.prefix(64))': texts are compared by contains, startswith and endswith, or these with an i before."
                    )
                }
                conditions.append(condition)
            }
        }
        return conditions
    }

    private static func inexact(_ column: String, _ comparison: String, _ value: String) -> SQL? {
        var escaped = ""
        for character in value {
            if character == "%" || character == "_" || character == "\\" { escaped.append("\\") }
            escaped.append(character)
        }
        let insensitive = comparison.hasPrefix("i")
        let pattern: String
        switch insensitive ? String(comparison.dropFirst()) : comparison {
        case "contains": pattern = "%\(escaped)%"
        case "startswith": pattern = "\(escaped)%"
        case "endswith": pattern = "%\(escaped)"
        default: return nil
        }
        return insensitive ? "\(raw: column) ILIKE \(pattern)" : "\(raw: column) LIKE \(pattern)"
    }
}

extension JSONObject {
    /// The members that are not in `known`: what Keystone stores as they are.
    func extra(beside known: Set<String>) -> JSONObject {
        JSONObject(members.filter { !known.contains($0.name) && $0.name != "links" }.map { ($0.name, $0.value) })
    }
}

/// Turns violations of constraints into the API's errors.
@discardableResult
func storing<Value>(_ kind: String, _ name: String?, _ body: () throws -> Value) throws -> Value {
    do { return try body() } catch let error as DatabaseError {
        if error.isUniqueViolation {
            throw ResourceError.conflict(
                "Conflict occurred attempting to store \(kind) - Duplicate entry found with name \(name ?? "").")
        }
        if error.isForeignKeyViolation {
            throw ResourceError.badRequest("The \(kind) refers to something that does not exist, or is still referred to.")
        }
        if error.isCheckViolation {
            throw ResourceError.badRequest("The \(kind) breaks the rule \(error.constraint ?? "of its table").")
        }
        throw error
    }
}
