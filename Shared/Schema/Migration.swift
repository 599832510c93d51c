package import Database
import Kernel

/// One migration of the schema. Migrations are numbered, run forward only, and never change after they have landed.
package struct Migration: Sendable {
    /// The effect of a migration on replicas that do not know it.
    package enum Kind: Sendable {
        /// Replicas of the previous release keep working. Applied before the services of a release start.
        case expand
        /// Indexes that are built without blocking writes. Like `expand`, but each statement runs outside of a transaction. May
        /// only contain `CREATE [UNIQUE] INDEX CONCURRENTLY IF NOT EXISTS` statements.
        case index
        /// Breaks replicas that do not know it, because it drops, renames or narrows something. Applied by `osctl db contract`
        /// once no such replica runs.
        case contract
    }

    package let number: Int
    package let name: String
    package let kind: Kind
    package let sql: String

    package init(_ number: Int, _ name: String, kind: Kind = .expand, _ sql: String) {
        self.number = number
        self.name = name
        self.kind = kind
        self.sql = sql
    }

    /// Runs the migration's statements without recording it. An `index` migration can be repeated; for other kinds the caller
    /// must have opened a transaction.
    ///
    /// - Throws: `DatabaseError`.
    package func run(_ connection: Connection) throws {
        guard kind == .index else { return try connection.script(sql) }
        for statement in sql.split(separator: ";").map({ $0.trimmed }) where !statement.isEmpty {
            // An interrupted attempt leaves an invalid index, which is not rebuilt by `IF NOT EXISTS`.
            if let name = Migration.indexName(statement) {
                let invalid = try !connection.query(
                    "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(\(name)) AND NOT indisvalid"
                ).isEmpty
                if invalid { try connection.script("DROP INDEX CONCURRENTLY \(name)") }
            }
            try connection.script(statement)
        }
    }

    /// The index that a `CREATE INDEX CONCURRENTLY IF NOT EXISTS` statement builds; nil for any other statement.
    package static func indexName(_ statement: String) -> String? {
        let words = statement.split { $0.isWhitespace }.map(String.init)
        let rest = words.drop { ["CREATE", "UNIQUE"].contains($0) }
        guard words.first == "CREATE", rest.starts(with: ["INDEX", "CONCURRENTLY", "IF", "NOT", "EXISTS"]) else { return nil }
        return rest.dropFirst(5).first
    }
}

extension Substring {
    fileprivate var trimmed: String {
        let inner = drop { $0.isWhitespace }
        return String(inner.prefix(upTo: inner.lastIndex { !$0.isWhitespace }.map { inner.index(after: $0) } ?? inner.startIndex))
    }
}

/// The schema known to this build.
package enum Schema {
    /// All migrations in order. Add new ones at the end, each in its own file.
    package static let migrations: [Migration] = [
        foundationMigration,
        identityMigration,
        placementMigration,
        imageMigration,
        networkMigration,
        blockStorageMigration,
        computeMigration,
        repairsMigration,
        northboundChangesMigration,
        tokenPlansMigration,
        snapshotProgressMigration,
        northboundBatchesMigration,
        newPortsMigration, ruleSignaturesMigration, identityControlMigration, readOnlyFlagMigration,
        keptDecisionsMigration,
        planeServicesMigration,
        virtualPortsMigration,
        auditedServicesMigration,
        metadataPortsMigration,
        sandboxStateMigration,
        workflowVersionsMigration,
        publishedViewsMigration,
        imagePropertiesMigration,
        replicasMigration, extendingVolumesMigration, userDescriptionMigration, imageMetadataDefinitionsMigration,
        guestPasswordMigration, softDeleteMigration, reclaimIndexMigration, networkPortChangesMigration,
        serverChangesMigration, computeMigrationsMigration,
        imageImportMigration, imageImportIndexesMigration,
        consoleTokensMigration,
        serverJobsMigration,
        cloudProjectsMigration,
        imageCacheMigration, imageConversionIndexMigration, liveMigrationMigration, portBindingsMigration,
        publishedImagePropertiesMigration,
        serverMovesMigration, lastingCloudProjectsMigration, serviceUserIndexMigration, interfaceOperationsMigration,
        hostCopiesMigration, publishedReadsMigration, keptDisksMigration,
        serverProgressMigration, hostCopyIndexMigration,
        progressLimitsMigration, volumeSwapMigration, bareMetalMigration, neededDisksMigration,
        transferLimitsMigration, publishedPhysicalNetworksMigration, volumeSizesMigration, bareMetalAgentsMigration,
    ]

    /// The newest migration of release 0.1.0. That release starts on a database whose `schema_migrations` ends with it, so all
    /// migrations up to it are the base that every build needs.
    package static let base = 22

    /// The number of the newest migration known to this build.
    package static var version: Int { migrations.last?.number ?? 0 }
}
