/// Domains, projects, users, groups, roles, the catalog, and the resolution of tokens.
///
/// A domain is a project with `is_domain`, as in Keystone; the view `domains` shows only those.
/// `identity_changes` grows with every change that can alter what some token resolves to. Appending takes a lock until
/// the end of the transaction, so that its numbers become visible in order: whoever has seen number n has seen all
/// smaller ones.
let identityMigration = Migration(2, "identity", identityTables + identityAssignments + identityFunctions + identityTriggers)

private let identityTables = """
    CREATE TABLE projects (
        id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
        name text NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
        domain_id text REFERENCES projects (id),
        parent_id text REFERENCES projects (id),
        is_domain boolean NOT NULL DEFAULT false,
        description text NOT NULL DEFAULT '',
        enabled boolean NOT NULL DEFAULT true,
        options jsonb NOT NULL DEFAULT '{}',
        extra jsonb NOT NULL DEFAULT '{}',
        tokens_valid_from timestamptz,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1,
        CHECK (is_domain = (domain_id IS NULL)),
        CHECK (is_domain = (parent_id IS NULL)),
        CONSTRAINT projects_name UNIQUE NULLS NOT DISTINCT (domain_id, name)
    );
    CREATE INDEX projects_parent ON projects (parent_id);
    CREATE VIEW domains AS
        SELECT id, name, description, enabled, options, extra, created_at, updated_at, generation
        FROM projects WHERE is_domain;

    CREATE TABLE project_tags (
        project_id text NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
        tag text NOT NULL CHECK (length(tag) BETWEEN 1 AND 255),
        PRIMARY KEY (project_id, tag)
    );

    CREATE TABLE users (
        id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
        name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
        domain_id text NOT NULL REFERENCES projects (id),
        enabled boolean NOT NULL DEFAULT true,
        default_project_id text REFERENCES projects (id) ON DELETE SET NULL,
        options jsonb NOT NULL DEFAULT '{}',
        extra jsonb NOT NULL DEFAULT '{}',
        password_hash text,
        password_set_at timestamptz,
        password_expires_at timestamptz,
        failed_attempts integer NOT NULL DEFAULT 0,
        failed_at timestamptz,
        tokens_valid_from timestamptz,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1,
        CONSTRAINT users_name UNIQUE (domain_id, name)
    );
    CREATE INDEX users_default_project ON users (default_project_id);

    CREATE TABLE groups (
        id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
        name text NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
        domain_id text NOT NULL REFERENCES projects (id),
        description text NOT NULL DEFAULT '',
        extra jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        generation bigint NOT NULL DEFAULT 1,
        CONSTRAINT groups_name UNIQUE (domain_id, name)
    );

    CREATE TABLE group_members (
        group_id text NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
        user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        PRIMARY KEY (group_id, user_id)
    );
    CREATE INDEX group_members_user ON group_members (user_id);

    CREATE TABLE catalog_regions (
        id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 255),
        parent_region_id text REFERENCES catalog_regions (id),
        description text NOT NULL DEFAULT '',
        extra jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX catalog_regions_parent ON catalog_regions (parent_region_id);

    CREATE TABLE catalog_services (
        id text PRIMARY KEY,
        type text NOT NULL CHECK (length(type) BETWEEN 1 AND 255),
        name text NOT NULL DEFAULT '',
        description text,
        enabled boolean NOT NULL DEFAULT true,
        extra jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );

    CREATE TABLE catalog_endpoints (
        id text PRIMARY KEY,
        service_id text NOT NULL REFERENCES catalog_services (id) ON DELETE CASCADE,
        region_id text REFERENCES catalog_regions (id),
        interface text NOT NULL CHECK (interface IN ('public', 'internal', 'admin')),
        url text NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
        enabled boolean NOT NULL DEFAULT true,
        extra jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE INDEX catalog_endpoints_service ON catalog_endpoints (service_id);
    CREATE INDEX catalog_endpoints_region ON catalog_endpoints (region_id);

    """

private let identityAssignments = """
    CREATE TABLE roles (
        id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
        name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
        domain_id text REFERENCES projects (id) ON DELETE CASCADE,
        description text,
        options jsonb NOT NULL DEFAULT '{}',
        extra jsonb NOT NULL DEFAULT '{}',
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CONSTRAINT roles_name UNIQUE NULLS NOT DISTINCT (domain_id, name)
    );

    CREATE TABLE implied_roles (
        prior_role_id text NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
        implied_role_id text NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
        PRIMARY KEY (prior_role_id, implied_role_id),
        CHECK (prior_role_id <> implied_role_id)
    );
    CREATE INDEX implied_roles_implied ON implied_roles (implied_role_id);

    CREATE TABLE role_assignments (
        role_id text NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
        user_id text REFERENCES users (id) ON DELETE CASCADE,
        group_id text REFERENCES groups (id) ON DELETE CASCADE,
        project_id text REFERENCES projects (id) ON DELETE CASCADE,
        domain_id text REFERENCES projects (id) ON DELETE CASCADE,
        system boolean NOT NULL DEFAULT false,
        inherited boolean NOT NULL DEFAULT false,
        created_at timestamptz NOT NULL,
        CHECK (num_nonnulls(user_id, group_id) = 1),
        CHECK (num_nonnulls(project_id, domain_id) + system::integer = 1),
        CHECK (NOT (system AND inherited)),
        CONSTRAINT role_assignments_once
            UNIQUE NULLS NOT DISTINCT (user_id, group_id, project_id, domain_id, system, inherited, role_id)
    );
    CREATE INDEX role_assignments_group ON role_assignments (group_id) WHERE group_id IS NOT NULL;
    CREATE INDEX role_assignments_project ON role_assignments (project_id);
    CREATE INDEX role_assignments_domain ON role_assignments (domain_id);
    CREATE INDEX role_assignments_role ON role_assignments (role_id);

    CREATE TABLE application_credentials (
        id text PRIMARY KEY,
        user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
        project_id text NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
        name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
        secret_hash text NOT NULL,
        description text,
        unrestricted boolean NOT NULL DEFAULT false,
        expires_at timestamptz,
        access_rules jsonb,
        created_at timestamptz NOT NULL,
        CONSTRAINT application_credentials_name UNIQUE (user_id, name)
    );
    CREATE INDEX application_credentials_project ON application_credentials (project_id);

    CREATE TABLE application_credential_roles (
        application_credential_id text NOT NULL REFERENCES application_credentials (id) ON DELETE CASCADE,
        role_id text NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
        PRIMARY KEY (application_credential_id, role_id)
    );
    CREATE INDEX application_credential_roles_role ON application_credential_roles (role_id);

    CREATE TABLE token_revocations (
        audit_id text PRIMARY KEY,
        expires_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL
    );
    CREATE INDEX token_revocations_expiry ON token_revocations (expires_at);

    CREATE TABLE identity_changes (
        id bigserial PRIMARY KEY,
        kind text NOT NULL,
        at timestamptz NOT NULL
    );

    """

private let identityFunctions = """
    -- A project, its parents up to the domain, the domain among them.
    CREATE FUNCTION project_ancestors(p_project text) RETURNS TABLE (id text) LANGUAGE sql STABLE AS $$
        WITH RECURSIVE up AS (
            SELECT p.id, p.parent_id FROM projects p WHERE p.id = p_project
            UNION
            SELECT p.id, p.parent_id FROM projects p JOIN up ON p.id = up.parent_id)
        SELECT up.id FROM up
    $$;

    -- The ids of the roles that a user has in a scope, by itself, through groups, inherited and implied.
    CREATE FUNCTION effective_roles(p_user text, p_project text, p_domain text, p_system boolean)
        RETURNS TABLE (role_id text) LANGUAGE sql STABLE AS $$
        WITH RECURSIVE mine AS (
            SELECT a.* FROM role_assignments a WHERE a.user_id = p_user
            UNION ALL
            SELECT a.* FROM role_assignments a JOIN group_members m ON m.group_id = a.group_id WHERE m.user_id = p_user
        ), direct AS (
            SELECT m.role_id FROM mine m
            WHERE (p_project IS NOT NULL AND NOT m.inherited AND m.project_id = p_project)
                OR (p_project IS NOT NULL AND m.inherited AND coalesce(m.project_id, m.domain_id)
                    IN (SELECT a.id FROM project_ancestors(p_project) a WHERE a.id <> p_project))
                OR (p_domain IS NOT NULL AND NOT m.inherited AND m.domain_id = p_domain)
                OR (p_system AND m.system)
        ), expanded AS (
            SELECT d.role_id FROM direct d
            UNION
            SELECT i.implied_role_id FROM implied_roles i JOIN expanded e ON i.prior_role_id = e.role_id)
        SELECT e.role_id FROM expanded e
    $$;

    -- The projects in which a user has any role.
    CREATE FUNCTION accessible_projects(p_user text) RETURNS TABLE (id text) LANGUAGE sql STABLE AS $$
        WITH RECURSIVE mine AS (
            SELECT a.project_id, a.domain_id, a.inherited FROM role_assignments a WHERE a.user_id = p_user
            UNION
            SELECT a.project_id, a.domain_id, a.inherited FROM role_assignments a
            JOIN group_members m ON m.group_id = a.group_id WHERE m.user_id = p_user
        ), below AS (
            SELECT p.id FROM projects p JOIN mine m ON m.inherited AND p.parent_id = coalesce(m.project_id, m.domain_id)
            UNION
            SELECT p.id FROM projects p JOIN below b ON p.parent_id = b.id)
        SELECT b.id FROM below b
        UNION
        SELECT m.project_id FROM mine m WHERE m.project_id IS NOT NULL AND NOT m.inherited
    $$;

    -- Roles of an application credential with what they imply.
    CREATE FUNCTION application_credential_roles_expanded(p_credential text)
        RETURNS TABLE (role_id text) LANGUAGE sql STABLE AS $$
        WITH RECURSIVE expanded AS (
            SELECT r.role_id FROM application_credential_roles r WHERE r.application_credential_id = p_credential
            UNION
            SELECT i.implied_role_id FROM implied_roles i JOIN expanded e ON i.prior_role_id = e.role_id)
        SELECT e.role_id FROM expanded e
    $$;

    -- What a token with a good signature stands for now. No row, or valid = false: nothing any more.
    CREATE FUNCTION resolve_token(
        p_user text, p_project text, p_domain text, p_system boolean, p_credential text, p_audits text[],
        p_issued timestamptz)
        RETURNS TABLE (
            valid boolean, user_name text, user_domain_id text, user_domain_name text, project_name text,
            project_domain_id text, project_domain_name text, domain_name text, roles jsonb, access_rules jsonb)
        LANGUAGE sql STABLE AS $$
        WITH held AS (
            SELECT r.id, r.name FROM roles r
            WHERE r.domain_id IS NULL
                AND r.id IN (SELECT e.role_id FROM effective_roles(p_user, p_project, p_domain, p_system) e)
                AND (p_credential IS NULL
                    OR r.id IN (SELECT x.role_id FROM application_credential_roles_expanded(p_credential) x))
        ), granted AS (
            SELECT coalesce(jsonb_agg(jsonb_build_object('id', h.id, 'name', h.name) ORDER BY h.name), '[]') AS roles,
                count(*) AS number
            FROM held h
        )
        SELECT
            u.enabled AND ud.enabled
                AND (u.tokens_valid_from IS NULL OR p_issued >= u.tokens_valid_from)
                AND (ud.tokens_valid_from IS NULL OR p_issued >= ud.tokens_valid_from)
                AND NOT EXISTS (SELECT FROM token_revocations t WHERE t.audit_id = p_audits[1])
                AND (p_project IS NULL OR coalesce(p.enabled AND pd.enabled AND NOT p.is_domain
                    AND (p.tokens_valid_from IS NULL OR p_issued >= p.tokens_valid_from)
                    AND (pd.tokens_valid_from IS NULL OR p_issued >= pd.tokens_valid_from), false))
                AND (p_domain IS NULL OR coalesce(d.enabled AND d.is_domain
                    AND (d.tokens_valid_from IS NULL OR p_issued >= d.tokens_valid_from), false))
                AND (p_credential IS NULL OR coalesce(c.user_id = p_user AND c.project_id = p_project, false))
                AND (g.number > 0 OR (p_project IS NULL AND p_domain IS NULL AND NOT p_system)),
            u.name, u.domain_id, ud.name, p.name, p.domain_id, pd.name, d.name, g.roles, c.access_rules
        FROM users u
        JOIN projects ud ON ud.id = u.domain_id
        CROSS JOIN granted g
        LEFT JOIN projects p ON p.id = p_project
        LEFT JOIN projects pd ON pd.id = p.domain_id
        LEFT JOIN projects d ON d.id = p_domain
        LEFT JOIN application_credentials c ON c.id = p_credential
        WHERE u.id = p_user
    $$;

    CREATE FUNCTION note_identity_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(8022);
        INSERT INTO identity_changes (kind, at) VALUES (TG_TABLE_NAME, clock_timestamp());
        PERFORM pg_notify('identity_changed', TG_TABLE_NAME);
        RETURN NULL;
    END $$;

    """

private let identityTriggers = """
    CREATE TRIGGER identity_changed AFTER DELETE OR UPDATE OF name, enabled, tokens_valid_from, domain_id ON projects
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER DELETE OR UPDATE OF name, enabled, tokens_valid_from, domain_id,
        password_expires_at ON users
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER DELETE ON groups
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER INSERT OR UPDATE OR DELETE ON group_members
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER UPDATE OR DELETE ON roles
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER INSERT OR UPDATE OR DELETE ON implied_roles
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER INSERT OR UPDATE OR DELETE ON role_assignments
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER UPDATE OR DELETE ON application_credentials
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER UPDATE OR DELETE ON application_credential_roles
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER INSERT ON token_revocations
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER INSERT OR UPDATE OR DELETE ON catalog_regions
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER INSERT OR UPDATE OR DELETE ON catalog_services
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    CREATE TRIGGER identity_changed AFTER INSERT OR UPDATE OR DELETE ON catalog_endpoints
        FOR EACH STATEMENT EXECUTE FUNCTION note_identity_change();
    """
