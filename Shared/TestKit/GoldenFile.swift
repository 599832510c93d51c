import Foundation
package import JSON

/// Documents in the form that releases wrote.
package enum GoldenFile {
    /// The members of the object in a file of `Tests/Golden`.
    package static func load(_ file: String) throws -> JSONObject {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        return try JSONValue.parse(Data(contentsOf: root.appending(path: "Tests/Golden/\(file)"))).objectValue ?? [:]
    }
}
