import JSON
import Kernel

/// A malformed message; names the field.
package struct FormError: Error, Sendable, CustomStringConvertible, Hashable {
    package let path: String
    package let problem: String
    package init(path: String, problem: String) {
        self.path = path
        self.problem = problem
    }
    package var description: String { "\(path): \(problem)" }
}

extension FormError {
    /// Runs `read` and adds the failing member to the error.
    ///
    /// - Parameter path: the path of the value that is read.
    static func wrap<Value>(_ path: String, _ read: () throws -> Value) throws(FormError) -> Value {
        do { return try read() } catch let error as DecodingError {
            throw FormError(path: error.path.isEmpty ? path : "\(path).\(error.path)", problem: error.problem)
        } catch { throw FormError(path: path, problem: "\(error)") }
    }
}

/// Checks rules beyond the types of values; errors name the member that violates a rule.
struct FormRules {
    let path: String

    init(_ path: String) { self.path = path }

    /// A checker for the content of a member.
    func inner(_ name: String) -> FormRules { FormRules("\(path).\(name)") }

    func wrong(_ name: String, _ problem: String) -> FormError { FormError(path: "\(path).\(name)", problem: problem) }

    /// Each element with a checker for its path.
    func list<Source, Element>(
        _ name: String, _ values: [Source], _ read: (Source, FormRules) throws(FormError) -> Element
    ) throws(FormError) -> [Element] {
        var result: [Element] = []
        result.reserveCapacity(values.count)
        for (index, value) in values.enumerated() { result.append(try read(value, inner("\(name)[\(index)]"))) }
        return result
    }

    func present<Value>(_ name: String, _ value: Value?) throws(FormError) -> Value {
        guard let value else { throw wrong(name, "is missing") }
        return value
    }

    func uuid(_ name: String, _ text: String) throws(FormError) -> String {
        guard let uuid = UUID128(text) else { throw wrong(name, "must be a UUID") }
        return uuid.description
    }

    func integer(_ name: String, _ number: Int, in range: ClosedRange<Int>) throws(FormError) -> Int {
        guard range.contains(number) else {
            throw wrong(name, "must be from \(range.lowerBound) to \(range.upperBound), not \(number)")
        }
        return number
    }

    func base64(_ name: String, _ text: String) throws(FormError) -> [UInt8] {
        guard let bytes = Base64.decode(text, lineBreaks: true) else { throw wrong(name, "must be base64") }
        return bytes
    }

    func address(_ name: String, _ text: String) throws(FormError) -> IPAddress {
        guard let address = IPAddress(text) else { throw wrong(name, "must be an IP address") }
        return address
    }

    func network(_ name: String, _ text: String) throws(FormError) -> IPNetwork {
        guard let network = IPNetwork(text) else { throw wrong(name, "must be a CIDR") }
        return network
    }

    func mac(_ name: String, _ text: String) throws(FormError) -> MACAddress {
        guard let mac = MACAddress(text) else { throw wrong(name, "must be a MAC address") }
        return mac
    }
}

/// Reads the members of a record in one of the agent's own files and names the wrong one in errors.
struct FieldReader {
    let object: JSONObject
    let path: String

    init(_ value: JSONValue, path: String) throws(FormError) {
        guard let object = value.objectValue else {
            throw FormError(path: path, problem: "must be an object, not \(value.kindName)")
        }
        self.object = object
        self.path = path
    }

    func path(_ name: String) -> String { path.isEmpty ? name : "\(path).\(name)" }

    func wrong(_ name: String, _ problem: String) -> FormError { FormError(path: path(name), problem: problem) }

    private func present(_ name: String) -> JSONValue? {
        guard let value = object[name], !value.isNull else { return nil }
        return value
    }

    func optionalText(_ name: String) throws(FormError) -> String? {
        guard let value = present(name) else { return nil }
        guard let text = value.stringValue else { throw wrong(name, "must be a string, not \(value.kindName)") }
        return text
    }

    func text(_ name: String) throws(FormError) -> String {
        guard let text = try optionalText(name) else { throw wrong(name, "is missing") }
        return text
    }

    func uuid(_ name: String) throws(FormError) -> String {
        let text = try text(name)
        guard let uuid = UUID128(text) else { throw wrong(name, "must be a UUID") }
        return uuid.description
    }

    func optionalInteger(_ name: String) throws(FormError) -> Int? {
        guard let value = present(name) else { return nil }
        guard let number = value.intValue else { throw wrong(name, "must be an integer, not \(value.kindName)") }
        return number
    }

    func integer(_ name: String, in range: ClosedRange<Int>, default fallback: Int? = nil) throws(FormError) -> Int {
        guard let number = try optionalInteger(name) ?? fallback else { throw wrong(name, "is missing") }
        guard range.contains(number) else {
            throw wrong(name, "must be from \(range.lowerBound) to \(range.upperBound), not \(number)")
        }
        return number
    }

    /// Each element of a list as an object; an absent list is empty.
    func list<Element>(
        _ name: String, _ read: (FieldReader) throws(FormError) -> Element
    ) throws(FormError) -> [Element] {
        guard let value = present(name) else { return [] }
        guard let elements = value.arrayValue else { throw wrong(name, "must be an array, not \(value.kindName)") }
        var result: [Element] = []
        for (index, element) in elements.enumerated() {
            result.append(try read(try FieldReader(element, path: "\(path(name))[\(index)]")))
        }
        return result
    }
}
