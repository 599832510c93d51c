import Database
import JSON
import Kernel

/// Finds which field of a request has a value that the database refused.
extension RequestContext {
    /// 400 with the rule, and the field if it can be determined.
    func refusal(of error: DatabaseError) -> ResourceError {
        let found = RefusedInput(error).places(in: self)
        guard !found.isEmpty else { return error.resourceError }
        let names = found.map { "'\($0)'" }.joined(separator: ", ")
        // If PostgreSQL does not report which value it refused, any field used in the statement may be the cause.
        let isKnown = found.count == 1 || error.isNUL || error.inputs.count == 1
        return ResourceError(
            .badRequest, "Invalid value for \(isKnown ? "" : "one of ")\(names). \(error.inputRule)", context: error.description)
    }
}

private struct RefusedInput {
    private let isNUL: Bool
    private let texts: Set<String>

    private static let placesMax = 5
    private static let depthMax = 16

    init(_ error: DatabaseError) {
        isNUL = error.isNUL
        texts = Set(error.inputs)
    }

    private func fits(_ text: String) -> Bool { isNUL ? text.utf8.contains(0) : texts.contains(text) }

    /// Query parameters, path parameters and members of the body (`server.name`, `servers[2].name`).
    func places(in context: RequestContext) -> [String] {
        var places = context.query.items.filter { fits($0.value) || fits($0.name) }.map { shown($0.name) }
        places += context.parameters.filter { fits($0.value) }.keys.sorted()
        search(context.body, "", 0, &places)
        return Array(places.prefix(RefusedInput.placesMax))
    }

    private func search(_ value: JSONValue, _ path: String, _ depth: Int, _ places: inout [String]) {
        guard depth < RefusedInput.depthMax, places.count < RefusedInput.placesMax else { return }
        if let object = value.objectValue {
            for member in object.members {
                let inner = path.isEmpty ? shown(member.name) : "\(path).\(shown(member.name))"
                if fits(member.name) { places.append(inner) } else { search(member.value, inner, depth + 1, &places) }
            }
        } else if let array = value.arrayValue {
            for (index, element) in array.enumerated() { search(element, "\(path)[\(index)]", depth + 1, &places) }
        } else if fits(value.stringValue ?? value.description) {
            places.append(path)
        }
    }

    /// Shortens a name chosen by the client for use in an error message.
    private func shown(_ name: String) -> String {
        String(String.UnicodeScalarView(name.unicodeScalars.prefix(64).map { $0.value < 32 ? "\u{FFFD}" : $0 }))
    }
}
