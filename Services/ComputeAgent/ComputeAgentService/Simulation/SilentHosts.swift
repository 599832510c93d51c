package import Kernel

/// The simulated hosts that have failed: those with a file of their name in a directory. A file is valid for some seconds
/// after it was last touched, so that a crashed test does not leave a host silent.
package struct SilentHosts: Sendable {
    private let directory: String?
    private let ambient: Ambient

    private static let validity: Duration = .seconds(10)

    /// - Parameter directory: nil when no host ever fails.
    package init(directory: String?, ambient: Ambient) {
        self.directory = directory
        self.ambient = ambient
    }

    /// Whether the host is to be silent now.
    package func isSilent(_ host: String) -> Bool {
        guard let directory, let modifiedAt = Files.modified(directory + "/" + host) else { return false }
        return ambient.now < modifiedAt + SilentHosts.validity
    }
}
