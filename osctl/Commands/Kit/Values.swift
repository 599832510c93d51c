import ArgumentParser
import Glibc
import JSON

/// `key=value` on the command line.
struct Assignment: ExpressibleByArgument, Sendable {
    let name: String
    let value: String

    init?(argument: String) {
        guard let mark = argument.firstIndex(of: "="), mark != argument.startIndex else { return nil }
        name = String(argument[..<mark])
        value = String(argument[argument.index(after: mark)...])
    }
}

/// `key=value,key=value`, such as `subnet=lan,ip-address=10.0.0.5`.
struct AssignmentList: ExpressibleByArgument, Sendable {
    let values: [String: String]

    init?(argument: String) {
        var values: [String: String] = [:]
        for part in argument.split(separator: ",") {
            guard let pair = Assignment(argument: String(part)) else { return nil }
            values[pair.name.replacing("_", with: "-")] = pair.value
        }
        self.values = values
    }

    /// - Throws: `CommandFailure` naming a key that is not in `allowed`.
    func check(_ option: String, _ allowed: Set<String>) throws {
        guard let unknown = values.keys.sorted().first(where: { !allowed.contains($0) }) else { return }
        throw CommandFailure("\(option) has no key \(unknown); it has: \(allowed.sorted().joined(separator: ", ")).")
    }
}

extension [Assignment] {
    /// The values as an object of strings.
    var json: JSONValue { .object(JSONObject(map { ($0.name, .string($0.value)) })) }
}

extension JSONObject {
    /// Sets the member if there is a value.
    mutating func put(_ name: String, _ value: String?) { if let value { self[name] = .string(value) } }
    mutating func put(_ name: String, _ value: Int?) { if let value { self[name] = JSONValue(value) } }
    mutating func put(_ name: String, _ value: Bool?) { if let value { self[name] = .bool(value) } }
}

/// Files given by the user.
enum UserFile {
    /// - Throws: `CommandFailure` naming the file and the reason.
    static func read(_ path: String) throws -> [UInt8] {
        guard let bytes = Machine.read(path) else {
            throw CommandFailure("The file \(path) cannot be read: \(String(cString: strerror(errno))).")
        }
        return bytes
    }

    static func text(_ path: String) throws -> String {
        guard let text = String(validating: try read(path), as: UTF8.self) else { throw CommandFailure("The file \(path) is not text.") }
        return text
    }
}
