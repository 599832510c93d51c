package import Contracts
package import JSON

/// A message, or an answer, with all its members.
package struct MessageSample {
    package let document: JSONValue
    /// Decodes a document and encodes the result.
    package let recode: (JSONValue) throws -> JSONValue
    let value: Any

    package init<Body: MessageBody>(_ body: Body) throws {
        document = try body.document()
        recode = { try Body(document: $0).document() }
        value = body
    }

    package init<Answer: Codable>(answer: Answer) throws {
        document = try JSONValue(encoding: answer)
        recode = { try JSONValue(encoding: try $0.decode(as: Answer.self)) }
        value = answer
    }
}

/// Messages as releases send them: a file with a complete document for every type and version. It detects changes of messages
/// without a new version.
package enum MessageRecords {
    /// Compares messages with the file.
    ///
    /// - Parameters:
    ///   - samples: one of every type, with every optional member.
    ///   - file: a JSON object in `Tests/Golden` with `TYPE@VERSION`.
    /// - Returns: descriptions of the differences.
    /// - Throws: an error if the file cannot be read.
    package static func differences(_ samples: [String: MessageSample], file: String) throws -> [String] {
        let records = try GoldenFile.load(file)
        var found: [String] = []
        for (key, sample) in samples.sorted(by: { $0.key < $1.key }) {
            guard let record = records[key] else {
                found.append("\(key) is not in the file: \(sample.document)")
                continue
            }
            for member in missing(sample.value) { found.append("\(key): the sample has no \(member)") }
            found += try differences(sample, record).map { "\(key): \($0)" }
        }
        for name in records.names where samples[name] == nil { found.append("\(name) is not sent any more") }
        return found
    }

    private static func differences(_ sample: MessageSample, _ record: JSONValue) throws -> [String] {
        var found: [String] = []
        if sample.document != record { found.append("is sent as \(sample.document): raise the version") }
        do {
            let read = try sample.recode(record)
            if read != record { found.append("is read as \(read)") }
        } catch let error as DecodingError { found.append("cannot be read: \(error.summary)") }
        for (path, less) in reductions(record) where path != "type" {
            // A missing member must be an error or stay missing; it must not get a default.
            guard let without = try? sample.recode(less), without != less else { continue }
            found.append("without \(path) it is read as if it had one")
        }
        // A member of a later release must be ignored.
        var more = record.objectValue ?? [:]
        more["member_of_a_later_release"] = 1
        if try sample.recode(.object(more)) != record { found.append("does not ignore a member of a later release") }
        return found
    }

    /// The document without each of its members, at every depth.
    private static func reductions(_ value: JSONValue) -> [(path: String, value: JSONValue)] {
        switch value {
        case .object(let object):
            object.members.flatMap { member -> [(path: String, value: JSONValue)] in
                var less = object
                less[member.name] = nil
                let inner = reductions(member.value).map { item -> (path: String, value: JSONValue) in
                    var changed = object
                    changed[member.name] = item.value
                    return ("\(member.name).\(item.path)", .object(changed))
                }
                return [(member.name, .object(less))] + inner
            }
        case .array(let items):
            items.enumerated().flatMap { index, item in
                reductions(item).map { reduced in
                    var changed = items
                    changed[index] = reduced.value
                    return ("\(index).\(reduced.path)", .array(changed))
                }
            }
        default: []
        }
    }

    /// Members that are nil.
    private static func missing(_ value: Any) -> [String] {
        Mirror(reflecting: value).children.flatMap { child -> [String] in
            let mirror = Mirror(reflecting: child.value)
            if mirror.displayStyle == .optional, mirror.children.isEmpty { return [child.label ?? "element"] }
            return missing(child.value)
        }
    }
}
