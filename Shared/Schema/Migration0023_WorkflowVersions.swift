/// Versions of workflows, so that several releases can run side by side, and child workflows.
let workflowVersionsMigration = Migration(
    23, "workflow versions",
    """
    ALTER TABLE workflows
        ADD COLUMN version integer NOT NULL DEFAULT 1,
        ADD COLUMN parent_id uuid,
        ADD COLUMN parent_step text,
        ADD COLUMN parent_ordinal integer,
        ADD COLUMN result jsonb,
        ADD COLUMN cancel_reason text;
    CREATE INDEX workflows_parent ON workflows (parent_id, parent_step, parent_ordinal) WHERE parent_id IS NOT NULL;
    ALTER TABLE intents ADD COLUMN version integer NOT NULL DEFAULT 1;
    """)
