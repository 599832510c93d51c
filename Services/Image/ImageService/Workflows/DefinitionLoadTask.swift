import Cryptography
package import Database
import ImageCore
import Inspections
import JSON
package import Kernel
package import Logging

/// Loads the metadata definitions of this release into the catalog.
package struct DefinitionLoadTask: Sendable {
    private let database: Database
    private let ambient: Ambient
    private let log: Logger

    /// Time between two runs. Only the first run of a process has work to do, unless it failed.
    private static let interval: Duration = .seconds(300)

    package init(database: Database, ambient: Ambient, log: Logger) {
        self.database = database
        self.ambient = ambient
        self.log = log
    }

    /// Runs until the task is cancelled.
    package func run() async throws {
        try await PeriodicTask.repeating(
            every: DefinitionLoadTask.interval, ambient, log, failure: "the metadata definitions could not be loaded"
        ) {
            _ = try await runOnce()
        }
    }

    /// Loads definitions that are missing or have changed since an earlier release.
    ///
    /// - Returns: the names of the namespaces that were written.
    @discardableResult
    package func runOnce() async throws -> [String] {
        var loaded: [String] = []
        for namespace in LoadedDefinitions.all {
            let digest = Hexadecimal.encode(HashAlgorithm.sha256.hash(namespace.body.encoded))
            let (id, now) = (ambient.newUUID(), ambient.now)
            let isNew = try await database.write { try MetadataStore.load($0, namespace, digest: digest, id: id, now: now) }
            if isNew { loaded.append(namespace.name) }
        }
        if !loaded.isEmpty { log.info("metadata definitions were loaded", metadata: ["namespaces": "\(loaded)"]) }
        return loaded
    }
}
