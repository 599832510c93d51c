import Foundation
package import JSON
package import Kernel
package import Settings

/// The roles that may create, read, change and remove the properties of images, as in Glance's property protection file.
///
/// A section names properties by a regular expression that matches any part of the name. The first section that matches decides;
/// nobody may use a property that none matches.
///
/// ```
/// [^x_billing_]
/// create = admin, billing
/// read = @
/// update = admin, billing
/// delete = !
/// ```
package struct PropertyProtections: Sendable {
    package enum Operation: String, Sendable, CaseIterable {
        case create, read, update, delete
    }

    /// Prefixes of the service's own properties.
    package static let reservedPrefix = "os_glance"

    /// An error in the file.
    package struct Malformed: Error, CustomStringConvertible {
        package let description: String
    }

    private struct Section: Sendable {
        let expression: String
        var roles: [Operation: [String]] = [:]
    }

    private let sections: [Section]

    /// - Throws: `Malformed` naming line or section.
    package init(_ text: String) throws(Malformed) {
        var sections: [Section] = []
        for (index, raw) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let line = raw.trimmed
            if line.isEmpty || line.hasPrefix("#") || line.hasPrefix(";") { continue }
            if line.hasPrefix("["), line.hasSuffix("]") {
                let expression = String(line.dropFirst().dropLast())
                do { _ = try Regex(expression) } catch {
                    throw Malformed(description: "line \(index + 1): '\(expression)' is not a regular expression")
                }
                sections.append(Section(expression: expression))
                continue
            }
            let parts = line.split(separator: "=", maxSplits: 1).map { $0.trimmed }
            guard parts.count == 2, let operation = Operation(rawValue: parts[0]), let last = sections.indices.last else {
                throw Malformed(
                    description: "line \(index + 1): '\(line)' is neither a section nor create, read, update or delete with its roles")
            }
            let roles = parts[1].split(separator: ",").map { $0.trimmed }.filter { !$0.isEmpty }
            guard !roles.contains("@") || !roles.contains("!") else {
                throw Malformed(description: "line \(index + 1): '@' and '!' cannot be used together")
            }
            sections[last].roles[operation] = roles
        }
        for section in sections {
            for operation in Operation.allCases where section.roles[operation] == nil {
                throw Malformed(description: "the section [\(section.expression)] has no line '\(operation.rawValue) = …'")
            }
        }
        self.sections = sections
    }

    /// The setting with the file.
    package static let key = SettingsKey.string(
        "property_protection_file", default: nil,
        "File of the roles that may create, read, update and delete properties of images, in Glance's form.")

    /// - Returns: nil if the operator has not set a file.
    /// - Throws: `SettingsError` naming the file and the error in it.
    package init?(_ settings: Settings) throws {
        guard let path = settings.optionalString("image.property_protection_file") else { return nil }
        guard let bytes = FileManager.default.contents(atPath: path) else {
            throw SettingsError(["image.property_protection_file: the file \(path) cannot be read"])
        }
        do { try self.init(String(decoding: bytes, as: UTF8.self)) } catch {
            throw SettingsError(["image.property_protection_file: \(path): \(error)"])
        }
    }

    /// - Parameter hasRole: whether the caller has a role.
    package func allow(_ operation: Operation, _ property: String, hasRole: (String) -> Bool) -> Bool {
        // The service's own properties cannot be protected by operators.
        if property.hasPrefix(PropertyProtections.reservedPrefix) { return true }
        // Compiled each time, because threads cannot share a compiled one. It was compiled once when the file was read.
        do {
            for section in sections where property.firstMatch(of: try Regex(section.expression)) != nil {
                let roles = section.roles[operation] ?? []
                return !roles.contains("!") && roles.contains { $0 == "@" || hasRole($0) }
            }
        } catch { return false }
        return false
    }

    /// Checks a change of properties.
    ///
    /// - Throws: 403 naming the first property that the caller may not change.
    package func check(_ before: JSONObject, _ after: JSONObject, hasRole: (String) -> Bool) throws(ResourceError) {
        func texts(_ properties: JSONObject) -> [String: String] {
            Dictionary(properties.members.map { ($0.name, $0.value.stringValue ?? $0.value.description) }) { $1 }
        }
        let (before, after) = (texts(before), texts(after))
        for name in Set(before.keys).union(after.keys).sorted() where before[name] != after[name] {
            let operation: Operation = before[name] == nil ? .create : after[name] == nil ? .delete : .update
            guard allow(operation, name, hasRole: hasRole) else {
                throw .forbidden("Property '\(name.prefix(64))' is protected")
            }
        }
    }
}

extension StringProtocol {
    fileprivate var trimmed: String {
        var text = Substring(self)
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text)
    }
}
