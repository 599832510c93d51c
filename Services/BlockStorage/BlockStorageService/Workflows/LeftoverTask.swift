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

    /// Those of volumes and snapshots: a workflow removes the copies that are uploaded.
    private static let kinds: Set<StoredObject.Kind> = [.volume, .snapshot, .renewal]

    /// - Returns: the disks that were removed.
    @discardableResult
    package func runOnce() async throws -> [UnfinishedDisk] {
        // Listed before the workflows are looked at, which begin before their disks.
        let disks = try await driver.unfinished().filter { LeftoverTask.kinds.contains($0.kind) }
        guard !disks.isEmpty else { return [] }
        let active = try await database.read { try Workflows.active(among: disks.map(\.id), $0) }
        let leftovers = disks.filter { !active.contains($0.id) }
        for disk in leftovers { try await driver.discard(disk) }
        return leftovers
    }
}
