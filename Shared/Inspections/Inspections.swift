package import ServiceCatalog

extension Inspection {
    /// Inspections of workflows and messages, which all services use. Resources of active workflows are excluded, and every check
    /// runs twice, because a change in progress is not a violation.
    package static let foundation: [Inspection] = work

    // MARK: work

    private static let work = [
        Inspection(
            "I8", "workflows in progress advance, or wait with a deadline",
            """
            SELECT id::text AS subject, service || ' has not touched ' || kind || ' of ' || subject_id || ' since ' ||
                to_char(run_at, 'HH24:MI:SS') || ' (step ' || step || coalesce(': ' || last_error, '') || ')' AS words
            FROM workflows WHERE finished_at IS NULL AND run_at < {now} - interval '90 seconds'
            """),
        Inspection(
            "I8", "a running release knows every workflow",
            """
            SELECT id::text AS subject, kind || ' of ' || subject_id || ' stands still at the step ' || step || ': ' || last_error AS words
            FROM workflows WHERE finished_at IS NULL AND last_error LIKE 'this release cannot carry it on: %'
            """),
        Inspection(
            "I8", "intents start their workflows",
            """
            SELECT i.subject_id || ' ' || i.kind AS subject, i.service || ' has not begun ' || i.kind || ' of ' ||
                i.subject_id || ', asked for at ' || to_char(i.created_at, 'HH24:MI:SS') AS words
            FROM intents i WHERE i.created_at < {now} - interval '60 seconds'
            AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.subject_id = i.subject_id AND w.finished_at IS NULL)
            """),
        Inspection(
            "I1", "outbox messages reach the broker",
            """
            SELECT id::text AS subject, 'a message of type ' || type || ' for the queue ' || queue ||
                ' has been waiting since ' || to_char(created_at, 'HH24:MI:SS') AS words
            FROM outbox WHERE created_at < {now} - interval '60 seconds'
            """),
    ]
}
