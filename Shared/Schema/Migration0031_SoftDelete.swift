/// Servers that are kept after their deletion, until `reclaim_at`.
let softDeleteMigration = Migration(
    31, "soft delete", kind: .expand,
    """
    ALTER TABLE servers ADD COLUMN reclaim_at timestamptz;
    ALTER TABLE servers DROP CONSTRAINT servers_state, ADD CONSTRAINT servers_state CHECK (
        (vm_state = 'building' AND (task_state IS NULL OR task_state IN ('scheduling', 'networking', 'block_device_mapping', 'spawning', 'deleting')))
        OR (vm_state = 'active' AND (task_state IS NULL OR task_state IN ('powering-off', 'rebooting', 'rebooting_hard', 'pausing', 'suspending', 'deleting', 'soft-deleting')))
        OR (vm_state = 'stopped' AND (task_state IS NULL OR task_state IN ('powering-on', 'rebooting_hard', 'deleting', 'soft-deleting')))
        OR (vm_state = 'paused' AND (task_state IS NULL OR task_state IN ('unpausing', 'rebooting_hard', 'deleting', 'soft-deleting')))
        OR (vm_state = 'suspended' AND (task_state IS NULL OR task_state IN ('resuming', 'rebooting_hard', 'deleting', 'soft-deleting')))
        OR (vm_state = 'error' AND (task_state IS NULL OR task_state IN ('powering-off', 'rebooting_hard', 'deleting', 'soft-deleting')))
        OR (vm_state = 'soft-delete' AND (task_state IS NULL OR task_state IN ('restoring', 'deleting')))
        OR (vm_state = 'deleted' AND task_state IS NULL)
    ) NOT VALID;
    """)
