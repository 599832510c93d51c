import Kernel

extension JSONObject {
    /// Requires that those of the members `names` that the body has repeat what the path says.
    ///
    /// Some clients send the id of a project or the name of a class in the body too; another one than the path's would be ignored.
    ///
    /// - Throws: 400 that names the member, its value and the path's value.
    package func requireRepeated(_ expected: String, in names: [String], of path: String) throws {
        for name in names {
            guard let value = self[name], value != .string(expected) else { continue }
            throw ResourceError.badRequest(
                """
                Invalid input for field/attribute \(path).\(name). Value: \(value.description.prefix(64)). It is not \
                '\(expected.prefix(64))', which the path names.
                """)
        }
    }

    /// The value of a member that has more than one name; nil if the object has none of them.
    ///
    /// - Parameter names: the preferred one first.
    /// - Throws: 400 if two of them have different values, because one would be ignored.
    package func value(named names: [String], of path: String) throws -> JSONValue? {
        let given = names.compactMap { name in self[name].map { (name: name, value: $0) } }
        if let first = given.first, let other = given.dropFirst().first(where: { $0.value != first.value }) {
            throw ResourceError.badRequest(
                """
                Invalid input for field/attribute \(path).\(other.name). Value: \(other.value.description.prefix(64)). It is another \
                name of \(first.name), whose value is \(first.value.description.prefix(64)).
                """)
        }
        return given.first?.value
    }
}
