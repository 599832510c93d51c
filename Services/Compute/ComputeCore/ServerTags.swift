import Kernel

extension ServerRequest {
    /// - Throws: 400 for a tag that cannot be used in filters or paths.
    package static func check(tag: String) throws {
        guard (1...60).contains(tag.unicodeScalars.count), !tag.contains("/"), !tag.contains(",") else {
            throw ResourceError.badRequest(
                "Tag '\(tag.prefix(64))' is invalid. It must be a string without characters '/' and ',' of 1 to 60 characters.")
        }
    }
}
