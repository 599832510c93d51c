/// What was decided when a kept answer was made, to decide it again before the answer is given again.
let keptDecisionsMigration = Migration(17, "kept decisions", "ALTER TABLE idempotency_keys ADD COLUMN grants jsonb")
