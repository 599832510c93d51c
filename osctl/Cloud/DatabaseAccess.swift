import Database
import Glibc
import Kernel

/// The users of the cloud's PostgreSQL, and how they may connect.
///
/// The services connect with a password as the owner of their database, who has no other rights. The superuser has no password:
/// only the user that runs the server and root may connect as superuser, over the socket.
struct DatabaseAccess: Sendable {
    let layout: CloudLayout
    let secrets: CloudSecrets

    static let superuser = "postgres"
    static let owner = "wolke"

    /// PostgreSQL's access rules (pg_hba.conf) and user name maps (pg_ident.conf). They contain no secret.
    var rules: String { layout.postgres + "/pg_hba.conf" }
    var users: String { layout.postgres + "/pg_ident.conf" }

    // MARK: files

    /// Writes the access rules and the password file.
    func write() throws {
        try Machine.write(
            rules,
            """
            # Written by `osctl cloud up` at each start; changes are lost.
            local  all  \(DatabaseAccess.superuser)                peer map=operator
            local  all  all                                   scram-sha-256
            host   all  \(DatabaseAccess.superuser)  all           reject
            host   all  all       127.0.0.1/32  scram-sha-256

            """)
        // Root could switch to the server's user anyway.
        let names = Set([geteuid() == 0 ? DatabaseAccess.superuser : "", name(of: geteuid())]).filter { !$0.isEmpty }
        try Machine.write(
            users,
            "# Written by `osctl cloud up` at each start; changes are lost.\n"
                + names.sorted().map { "operator  \"\($0)\"  \(DatabaseAccess.superuser)\n" }.joined())
        // The generated password has only letters and digits, so nothing needs to be escaped.
        try Machine.write(layout.databasePasswords, "*:*:*:\(DatabaseAccess.owner):\(secrets.postgres)\n", mode: 0o600)
    }

    private func name(of user: uid_t) -> String {
        getpwuid(user).map { String(cString: $0.pointee.pw_name) } ?? ""
    }

    // MARK: roles

    /// Creates or corrects roles, database and ownership.
    func settle() async throws {
        do { try await asSuperuser("postgres") { _ = try $0.query("SELECT 1") } } catch {
            guard try await renameEarlierSuperuser() else { throw error }
        }
        let password = secrets.postgres
        let exists = try await asSuperuser("postgres") { connection in
            // A failing statement must not write the password to the server's log.
            try connection.script("SET log_min_error_statement = panic")
            if try connection.query("SELECT 1 FROM pg_roles WHERE rolname = \(DatabaseAccess.owner)").isEmpty {
                try connection.script("CREATE ROLE \(DatabaseAccess.owner)")
            }
            try connection.script(
                """
                ALTER ROLE \(DatabaseAccess.owner) LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
                PASSWORD '\(password)'
                """)
            return try !connection.query("SELECT 1 FROM pg_database WHERE datname = \(DatabaseAccess.owner)").isEmpty
        }
        if !exists {
            try await asSuperuser("postgres") { try $0.script("CREATE DATABASE \(DatabaseAccess.owner) OWNER \(DatabaseAccess.owner)") }
        }
        try await asSuperuser(DatabaseAccess.owner) { try $0.script(DatabaseAccess.ownership) }
    }

    @discardableResult
    private func asSuperuser<Value: Sendable>(
        _ database: String, _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        try await run(layout.superuserURL(database: database), body)
    }

    private func run<Value: Sendable>(
        _ url: String, _ body: @escaping @Sendable (Connection) throws -> Value
    ) async throws -> Value {
        let database = Database(DatabaseConfiguration(connectionString: url, connectionsMax: 1).unlimited())
        defer { database.close() }
        return try await database.autocommit(body)
    }

    /// Up to schema 13 the services used the superuser with which PostgreSQL was initialized. That user cannot lose its superuser
    /// rights, so it is renamed, and the services get a new user.
    ///
    /// - Returns: false if there is no such user.
    private func renameEarlierSuperuser() async throws -> Bool {
        let url = layout.databaseURL.replacing("dbname=wolke", with: "dbname=postgres")
        return try await run(url) { connection in
            guard try connection.query("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")[0].bool("rolsuper") else {
                return false
            }
            // A session cannot rename its own user.
            try connection.script(
                """
                CREATE ROLE wolke_rename SUPERUSER; SET SESSION AUTHORIZATION wolke_rename;
                ALTER ROLE \(DatabaseAccess.owner) RENAME TO \(DatabaseAccess.superuser);
                """)
            try connection.script(
                "RESET SESSION AUTHORIZATION; DROP ROLE wolke_rename; ALTER ROLE \(DatabaseAccess.superuser) PASSWORD NULL")
            return true
        }
    }

    /// Makes the owner of the cloud's database the owner of all its objects; nobody else may connect.
    private static let ownership = """
        REVOKE ALL ON DATABASE \(owner) FROM PUBLIC;
        ALTER DATABASE \(owner) OWNER TO \(owner);
        DO $$
        DECLARE item record;
        BEGIN
            FOR item IN
                SELECT format('ALTER %s %s OWNER TO \(owner)', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                        WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass) AS command
                FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
                    AND c.relowner <> '\(owner)'::regrole
                    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND c.relkind = 'S' AND d.deptype IN ('a', 'i'))
                UNION ALL
                SELECT format('ALTER ROUTINE %s OWNER TO \(owner)', p.oid::regprocedure) FROM pg_proc p
                WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> '\(owner)'::regrole
                UNION ALL
                SELECT format('ALTER TYPE %s OWNER TO \(owner)', t.oid::regtype) FROM pg_type t
                WHERE t.typnamespace = 'public'::regnamespace AND t.typowner <> '\(owner)'::regrole AND t.typtype IN ('e', 'd', 'r')
                UNION ALL
                SELECT format('ALTER STATISTICS %I OWNER TO \(owner)', s.stxname) FROM pg_statistic_ext s
                WHERE s.stxnamespace = 'public'::regnamespace AND s.stxowner <> '\(owner)'::regrole
            LOOP
                EXECUTE item.command;
            END LOOP;
        END $$;
        """
}
