import Foundation
package import JSON

/// Documents as past releases wrote them.
package enum GoldenFile {
    /// The members of the object in a file of `Tests/Golden`.
    package static func load(_ file: String) throws -> JSONObject {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        return try JSONValue.parse(Data(contentsOf: root.appending(path: "Tests/Golden/\(file)"))).objectValue ?? [:]
    }
}
