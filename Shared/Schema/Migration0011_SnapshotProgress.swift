/// The progress of a snapshot, as reported with its status.
let snapshotProgressMigration = Migration(
    11, "snapshot_progress",
    """
    ALTER TABLE volume_snapshots ADD COLUMN progress smallint NOT NULL DEFAULT 0 CHECK (progress BETWEEN 0 AND 100);
    UPDATE volume_snapshots SET progress = 100 WHERE status = 'available';
    """)
