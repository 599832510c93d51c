/// Resolves tokens with a plan that is cached per session: otherwise PostgreSQL plans each query, which takes ten times as long
/// as running it.
let tokenPlansMigration = Migration(
    10, "token_plans",
    """
    ALTER FUNCTION resolve_token(text, text, text, boolean, text, text[], timestamptz) RENAME TO token_state;

    CREATE FUNCTION resolve_token(
        p_user text, p_project text, p_domain text, p_system boolean, p_credential text, p_audits text[],
        p_issued timestamptz)
        RETURNS TABLE (
            valid boolean, user_name text, user_domain_id text, user_domain_name text, project_name text,
            project_domain_id text, project_domain_name text, domain_name text, roles jsonb, access_rules jsonb)
        LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
    BEGIN
        RETURN QUERY SELECT * FROM token_state(p_user, p_project, p_domain, p_system, p_credential, p_audits, p_issued);
    END $$;
    """)
