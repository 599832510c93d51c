import JSON
import Kernel

/// A message that does not have the agreed form; names the field.
package struct FormError: Error, Sendable, CustomStringConvertible, Hashable {
    package let path: String
    package let problem: String
    package init(path: String, problem: String) {
        self.path = path
        self.problem = problem
    }
    package var description: String { "\(path): \(problem)" }
}

/// Reads the members of a JSON object and says exactly which one is wrong.
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

    func flag(_ name: String, default fallback: Bool) throws(FormError) -> Bool {
        guard let value = present(name) else { return fallback }
        guard let flag = value.boolValue else { throw wrong(name, "must be a boolean, not \(value.kindName)") }
        return flag
    }

    func object(_ name: String) throws(FormError) -> JSONObject {
        guard let value = present(name) else { return JSONObject() }
        guard let object = value.objectValue else { throw wrong(name, "must be an object, not \(value.kindName)") }
        return object
    }

    func optionalFields(_ name: String) throws(FormError) -> FieldReader? {
        guard let value = present(name) else { return nil }
        return try FieldReader(value, path: path(name))
    }

    func fields(_ name: String) throws(FormError) -> FieldReader {
        guard let fields = try optionalFields(name) else { throw wrong(name, "is missing") }
        return fields
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

    func address(_ name: String) throws(FormError) -> IPAddress {
        guard let address = IPAddress(try text(name)) else { throw wrong(name, "must be an IP address") }
        return address
    }

    func optionalAddress(_ name: String) throws(FormError) -> IPAddress? {
        guard try optionalText(name) != nil else { return nil }
        return try address(name)
    }

    func network(_ name: String) throws(FormError) -> IPNetwork {
        guard let network = IPNetwork(try text(name)) else { throw wrong(name, "must be a CIDR") }
        return network
    }

    func mac(_ name: String) throws(FormError) -> MACAddress {
        guard let mac = MACAddress(try text(name)) else { throw wrong(name, "must be a MAC address") }
        return mac
    }
}
