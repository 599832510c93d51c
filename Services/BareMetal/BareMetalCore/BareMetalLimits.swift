/// Limits of requests to Bare Metal.
package enum BareMetalLimits {
    package static let patchOperationsMax = 100
    package static let patchPathMax = 1024
    package static let descriptionMax = 4096
    package static let traitsMax = 50
    package static let stepsMax = 100
    /// The size of a JSON member of a node, in bytes of its text.
    package static let documentMax = 65_536
    /// Steps that an agent lists.
    package static let agentStepsMax = 500
    /// The size of an agent's certificate, in bytes of its text.
    package static let certificateMax = 16_384
    /// Network interfaces that a look-up names.
    package static let addressesMax = 128
    /// The size of a config drive in a request, in characters of its base64 text.
    package static let configDriveMax = 1_000_000
}
