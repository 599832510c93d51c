/// Limits that hold in every module; other limits are declared in the module that enforces them.
package enum Limits {
    /// Largest JSON request body, in bytes.
    package static let requestBodyBytesMax = 1 << 20
    /// Largest JSON request body without a token (a sign-on), in bytes.
    package static let anonymousBodyBytesMax = 64 * 1024
    /// How long a JSON request body may take to arrive.
    package static let requestBodyNanosecondsMax: UInt64 = 60_000_000_000
    /// Deepest nesting of a JSON document.
    package static let jsonDepthMax = 32
    /// Longest request target (path and query), in bytes.
    package static let requestTargetBytesMax = 16 * 1024
    /// Default and maximum page size of a list.
    package static let pageSizeMax = 1000
    /// Longest name of a resource, in characters.
    package static let nameLengthMax = 255
    /// Longest token that is examined, in bytes.
    package static let tokenBytesMax = 8 * 1024
}
