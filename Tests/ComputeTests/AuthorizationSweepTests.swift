import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI
import Workflow

/// Every route of the Compute API, for callers without access.
@Suite struct ComputeAuthorizationSweepTests {
    private static let publicKey =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDmM4HVkmAMsHtvH5uqx9rNJH6pFR7B1YvNJ2rjaT2vY u1"

    /// A server of the project p1 with a port and a volume, and one resource of every other kind; only p1 has access to the
    /// flavor.
    private static func with(_ body: (TestCloud, RouteSweep) async throws -> Void) async throws {
        try await TestCloud.with { cloud in
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO projects (id, name, is_domain, domain_id, parent_id, created_at, updated_at) VALUES
                        ('default', 'Default', true, NULL, NULL, now(), now()),
                        ('p1', 'p1', false, 'default', 'default', now(), now())
                    """)
            }
            let server = try await cloud.createServer(["metadata": ["k": "v"], "tags": ["t1"]])
            let path = "/v2.1/servers/\(server)"
            cloud.workWhileWaiting()
            func call(_ method: String, _ target: String, _ body: JSONValue? = nil, as token: String = "admin") async throws -> JSONValue {
                let answer = try await cloud.call(method, target, body, as: token)
                try #require(answer.status < 300, "\(method) \(target) \(answer.json)")
                return answer.json
            }
            _ = try await call(
                "POST", path + "/os-volume_attachments", ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]], as: "member")
            try await cloud.engine().drain()
            try await cloud.database.write { connection in
                try connection.execute(
                    """
                    INSERT INTO server_migrations (uuid, server_id, type, status, source_host, dest_host, old_flavor, new_flavor, user_id,
                        project_id, created_at, updated_at)
                    SELECT gen_random_uuid(), id, 'resize', 'confirmed', host, host, flavor, flavor, user_id, project_id, now(), now()
                    FROM servers WHERE id = \(server)::uuid
                    """)
                try connection.execute(
                    """
                    INSERT INTO console_tokens (token_hash, server_id, host, kind, created_at, expires_at)
                    SELECT encode(sha256('sweep-0123456789abcdef'), 'hex'), id, host, 'vnc', now(), now() + interval '1 day'
                    FROM servers WHERE id = \(server)::uuid
                    """)
            }
            let group = try await call(
                "POST", "/v2.1/os-server-groups", ["server_group": ["name": "g", "policy": "affinity"]], as: "member")
            let actions = try await call("GET", path + "/os-instance-actions", as: "member")
            let ports = try await call("GET", path + "/os-interface", as: "member")
            let hypervisors = try await call("GET", "/v2.1/os-hypervisors")
            let aggregate = try await call("POST", "/v2.1/os-aggregates", ["aggregate": ["name": "a"]])
            _ = try await cloud.database.write {
                try $0.execute("UPDATE images SET properties = '{\"k\": \"v\"}' WHERE id = \(Fixtures.image)::uuid")
            }
            _ = try await call("POST", "/v2.1/flavors/3/os-extra_specs", ["extra_specs": ["k": "v"]])
            _ = try await call("POST", "/v2.1/flavors/3/action", ["addTenantAccess": ["tenant": "p1"]])
            _ = try await call(
                "POST", "/v2.1/os-keypairs", ["keypair": ["name": "kp", "public_key": .string(publicKey)]], as: "member")
            let text = { (value: JSONValue?) in value?.stringValue ?? value?.intValue.map { String($0) } ?? "" }
            try await body(
                cloud,
                RouteSweep(
                    cloud.api, database: cloud.database,
                    parameters: [
                        "server_id": server, "image_id": Fixtures.image, "flavor_id": "3", "key": "k", "tag": "t1", "keypair_name": "kp",
                        "group_id": text(group["server_group"]?["id"]), "project_id": "p1", "network": "net",
                        "request_id": text(actions["instanceActions"]?.arrayValue?.first?["request_id"]),
                        "hypervisor_id": text(hypervisors["hypervisors"]?.arrayValue?.first?["id"]),
                        "port_id": text(ports["interfaceAttachments"]?.arrayValue?.first?["port_id"]),
                        "volume_id": Fixtures.volume, "aggregate_id": text(aggregate["aggregate"]?["id"]),
                        "class": "default", "console_token": "sweep-0123456789abcdef", "alias": "os-keypairs", "migration_id": "1",
                        "snapshot_id": Fixtures.volume,
                    ], bodies: ["PUT /v2.1/servers/{server_id}/metadata/{key}": ["meta": ["k": "v"]]]))
        }
    }

    /// Values that are not secret between projects.
    private let forAll: Set<String> = ["os_compute_api:os-quota-sets:defaults", "os_compute_api:extensions"]
    /// Key pairs belong to the user, regardless of the role.
    private let own: Set<String> = ["os_compute_api:os-keypairs:create"]

    /// Routes with a host's name as id, without a report (uptime), without a service (shares), or for which a host must answer.
    private let byHostName: Set<String> = [
        "GET /v2.1/os-hypervisors/{hypervisor_id}/servers", "GET /v2.1/os-hypervisors/{hypervisor_id}/search",
        "GET /v2.1/servers/{server_id}/shares", "GET /v2.1/servers/{server_id}/shares/{share_id}",
        "GET /v2.1/os-hypervisors/{hypervisor_id}/uptime", "GET /v2.1/servers/{server_id}/diagnostics",
        // Only live migrations are shown.
        "GET /v2.1/servers/{server_id}/migrations/{migration_id}",
    ]

    private var duties: RouteSweep.Duties {
        RouteSweep.Duties(
            unreachable: byHostName, forAll: forAll, readersOwn: own, servicesOwn: forAll,
            reads: Set(ComputeAuthorizationSweepTests.effectless.keys))
    }

    /// Routes without an effect, which therefore cannot happen twice.
    private static let effectless = [
        "POST /v2.1/servers/{server_id}/action os-getConsoleOutput": "reads",
        "POST /v2.1/servers/{server_id}/action os-getSPICEConsole": "there is no such display",
        "POST /v2.1/servers/{server_id}/action os-getRDPConsole": "there is no such display",
        "POST /v2.1/servers/{server_id}/action resetNetwork": "answers 410", "POST /v2.1/os-wolke-scheduling": "a dry run",
        "POST /v2.1/os-wolke-scheduling/host-failure": "a rehearsal",
    ]

    /// Routes whose repetition is tested by `LiveMigrateTests`: they need hosts that are up, down, or in the middle of a move.
    private static let moves = [
        "POST /v2.1/servers/{server_id}/action os-migrateLive": "needs a second host",
        "POST /v2.1/servers/{server_id}/action evacuate": "needs a host that is down",
        "POST /v2.1/servers/{server_id}/migrations/{migration_id}/action force_complete": "needs a live migration",
    ]

    /// A server that can move, or has been resized.
    private static func prepareMove(_ connection: Connection, _ server: String, onVolume: Bool, isResized: Bool) throws {
        if onVolume {
            try connection.execute(
                """
                INSERT INTO server_volumes (id, server_id, volume_id, device, boot_index, created_at)
                VALUES (gen_random_uuid(), \(server)::uuid, gen_random_uuid(), '/dev/vda', 0, now())
                """)
        }
        if isResized {
            try connection.execute("UPDATE servers SET other_flavor = flavor, other_flavor_id = flavor_id WHERE id = \(server)::uuid")
            try connection.execute("UPDATE server_migrations SET status = 'finished'")
        } else {
            try connection.execute("UPDATE servers SET other_flavor = NULL, other_flavor_id = NULL")
        }
    }

    @Test func aKeyGivesOneEffect() async throws {
        try await ComputeAuthorizationSweepTests.with { cloud, sweep in
            let server = try #require(sweep.parameters["server_id"])
            let group = SystemRandom().uuid().description
            try await cloud.database.write { connection in
                try connection.execute(
                    "INSERT INTO projects (id, name, is_domain, domain_id, parent_id, created_at, updated_at) VALUES ('x', 'x', false, 'default', 'default', now(), now())"
                )
                try connection.execute(
                    "INSERT INTO security_groups (id, project_id, name, created_at, updated_at) VALUES (\(group)::uuid, 'p1', 'extra', now(), now())"
                )
                try connection.execute(
                    "INSERT INTO quota_limits (project_id, resource, quota_limit) VALUES ('p1', 'compute:instances', -1)")
            }
            let action = "POST /v2.1/servers/{server_id}/action "
            let address = try await cloud.database.read { connection in
                try connection.query(
                    "SELECT f.ip_address FROM server_interfaces i JOIN port_fixed_ips f ON f.port_id = i.port_id LIMIT 1")[0]
                    .string("ip_address")
            }
            let bodies: [String: JSONValue] = [
                "POST /v2.1/os-keypairs": [
                    "keypair": ["name": "new", "type": "ssh", "public_key": .string(ComputeAuthorizationSweepTests.publicKey)]
                ], "POST /v2.1/servers": TestCloud.body(),
                action + "reboot": ["reboot": ["type": "HARD"]], action + "unshelve": ["unshelve": nil],
                action + "os-resetState": ["os-resetState": ["state": "error"]],
                action + "addSecurityGroup": ["addSecurityGroup": ["name": "extra"]],
                action + "addFixedIp": ["addFixedIp": ["networkId": .string(Fixtures.network)]],
                action + "removeFixedIp": ["removeFixedIp": ["address": .string(address)]],
                action + "removeSecurityGroup": ["removeSecurityGroup": ["name": "extra"]],
                action + "rebuild": ["rebuild": ["imageRef": .string(Fixtures.image)]],
                action + "resize": ["resize": ["flavorRef": "2"]],
                "POST /v2.1/servers/{server_id}/os-interface": ["interfaceAttachment": ["net_id": .string(Fixtures.network)]],
                "POST /v2.1/servers/{server_id}/os-volume_attachments": ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]],
                "POST /v2.1/os-aggregates/{aggregate_id}/images": ["cache": [["id": .string(Fixtures.image)]]],
                "POST /v2.1/os-aggregates/{aggregate_id}/action add_host": ["add_host": ["host": "host-1"]],
                "POST /v2.1/os-aggregates/{aggregate_id}/action remove_host": ["remove_host": ["host": "host-1"]],
            ]
            let states = [
                action + "os-start": "stopped", action + "unpause": "paused", action + "resume": "suspended",
                action + "restore": "soft-delete",
                action + "unrescue": "rescued", action + "confirmResize": "resized", action + "revertResize": "resized",
                action + "shelveOffload": "shelved", action + "unshelve": "shelved",
            ]
            let findings = try await sweep.with(bodies: bodies).repeated(
                "admin", except: ComputeAuthorizationSweepTests.effectless.merging(ComputeAuthorizationSweepTests.moves) { $1 },
                prepare: { route in
                    try await cloud.database.write { connection in
                        for table in ["workflows", "intents", "server_volumes"] { try connection.execute("DELETE FROM \(raw: table)") }
                        if route == action + "removeSecurityGroup" {
                            try connection.execute(
                                "INSERT INTO port_security_groups SELECT port_id, \(group)::uuid FROM server_interfaces ON CONFLICT DO NOTHING"
                            )
                        }
                        try ComputeAuthorizationSweepTests.prepareMove(
                            connection, server, onVolume: route == action + "migrate", isResized: states[route] == "resized")
                        try connection.execute("UPDATE volumes SET status = 'available'")
                        // Their workflows are deleted above.
                        try connection.execute("UPDATE server_actions SET finish_time = now()")
                        try connection.execute(
                            "UPDATE servers SET vm_state = \(states[route] ?? "active"), task_state = NULL, locked_by = NULL, deleted = false WHERE id = \(server)::uuid"
                        )
                    }
                })
            #expect(findings == [])
        }
    }

    @Test func answersFitTheirSchemas() async throws {
        try await ComputeAuthorizationSweepTests.with { cloud, sweep in
            var compared = 0
            for version in ["2.1", "2.12", "2.28", "2.52", "2.63", "2.74", "2.88", "2.96", "2.101", "2.104"] {
                let answers = try await sweep.with(headers: [("openstack-api-version", "compute " + version)])
                    .answersDifferingFromSchemas(["admin", "member"])
                #expect(answers.findings == [], "\(version)")
                compared += answers.compared
            }
            #expect(compared >= 450)
            let explanation = "GET /v2.1/servers/{server_id}/os-wolke-scheduling"
            #expect(sweep.undeclaredAnswers([explanation: "as the scheduler of another release may have stored it"]) == [])
            let columns = try await sweep.comparisonsWithoutIndex()
            #expect(columns.findings == [])
            #expect(columns.compared >= 20)
        }
    }

    @Test func listsAndShowsDeclareTheirAnswers() async throws {
        try await ComputeAuthorizationSweepTests.with { cloud, _ in
            let silent = cloud.api.resources.flatMap(\.routes).filter {
                if case .undeclared = $0.answer { $0.method == .get && $0.status == 200 && !$0.isUnavailable } else { false }
            }
            #expect(silent.map(RouteSweep.name) == ["GET /v2.1/servers/{server_id}/os-wolke-scheduling"])
        }
    }

    @Test("S4 S6 S10 S11: requirements of every service", arguments: RouteSweep.Duty.allCases)
    func s10EveryServiceOwes(_ duty: RouteSweep.Duty) async throws {
        try await ComputeAuthorizationSweepTests.with { _, sweep in
            let findings = try await sweep.findings(duty, duties)
            #expect(findings == [])
        }
    }
}
