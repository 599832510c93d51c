import Kernel

extension RequestContext {
    /// A query parameter that is a boolean; false without it.
    ///
    /// - Throws: 400 for a value that is not a boolean.
    package func flag(_ name: String) throws -> Bool {
        guard let text = query[name] else { return false }
        guard let flag = BodySchema.boolean(text) else {
            throw ResourceError.badRequest("Invalid value for '\(name)': '\(text.prefix(64))'. It must be a boolean.")
        }
        return flag
    }
}
