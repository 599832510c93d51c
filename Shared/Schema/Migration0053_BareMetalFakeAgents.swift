/// The agents of machines of the type `fake-hardware`. There is no reference to the nodes, because this migration runs before the one that
/// creates them; the statement that removes a node removes its row.
let fakeAgentsMigration = Migration(
    53, "fake agents", kind: .expand,
    """
    CREATE TABLE bare_metal_fake_agents (
        node_id uuid PRIMARY KEY,
        -- Its commands, oldest first, as its API shows them.
        commands jsonb NOT NULL DEFAULT '[]'
    );
    """)
