/// Servers that are rebuilt and rescued. The condition on the states is wider than before: it also has the states of servers that
/// are resized, shelved and kept before they are deleted.
let serverChangesMigration = Migration(
    34, "server changes",
    """
    CREATE OR REPLACE VIEW published_volumes AS
        SELECT id, project_id, status, size, bootable, multiattach, image_metadata, source_image_id FROM volumes;
    COMMENT ON VIEW published_volumes IS 'Block Storage: volumes';
    ALTER TABLE servers ADD COLUMN rescue jsonb;
    ALTER TABLE servers DROP CONSTRAINT servers_state, ADD CONSTRAINT servers_state CHECK (
        (vm_state = 'building' AND (task_state IS NULL OR task_state IN ('scheduling', 'networking', 'block_device_mapping', 'spawning', 'deleting')))
        OR (vm_state = 'active' AND (task_state IS NULL OR task_state IN ('powering-off', 'rebooting', 'rebooting_hard', 'pausing', 'suspending', 'deleting',
            'rebuilding', 'rescuing', 'resize_prep', 'resize_migrating', 'resize_migrated', 'resize_finish', 'migrating', 'image_snapshot', 'image_snapshot_pending',
            'image_pending_upload', 'image_uploading', 'image_backup', 'shelving', 'shelving_image_pending_upload', 'shelving_image_uploading', 'shelving_offloading',
            'updating_password', 'soft-deleting')))
        OR (vm_state = 'stopped' AND (task_state IS NULL OR task_state IN ('powering-on', 'rebooting_hard', 'deleting',
            'rebuilding', 'rescuing', 'resize_prep', 'resize_migrating', 'resize_migrated', 'resize_finish', 'migrating', 'image_snapshot', 'image_snapshot_pending',
            'image_pending_upload', 'image_uploading', 'image_backup', 'shelving', 'shelving_image_pending_upload', 'shelving_image_uploading', 'shelving_offloading',
            'soft-deleting')))
        OR (vm_state = 'paused' AND (task_state IS NULL OR task_state IN ('unpausing', 'rebooting_hard', 'deleting',
            'migrating', 'image_snapshot', 'image_snapshot_pending', 'image_pending_upload', 'image_uploading', 'image_backup', 'shelving',
            'shelving_image_pending_upload', 'shelving_image_uploading', 'shelving_offloading', 'soft-deleting')))
        OR (vm_state = 'suspended' AND (task_state IS NULL OR task_state IN ('resuming', 'rebooting_hard', 'deleting',
            'image_snapshot', 'image_snapshot_pending', 'image_pending_upload', 'image_uploading', 'image_backup', 'shelving',
            'shelving_image_pending_upload', 'shelving_image_uploading', 'shelving_offloading', 'soft-deleting')))
        OR (vm_state = 'error' AND (task_state IS NULL OR task_state IN ('powering-off', 'rebooting_hard', 'deleting', 'rebuilding', 'rescuing', 'soft-deleting')))
        OR (vm_state = 'rescued' AND (task_state IS NULL OR task_state IN ('unrescuing', 'deleting', 'soft-deleting')))
        OR (vm_state = 'resized' AND (task_state IS NULL OR task_state IN ('resize_reverting', 'resize_confirming', 'deleting', 'soft-deleting')))
        OR (vm_state = 'shelved' AND (task_state IS NULL OR task_state IN ('shelving_offloading', 'unshelving', 'deleting', 'soft-deleting')))
        OR (vm_state = 'shelved_offloaded' AND (task_state IS NULL OR task_state IN ('unshelving', 'spawning', 'deleting', 'soft-deleting')))
        OR (vm_state = 'soft-delete' AND (task_state IS NULL OR task_state IN ('restoring', 'deleting')))
        OR (vm_state = 'deleted' AND task_state IS NULL)
    ) NOT VALID;
    """)
