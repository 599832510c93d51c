/// Published views of Image's and Identity's tables for `Shared/ImageAccess` and for the token check of all services.
let publishedReadsMigration = Migration(
    54, "published reads", kind: .expand,
    """
    CREATE OR REPLACE VIEW published_images AS
        SELECT id, status, min_disk, min_ram, size, virtual_size, name, project_id, visibility, disk_format, container_format, checksum,
            os_hash_algo, os_hash_value, properties, created_at
        FROM images;
    COMMENT ON VIEW published_images IS 'Image: images; who may use one is decided by ImageAccess';
    CREATE VIEW published_image_members AS SELECT image_id, member_id FROM image_members;
    COMMENT ON VIEW published_image_members IS 'Image: the projects with which an image is shared, whether they have accepted it or not';

    CREATE VIEW published_identity_changes AS SELECT id FROM identity_changes;
    COMMENT ON VIEW published_identity_changes IS 'Identity: numbers of the changes that a kept token check does not outlive';
    -- Its plan is cached per session, as that of resolve_token, which releases before this one call.
    CREATE FUNCTION published_token(
        p_user text, p_project text, p_domain text, p_system boolean, p_credential text, p_audits text[], p_issued timestamptz)
        RETURNS TABLE (
            valid boolean, user_name text, user_domain_id text, user_domain_name text, project_name text,
            project_domain_id text, project_domain_name text, domain_name text, roles jsonb, access_rules jsonb)
        LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
    BEGIN
        RETURN QUERY SELECT * FROM token_state(p_user, p_project, p_domain, p_system, p_credential, p_audits, p_issued);
    END $$;
    COMMENT ON FUNCTION published_token IS 'Identity: what a token with a good signature stands for now; no row, or not valid: nothing';
    """)
