import JSON
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
}
