/// The workflows that attach and detach an interface. A port can be detached and attached to the same server again before a workflow
/// repeats its last step after a failure; the workflow must not mistake the later interface for its own. Null in rows of older
/// releases and of servers' creations.
let interfaceOperationsMigration = Migration(
    49, "operations of interfaces", kind: .expand,
    """
    ALTER TABLE server_interfaces ADD COLUMN attach_operation text;
    ALTER TABLE server_interfaces ADD COLUMN detach_operation text;
    """)
