import ServiceCatalog

extension SettingsSchema {
    /// All sections of the file. One file serves all executables; each of them checks its own sections.
    package static let sectionNames =
        ["database", "messaging", "tokens", "service_user", "endpoints", "web", "log"] + CloudService.all.map(\.section)
        + HostAgent.all.map(\.section)

    /// The settings of commands that only need the database.
    package static let database: SettingsSchema =
        .section(
            "database",
            [
                .secret("url", required: true, "PostgreSQL connection string (libpq: `host=… dbname=…` or `postgresql://…`)."),
                .integer(
                    "connections", default: 8, in: 1...200, "Sessions that one process opens at most, beside those on which it listens."),
                .integer(
                    "reserved_connections", default: 2, in: 0...100,
                    "Of them, kept for workflows, agents and the services' own requests; one at least is left for tenants."),
                .integer(
                    "project_connections", default: 3, in: 1...200, "Sessions that the requests of one project have at a time, at most."),
                .integer(
                    "project_waiting", default: 1000, in: 1...100_000, "Requests of one project that may wait for a session; more get 429."),
                .integer(
                    "waiting", default: 10_000, in: 1...1_000_000, "Requests of all projects that may wait for a session; more get 503."),
                .duration(
                    "read_timeout", default: "10s", "How long one request may read; then its statement is cancelled and the answer is 503."),
                .duration("write_timeout", default: "30s", "How long the transaction of one request may take."),
                .duration("lock_timeout", default: "5s", "How long a request waits for what another one changes."),
                .duration(
                    "plane_timeout", default: "2m", "How long one statement of workflows, agents and the services' own work may take."),
                .duration("plane_lock_timeout", default: "30s", "How long such a statement waits for a lock."),
                .duration("audit_timeout", default: "10m", "How long one statement of an audit may take."),
                .duration("idle_transaction_timeout", default: "1m", "How long a transaction may stay without a statement."),
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
                    "File with the public keys that tokens are checked with, one per line: key id and base64 of 32 Ed25519 bytes; several while keys are rotated."
                ),
                .string(
                    "signing_key_file", default: nil,
                    "File with the private key that Identity signs tokens with (key id and base64 of 32 Ed25519 bytes); only Identity needs it."
                ),
                .duration("lifetime", default: "12h", "How long a token is valid."),
            ])
        + .section(
            "service_user",
            [
                .string("name", default: "wolke", "The user as which the services call each other."),
                .secret("password", required: false, "Its password."),
                .string("domain", default: "default", "Id of its domain."),
                .string("project", default: "service", "Name of the project in which it acts."),
            ])
        + .section("endpoints", endpointKeys)
        + .section("web", webKeys)
        + .section(
            "log",
            [
                .choice("level", ["debug", "info", "notice", "warning", "error"], default: "info", "Least severity that is written.")
            ])

    /// Limits of connections and requests per process.
    private static let webKeys: [SettingsKey] = [
        .list(
            "trusted_proxies", default: [],
            "Networks (`192.0.2.0/24`) or addresses of proxies: their `X-Forwarded-Host` and `X-Forwarded-Proto` are believed, and `connections_per_source` does not apply to them. Nobody else's are."
        ),
        .integer(
            "connections", default: 4096, in: 4...1_000_000,
            "Open connections of an API at most; fewer where the process may not open that many files. Over the limit the connection that has been silent for longest gives way; where all have a request under way, the answer is 503."
        ),
        .integer(
            "connections_per_source", default: 1024, in: 1...1_000_000, "Open connections from one address (of IPv6 one /64) at most."),
        .duration("head_timeout", default: "10s", "From a connection, or a later request's first byte, to the end of the request's head."),
        .duration("idle_timeout", default: "2m", "How long a connection stays open between two requests."),
        .integer(
            "body_rate", default: 1024, in: 1...1_000_000_000,
            "Bytes per second, over 15 s, that a client must send of a body while the service waits for it."),
        .duration("write_timeout", default: "1m", "How long a client may take no byte of an answer."),
        .integer(
            "body_memory", default: 64, in: 1...65_536,
            "MiB of JSON request bodies that a process holds at once, a project at most a quarter; over it the answer is 503."),
    ]

    private static var endpointKeys: [SettingsKey] {
        var keys: [SettingsKey] = [
            .string("bind", default: "127.0.0.1", "Address on which the APIs listen."),
            .string(
                "operator_bind", default: "127.0.0.1",
                "Address on which each process answers operators: `/healthz`, `/readyz` with its reasons, `/version`, `/metrics`, `/openapi.json`. Whoever reaches it reads all that without a token."
            ),
            .string("public_host", default: "127.0.0.1", "Host name or address of the APIs in the catalog."),
            .string("region", default: "RegionOne", "The region's name in the catalog."),
        ]
        for service in CloudService.all {
            keys.append(.integer("\(service.section)_port", default: service.port, in: 1...65_535, "Port of that API."))
            keys.append(
                .integer(
                    "\(service.section)_operator_port", default: service.operatorPort, in: 0...65_535,
                    "Port of its answers to operators, on `operator_bind`; 0 for none."))
            keys.append(
                .string(
                    "\(service.section)_url", default: nil,
                    "Public base URL of that API when it is not `http://public_host:port`, for example behind a proxy."))
        }
        keys.append(
            .integer(
                "agent_port", default: HostAgent.compute.port, in: 1...65_535,
                "Port on which the compute agent answers `/healthz`, `/readyz`, `/version` and `/metrics`, on `operator_bind`."))
        return keys
    }
}
