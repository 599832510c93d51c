import ArgumentParser
import Client
import JSON

/// JSON patches (RFC 6902), which change resources of Bare Metal and Image.
enum JSONPatchText {
    /// Sends text that is valid JSON as JSON, like other clients: in `cpus=8` the value is a number.
    static func value(_ text: String) -> JSONValue {
        do { return try JSONValue.parse(text) } catch { return .string(text) }
    }

    static func object(_ values: [Assignment]) -> JSONValue { .object(JSONObject(values.map { ($0.name, value($0.value)) })) }

    static func escaped(_ key: String) -> String { key.replacing("~", with: "~0").replacing("/", with: "~1") }

    static func replacing(_ members: JSONObject) -> [JSONValue] {
        members.members.map { ["op": "add", "path": .string("/" + $0.name), "value": $0.value] }
    }

    static func adding(_ values: [Assignment], to document: String) -> [JSONValue] {
        values.map { ["op": "add", "path": .string("/\(document)/" + escaped($0.name)), "value": value($0.value)] }
    }

    static func send(
        _ patch: [JSONValue], _ kind: Kind, _ id: String, _ api: CloudAPI, query: [(String, String)] = []
    ) async throws {
        guard !patch.isEmpty else { throw ValidationError.nothingToSet(kind) }
        _ = try await api.client.request(
            service: kind.service, method: .patch, path: kind.path(id: id), query: query, body: .array(patch),
            microversion: kind.microversion)
    }
}
