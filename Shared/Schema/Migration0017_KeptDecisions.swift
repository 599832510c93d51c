/// The policy decisions of stored responses, so that they can be made again before a response is repeated.
let keptDecisionsMigration = Migration(17, "kept decisions", "ALTER TABLE idempotency_keys ADD COLUMN grants jsonb")
