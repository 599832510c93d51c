/// The index of the task that deletes servers whose time for a restore has passed.
let reclaimIndexMigration = Migration(
    32, "index of servers to reclaim", kind: .index,
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS servers_reclaim ON servers (reclaim_at) WHERE vm_state = 'soft-delete'")
