import ServiceCatalog

extension SettingsSchema {
    /// All sections of the file. One file serves all executables; each of them checks its own sections.
    package static let sectionNames =
        ["database", "messaging", "tokens", "service_user", "endpoints", "web", "log"] + CloudService.processes.map(\.section)
        + HostAgent.all.map(\.section)

    /// The settings of commands that only need the database.
    package static let database: SettingsSchema =
        .section(
            "database",
            [
                .secret("url", required: true, "PostgreSQL connection string (libpq: `host=… dbname=…` or `postgresql://…`)."),
                .integer(
                    "connections", default: 8, in: 1...200,
                    "Maximum number of sessions of one process, in addition to those for notifications."),
                .integer(
                    "reserved_connections", default: 2, in: 0...100,
                    """
                    Number of these sessions reserved for workflows, agents and the services' own requests; at \
                    least one is left for tenants.
                    """
                ),
                .integer(
                    "project_connections", default: 3, in: 1...200,
                    "Maximum number of sessions used by the requests of one project at a time."),
                .integer(
                    "project_waiting", default: 1000, in: 1...100_000,
                    "Maximum number of requests of one project that wait for a session; further ones get 429."),
                .integer(
                    "waiting", default: 10_000, in: 1...1_000_000,
                    "Maximum number of requests of all projects that wait for a session; further ones get 503."),
                .duration(
                    "read_timeout", default: "10s",
                    "Maximum duration of the reads of one request; then its statement is cancelled and the response is 503."),
                .duration("write_timeout", default: "30s", "Maximum duration of the transaction of one request."),
                .duration("lock_timeout", default: "5s", "How long a request waits for a lock."),
                .duration(
                    "plane_timeout", default: "2m", "Maximum duration of a statement of workflows, agents and the services' own work."),
                .duration("plane_lock_timeout", default: "30s", "How long such a statement waits for a lock."),
                .duration("audit_timeout", default: "10m", "Maximum duration of a statement of an audit."),
                .duration("idle_transaction_timeout", default: "1m", "How long a transaction may be idle."),
            ])

    /// The settings of every executable.
    package static let common: SettingsSchema =
        database
        + .section(
            "messaging",
            [.secret("url", required: true, "RabbitMQ: `amqp://user:password@host:port/virtual-host`.")])
        + .section(
            "tokens",
            [
                .string(
                    "public_keys_file", default: nil,
                    """
                    File with the public keys for verifying tokens, one per line: key id and base64 of 32 Ed25519 \
                    bytes; several while keys are rotated.
                    """
                ),
                .string(
                    "signing_key_file", default: nil,
                    "File with the private key for signing tokens (key id and base64 of 32 Ed25519 bytes); only Identity needs it."
                ),
                .duration("lifetime", default: "12h", "How long a token is valid."),
            ])
        + .section(
            "service_user",
            [
                .string("name", default: "wolke", "The user as which the services call each other."),
                .secret("password", required: false, "The service user's password."),
                .string("domain", default: "default", "Id of the service user's domain."),
                .string("project", default: "service", "Name of the service user's project."),
            ])
        + .section("endpoints", endpointKeys)
        + .section("web", webKeys)
        + .section(
            "log",
            [
                .choice("level", ["debug", "info", "notice", "warning", "error"], default: "info", "Minimum severity of log records.")
            ])

    /// Limits of connections and requests per process.
    private static let webKeys: [SettingsKey] = [
        .list(
            "trusted_proxies", default: [],
            """
            Networks (`192.0.2.0/24`) or addresses of proxies whose `X-Forwarded-Host`, `X-Forwarded-Proto` and \
            `X-Forwarded-For` are trusted, and to which `connections_per_source` does not apply.
            """
        ),
        .integer(
            "connections", default: 4096, in: 4...1_000_000,
            """
            Maximum number of open connections of an API; fewer if the process may not open that many files. Over \
            the limit, the connection that has been idle longest is closed; if all have a request in progress, the \
            response is 503.
            """
        ),
        .integer(
            "connections_per_source", default: 1024, in: 1...1_000_000,
            "Maximum number of open connections from one address (one /64 for IPv6)."),
        .duration(
            "head_timeout", default: "10s",
            "Time from the connection, or from a later request's first byte, to the end of the request's head."),
        .duration("idle_timeout", default: "2m", "How long a connection may be idle between two requests."),
        .integer(
            "body_rate", default: 1024, in: 1...1_000_000_000,
            "Minimum rate of a request body in bytes per second, averaged over 15 s, while the service waits for it."),
        .duration("write_timeout", default: "1m", "How long a client may stop reading a response."),
        .integer(
            "body_memory", default: 64, in: 1...65_536,
            """
            Memory for the JSON request bodies of a process, in MiB, of which one project may use a quarter; over \
            the limit the response is 503.
            """
        ),
    ]

    private static var endpointKeys: [SettingsKey] {
        var keys: [SettingsKey] = [
            .string("bind", default: "127.0.0.1", "Address on which the APIs listen."),
            .string(
                "operator_bind", default: "127.0.0.1",
                """
                Address of each process's operators' port: `/healthz`, `/readyz` with reasons, `/version`, \
                `/metrics`, `/openapi.json`. It requires no token.
                """
            ),
            .string("public_host", default: "127.0.0.1", "Host name or address of the APIs in the catalog."),
            .string("region", default: "RegionOne", "Name of the region in the catalog."),
        ]
        for service in CloudService.processes {
            keys.append(.integer("\(service.section)_port", default: service.port, in: 1...65_535, "Port of the API."))
            keys.append(
                .integer(
                    "\(service.section)_operator_port", default: service.operatorPort, in: 0...65_535,
                    "The operators' port, on `operator_bind`; 0 for none."))
            keys.append(
                .string(
                    "\(service.section)_url", default: nil,
                    "Public base URL of the API if it is not `http://public_host:port`, for example behind a proxy."))
        }
        keys.append(
            .integer(
                "agent_port", default: HostAgent.compute.port, in: 1...65_535,
                "The compute agent's operators' port (`/healthz`, `/readyz`, `/version`, `/metrics`), on `operator_bind`."))
        return keys
    }
}
