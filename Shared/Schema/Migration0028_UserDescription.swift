/// A user's description, which was one of the free attributes. Replicas of the previous release go on reading it there.
let userDescriptionMigration = Migration(
    28, "description of users", kind: .expand,
    """
    ALTER TABLE users ADD COLUMN description text;
    UPDATE users SET description = extra ->> 'description' WHERE extra ? 'description';
    """)
