import BlockStorageCore
package import Database
import Workflow

/// Removes unfinished disks that no workflow will finish.
package struct LeftoverTask: Sendable {
    private let database: Database
    private let driver: any VolumeDriver

    package init(database: Database, driver: any VolumeDriver) {
        self.database = database
        self.driver = driver
    }

    /// The kinds to remove. Copies for uploads are removed by their workflow.
    private static let kinds: Set<StoredObject.Kind> = [.volume, .snapshot, .renewal]

    /// - Returns: the disks that were removed.
    @discardableResult
    package func runOnce() async throws -> [UnfinishedDisk] {
        // List the disks before the workflows: a workflow begins before its disk exists.
        let disks = try await driver.unfinished().filter { LeftoverTask.kinds.contains($0.kind) }
        guard !disks.isEmpty else { return [] }
        let active = try await database.read { try Workflows.active(among: disks.map(\.id), $0) }
        let leftovers = disks.filter { !active.contains($0.id) }
        for disk in leftovers { try await driver.discard(disk) }
        return leftovers
    }
}
