import ArgumentParser
import JSON

/// The output format of a result.
struct OutputOptions: ParsableArguments {
    enum Format: String, ExpressibleByArgument, CaseIterable {
        case table, json, yaml, value
    }

    @Option(
        name: [.customShort("o"), .customLong("output")], help: "table, json, yaml, or value (bare cells, one line per row, tabs between).")
    var format: Format = .table
    @Option(
        name: [.customShort("c"), .customLong("column")],
        help: ArgumentHelp("Show this column only (repeatable): a heading, or any field of the API.", valueName: "column"))
    var columns: [String] = []

    /// A list: one row per element.
    func list(_ elements: [JSONValue], columns standard: [OutputColumn]) throws -> String {
        let columns = try chosen(standard, known: elements.flatMap { $0.objectValue?.names ?? [] }, mayBeUnknown: elements.isEmpty)
        switch format {
        case .table: return TableText.list(columns.map(\.heading), elements.map { element in columns.map { $0.text(element) } })
        case .value: return elements.map { element in columns.map { $0.text(element) }.joined(separator: "\t") + "\n" }.joined()
        case .json: return PrettyJSON.text(.array(elements.map { narrowed($0, columns) }))
        case .yaml: return YAMLOutput.text(.array(elements.map { narrowed($0, columns) }))
        }
    }

    /// One object: one row per field.
    func object(_ object: JSONValue, fields standard: [OutputColumn]?) throws -> String {
        let all = (object.objectValue?.names ?? []).map { OutputColumn($0, $0) }
        let fields = try chosen(standard ?? all, known: object.objectValue?.names ?? [], mayBeUnknown: false)
        switch format {
        case .table: return TableText.list(["Field", "Value"], fields.map { [$0.heading, $0.text(object)] })
        case .value: return fields.map { $0.text(object) + "\n" }.joined()
        case .json: return PrettyJSON.text(narrowed(object, fields))
        case .yaml: return YAMLOutput.text(narrowed(object, fields))
        }
    }

    /// Without `-c`, program-readable formats print the complete object.
    private func narrowed(_ object: JSONValue, _ fields: [OutputColumn]) -> JSONValue {
        guard !columns.isEmpty else { return object }
        return .object(JSONObject(zip(columns, fields).map { name, field in (name, field.raw(object)) }))
    }

    private func chosen(_ standard: [OutputColumn], known: [String], mayBeUnknown: Bool) throws -> [OutputColumn] {
        guard !columns.isEmpty else { return standard }
        return try columns.map { name in
            let lower = name.lowercased()
            if let column = standard.first(where: { $0.heading.lowercased() == lower || $0.path == lower }) { return column }
            let first = name.split(separator: ".").first.map(String.init) ?? name
            guard mayBeUnknown || known.contains(first) || known.contains(name) else {
                let names = standard.map { $0.heading.contains(" ") ? "\"\($0.heading)\"" : $0.heading }
                throw CommandFailure(
                    "There is no column \(name).", hint: "Columns: \(names.joined(separator: ", ")); `-o json` shows every field.")
            }
            return OutputColumn(name, name)
        }
    }
}

/// A column of a list, or a field of an object.
struct OutputColumn: Sendable {
    let heading: String
    /// The path of members in the object, separated by dots.
    let path: String
    private let render: (@Sendable (JSONValue) -> String)?

    init(_ heading: String, _ path: String) {
        self.heading = heading
        self.path = path
        render = nil
    }

    /// - Parameter render: creates the cell from the complete object.
    init(_ heading: String, _ path: String, _ render: @escaping @Sendable (JSONValue) -> String) {
        self.heading = heading
        self.path = path
        self.render = render
    }

    /// The value in the API's object; null if there is none.
    func raw(_ object: JSONValue) -> JSONValue {
        if let value = object[path] { return value }
        var value = object
        for name in path.split(separator: ".") {
            guard let member = value[String(name)] else { return .null }
            value = member
        }
        return value
    }

    func text(_ object: JSONValue) -> String { render.map { $0(object) } ?? CellText.text(raw(object)) }
}

/// Formats JSON values for tables.
enum CellText {
    static func text(_ value: JSONValue) -> String {
        switch value {
        case .null: ""
        case .bool(let bool): bool ? "true" : "false"
        case .integer(let integer): String(integer)
        case .double(let double): double.description
        case .string(let string): string
        case .array(let elements): elements.map { text($0) }.joined(separator: ", ")
        case .object(let object): object.members.map { "\($0.name)=\(text($0.value))" }.joined(separator: ", ")
        }
    }

    /// Bytes in a suitable unit.
    static func bytes(_ count: Int) -> String {
        var value = Double(count)
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1024 { return unit == "B" ? "\(count) B" : "\(Int(value * 10 + 0.5) / 10).\(Int(value * 10 + 0.5) % 10) \(unit)" }
            value /= 1024
        }
        return "\(Int(value * 10) / 10).\(Int(value * 10) % 10) TiB"
    }
}
