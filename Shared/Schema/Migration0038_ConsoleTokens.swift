/// Tokens of consoles. `wolke-console` redeems them through the published function, which is theirs to call once.
let consoleTokensMigration = Migration(
    38, "tokens of consoles", kind: .expand,
    """
    CREATE TABLE console_tokens (
        token_hash text PRIMARY KEY,
        server_id uuid NOT NULL REFERENCES servers ON DELETE CASCADE,
        host text NOT NULL,
        kind text NOT NULL CHECK (kind IN ('vnc', 'serial')),
        created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL,
        used_at timestamptz);
    CREATE INDEX console_tokens_server ON console_tokens (server_id);
    CREATE INDEX console_tokens_expiry ON console_tokens (expires_at);
    CREATE FUNCTION published_redeem_console_token(wanted text, at timestamptz)
        RETURNS TABLE (server_id uuid, host text, kind text)
        LANGUAGE sql VOLATILE AS
        'UPDATE console_tokens t SET used_at = at FROM servers s
         WHERE t.token_hash = wanted AND t.used_at IS NULL AND t.expires_at > at
             AND s.id = t.server_id AND NOT s.deleted AND s.host = t.host
         RETURNING t.server_id, t.host, t.kind';
    COMMENT ON FUNCTION published_redeem_console_token IS 'Compute: uses a console token up';
    """)
