import Kernel

/// Makes the objects that a usable cloud begins with, through the services' public APIs.
struct Bootstrap: Sendable {
    let cloud: Cloud

    /// Returns what it found and made, in words.
    func run() async throws -> String {
        throw CloudError("the services' APIs are not there yet")
    }
}
