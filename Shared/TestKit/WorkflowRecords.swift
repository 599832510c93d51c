import JSON
package import Workflow

/// Workflows as releases stored them: a file with the steps and a complete frame for every version of every kind. It detects
/// changes of steps or frames without a new version.
package enum WorkflowRecords {
    /// Compares a service's workflows with its file.
    ///
    /// - Parameter file: a JSON object in `Tests/Golden` with `KIND@VERSION` and, under it, `steps` and `frame`.
    /// - Returns: descriptions of the differences.
    /// - Throws: an error if the file cannot be read.
    package static func differences(_ definitions: [WorkflowDefinition], file: String) throws -> [String] {
        let records = try GoldenFile.load(file)
        var found: [String] = []
        var expected: Set<String> = []
        for definition in definitions {
            for version in definition.versions.sorted() {
                let key = "\(definition.kind)@\(version)"
                expected.insert(key)
                guard let record = records[key], let frame = record["frame"]?.objectValue else {
                    found.append("\(key) is not in the file")
                    continue
                }
                let steps = record["steps"]?.arrayValue?.compactMap(\.stringValue) ?? []
                if steps != definition.steps.map(\.name) {
                    found.append("\(key) has the steps \(definition.steps.map(\.name)), not \(steps): raise the version")
                }
                found += differences(definition, key, frame)
            }
        }
        for name in records.names where !expected.contains(name) { found.append("\(name) is not run any more") }
        return found
    }

    private static func differences(_ definition: WorkflowDefinition, _ key: String, _ frame: JSONObject) -> [String] {
        guard let recoded = try? definition.recode(frame) else { return ["\(key): its frame cannot be read"] }
        if recoded.frame != frame { return ["\(key): its frame is stored as \(recoded.frame): raise the version"] }
        if recoded.names.count != frame.count { return ["\(key): the frame in the file must have all of \(recoded.names)"] }
        return frame.names.compactMap { name in
            var less = frame
            less[name] = nil
            // A missing member must be an error or stay missing; it must not get a default.
            guard let without = try? definition.recode(less), without.frame[name] != nil else { return nil }
            return "\(key): a frame without \(name) is read as if it had one"
        }
    }
}
