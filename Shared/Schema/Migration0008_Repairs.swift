/// Records of automatic repairs.
let repairsMigration = Migration(
    8, "repairs",
    """
    CREATE TABLE repairs (
        id bigserial PRIMARY KEY,
        at timestamptz NOT NULL,
        service text NOT NULL,
        -- The rule's number in docs/reliability.md, and what it is about.
        invariant text NOT NULL,
        subject text NOT NULL,
        words text NOT NULL
    );
    CREATE INDEX repairs_at ON repairs (at);
    """)
