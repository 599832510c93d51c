/// Rules for all addresses are equal to rules without a prefix. Of two such rules, one keeps its old signature: it has no further
/// effect, and the tenant can delete it.
let ruleSignaturesMigration = Migration(
    14, "rule_signatures",
    """
    UPDATE security_group_rules r SET signature = n.signature
    FROM (
        SELECT DISTINCT ON (security_group_id, replaced) id, replaced AS signature
        FROM (
            SELECT id, security_group_id, created_at,
                replace(replace(signature, '|0.0.0.0/0|', '||'), '|::/0|', '||') AS replaced, signature
            FROM security_group_rules
        ) c
        WHERE replaced <> signature
            AND NOT EXISTS (
                SELECT 1 FROM security_group_rules o
                WHERE o.security_group_id = c.security_group_id AND o.signature = c.replaced)
        ORDER BY security_group_id, replaced, created_at, id
    ) n
    WHERE r.id = n.id;
    """)
