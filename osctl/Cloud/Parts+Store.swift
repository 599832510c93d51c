import Glibc
import Kernel

/// PostgreSQL and RabbitMQ with their data below the state directory.
struct StoreParts: Sendable {
    let layout: CloudLayout
    let secrets: CloudSecrets

    static let postgresBinaries = "/usr/lib/postgresql/15/bin"
    static let rabbitmqBinaries = "/usr/lib/rabbitmq/bin"

    var all: [Part] { [postgres, epmd, rabbitmq] }

    // MARK: PostgreSQL

    private var postgres: Part {
        let binaries = StoreParts.postgresBinaries
        let data = layout.postgres + "/data"
        let sockets = layout.postgres + "/run"
        let settings = [
            "port=\(layout.postgresPort)", "listen_addresses=127.0.0.1", "unix_socket_directories=\(sockets)",
            "unix_socket_permissions=0700", "max_connections=300", "shared_buffers=128MB",
            "log_min_messages=warning", "logging_collector=off", "jit=off", "password_encryption=scram-sha-256",
            "hba_file=\(access.rules)", "ident_file=\(access.users)",
        ]
        let command = ["\(binaries)/postgres", "-D", data] + settings.flatMap { ["-c", $0] }
        return Part(
            name: "postgres", group: .infrastructure, address: "127.0.0.1:\(layout.postgresPort), socket \(sockets)",
            launch: Launch(
                arguments: asPostgres(command), environment: ["PATH": Tool.searchPath, "LC_ALL": "C.UTF-8", "HOME": layout.postgres],
                output: layout.log + "/postgres.log"),
            needs: [], stopSignal: SIGINT, stopGrace: .seconds(15),
            prepare: { try await preparePostgres(data: data, sockets: sockets) },
            probe: {
                try await Tool.require(["\(binaries)/pg_isready", "-q", "-h", sockets, "-p", "\(layout.postgresPort)"])
                let version = try await Tool.require(["\(binaries)/postgres", "--version"])
                return version.split(separator: " ").dropFirst(2).first.map(String.init) ?? "15"
            },
            settle: { try await access.settle() })
    }

    private var access: DatabaseAccess { DatabaseAccess(layout: layout, secrets: secrets) }

    /// Runs the command as a user that PostgreSQL accepts, because it refuses to run as root.
    ///
    /// If the postgres user cannot access the state directory (below /root, for example), a user namespace gives the process that
    /// user's id while the files stay root's.
    private func asPostgres(_ command: [String]) -> [String] {
        guard geteuid() == 0, let user = getpwnam("postgres") else { return command }
        let ids = (user: user.pointee.pw_uid, group: user.pointee.pw_gid)
        if Machine.isReachableByOthers(layout.state) {
            return ["/usr/bin/setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] + command
        }
        return ["/usr/bin/unshare", "--user", "--map-user=\(ids.user)", "--map-group=\(ids.group)"] + command
    }

    private func preparePostgres(data: String, sockets: String) async throws {
        for (directory, mode) in [(layout.postgres, mode_t(0o711)), (sockets, 0o711)] {
            try Machine.makeDirectory(directory, mode: mode)
        }
        let changesOwner = geteuid() == 0 && Machine.isReachableByOthers(layout.state)
        if changesOwner {
            try await Tool.require(["chown", "postgres:postgres", layout.postgres, sockets])
        }
        try access.write()
        guard !Machine.exists(data + "/PG_VERSION") else { return }
        // The server uses the cloud's access rules; those in the data directory admit nobody.
        try await Tool.require(
            asPostgres([
                "\(StoreParts.postgresBinaries)/initdb", "-D", data, "-U", DatabaseAccess.superuser, "--encoding=UTF8",
                "--locale=C.UTF-8", "--auth-local=reject", "--auth-host=reject",
            ]), environment: ["HOME": layout.postgres])
    }

    // MARK: RabbitMQ

    private var rabbitEnvironment: [String: String] {
        let directory = layout.rabbitmq
        return [
            "PATH": Tool.searchPath, "LC_ALL": "C.UTF-8", "HOME": directory,
            "ERL_EPMD_PORT": "\(layout.epmdPort)", "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "wolke@localhost", "RABBITMQ_DIST_PORT": "\(layout.erlangDistributionPort)",
            "RABBITMQ_CONFIG_FILE": directory + "/rabbitmq.conf", "RABBITMQ_CONF_ENV_FILE": directory + "/rabbitmq-env.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": directory + "/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": directory + "/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": directory + "/mnesia", "RABBITMQ_LOG_BASE": directory + "/log",
            "RABBITMQ_PID_FILE": directory + "/rabbitmq.pid", "RABBITMQ_FEATURE_FLAGS_FILE": directory + "/feature_flags",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}",
            // Makes the script exec the Erlang machine, so that its process is the supervised one.
            "RUNNING_UNDER_SYSTEMD": "true",
        ]
    }

    private var epmd: Part {
        Part(
            name: "epmd", group: .infrastructure, address: "127.0.0.1:\(layout.epmdPort)",
            launch: Launch(
                arguments: ["/usr/bin/epmd", "-port", "\(layout.epmdPort)", "-address", "127.0.0.1", "-relaxed_command_check"],
                environment: ["PATH": Tool.searchPath, "HOME": layout.rabbitmq], output: layout.log + "/epmd.log"),
            needs: [], stopGrace: .seconds(2),
            prepare: { try Machine.makeDirectory(layout.rabbitmq, mode: 0o700) },
            probe: {
                if Machine.isFree(port: layout.epmdPort) { throw CloudError("not listening yet") }
                return ""
            })
    }

    private var rabbitmq: Part {
        Part(
            name: "rabbitmq", group: .infrastructure, address: "127.0.0.1:\(layout.amqpPort)",
            launch: Launch(
                arguments: [StoreParts.rabbitmqBinaries + "/rabbitmq-server"], environment: rabbitEnvironment,
                output: layout.log + "/rabbitmq.log"),
            needs: ["epmd"], stopGrace: .seconds(20), readyWithin: .seconds(90),
            prepare: { try prepareRabbitmq() },
            probe: { try await Probe.amqp(port: layout.amqpPort) })
    }

    private func prepareRabbitmq() throws {
        let listeners = layout.hosts.enumerated()
            .map { "listeners.tcp.\($0 + 1) = \($1.machineAddress):\(layout.amqpPort)" }.joined(separator: "\n")
        let directory = layout.rabbitmq
        for name in ["", "/mnesia", "/log"] { try Machine.makeDirectory(directory + name, mode: 0o700) }
        if !Machine.exists(directory + "/.erlang.cookie") {
            try Machine.write(directory + "/.erlang.cookie", secrets.erlangCookie, mode: 0o400)
        }
        try Machine.write(directory + "/enabled_plugins", "[].\n")
        try Machine.write(directory + "/rabbitmq-env.conf", "")
        try Machine.write(
            directory + "/rabbitmq.conf",
            """
            \(listeners)
            default_user = wolke
            default_pass = \(secrets.rabbitmq)
            vm_memory_high_watermark.absolute = 512MB
            disk_free_limit.absolute = 100MB
            log.console = true
            log.console.level = warning
            log.file = false

            """, mode: 0o600)
    }
}
