/// Limits that hold in every module; each module names its own beside its code.
package enum Limits {
    /// Largest JSON request body, in bytes.
    package static let requestBodyBytesMax = 1 << 20
    /// Largest JSON request body without a token: a sign-on, in bytes.
    package static let anonymousBodyBytesMax = 64 * 1024
    /// How long a JSON request body may take to arrive.
    package static let requestBodyNanosecondsMax: UInt64 = 60_000_000_000
    /// Deepest nesting of a JSON document.
    package static let jsonDepthMax = 32
    /// Longest request target (path and query), in bytes.
    package static let requestTargetBytesMax = 16 * 1024
    /// Page size of a list when the client asks for none, and the most it may ask for.
    package static let pageSizeMax = 1000
    /// Longest name of a resource, in characters.
    package static let nameLengthMax = 255
    /// Longest token that is looked at, in bytes.
    package static let tokenBytesMax = 8 * 1024
}
