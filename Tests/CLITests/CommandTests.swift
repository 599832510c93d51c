import Foundation
import JSON
import Kernel
import Synchronization
import TestKit
import Testing

@testable import osctl

/// The program itself against a stub with the services' response formats.
@Suite struct CommandTests {
    static let network: JSONValue = [
        "id": "11111111-1111-4111-8111-111111111111", "name": "lan", "status": "ACTIVE", "subnets": ["s1"], "router:external": false,
        "shared": false,
    ]

    @Test func aListIsOneRequest() async throws {
        let tool = try CommandLineTool { _ in .json(200, ["networks": [CommandTests.network]]) }
        let first = try await tool.run("network list")
        #expect(first.status == 0, "\(first)")
        #expect(first.output.hasPrefix("ID "))
        #expect(first.output.contains("11111111-1111-4111-8111-111111111111  lan   ACTIVE  s1       false     false"))
        _ = try await tool.run("network list -o json")
        #expect(tool.server.lines == ["POST /v3/auth/tokens", "GET /network/v2.0/networks", "GET /network/v2.0/networks"])
    }

    @Test func theKeptTokenIsTheOwnersOnly() async throws {
        let tool = try CommandLineTool { _ in .json(200, ["networks": []]) }
        _ = try await tool.run("network list")
        let directory = tool.home + "/.cache/osctl"
        let file = try #require(try FileManager.default.contentsOfDirectory(atPath: directory).first)
        let mode = try FileManager.default.attributesOfItem(atPath: directory + "/" + file)[.posixPermissions] as? Int
        #expect(mode == 0o600)
        #expect(try !String(contentsOfFile: directory + "/" + file, encoding: .utf8).contains("secret\"" + ":\"secret"))
        try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: directory + "/" + file)
        _ = try await tool.run("network list")
        #expect(tool.server.lines.filter { $0.hasPrefix("POST") }.count == 2, "a token that others could have read is not used")
    }

    @Test func noCacheSignsOnEachTime() async throws {
        let tool = try CommandLineTool { _ in .json(200, ["networks": []]) }
        _ = try await tool.run("--no-cache network list")
        _ = try await tool.run("network list --no-cache")
        #expect(tool.server.lines.filter { $0.hasPrefix("POST") }.count == 2)
        #expect(!FileManager.default.fileExists(atPath: tool.home + "/.cache/osctl"))
    }

    @Test func aMissingNameSaysWhereToLook() async throws {
        let tool = try CommandLineTool { _ in .json(200, ["images": []]) }
        let result = try await tool.run("image show nothing")
        #expect(result.status == 1)
        #expect(result.errors == "Error: There is no image nothing.\nSee: osctl image list\n")
        #expect(tool.server.lines.last == "GET /image/v2/images?name=nothing")
    }

    @Test func severalOfOneNameAskForTheID() async throws {
        let tool = try CommandLineTool { _ in .json(200, ["networks": [["id": "a", "name": "lan"], ["id": "b", "name": "lan"]]]) }
        let result = try await tool.run("network delete lan")
        #expect(result.status == 1)
        #expect(result.errors == "Error: 2 networks have the name lan: a, b.\nUse the id instead of the name.\n")
    }

    @Test func anIDIsDeletedWithoutLookingItUp() async throws {
        let tool = try CommandLineTool { _ in .empty(204) }
        let result = try await tool.run("network delete 11111111-1111-4111-8111-111111111111")
        #expect(result.status == 0)
        #expect(tool.server.lines.dropFirst() == ["DELETE /network/v2.0/networks/11111111-1111-4111-8111-111111111111"])
    }

    @Test func deletingGoesOnAfterAFailure() async throws {
        let tool = try CommandLineTool { request in
            if request.method == "DELETE" { return .empty(204) }
            return .json(200, ["networks": request.query.contains("name=b") ? [["id": "i", "name": "b"]] : []])
        }
        let result = try await tool.run("network delete a b")
        #expect(result.status == 1)
        #expect(result.output == "Deleted network b.\n")
        #expect(result.errors.hasPrefix("Error: a: There is no network a.\n"))
    }

    @Test func wrongCredentialsNameTheirSource() async throws {
        let tool = try CommandLineTool { _ in .empty(500) }
        let result = try await tool.run("network list", cloud: "wrong")
        #expect(result.status == 1)
        #expect(result.errors.contains("requires authentication"))
        #expect(
            result.errors.contains(
                "Identity refused the user, password or project of cloud wrong of \(tool.home)/.config/openstack/clouds.yaml."))
    }

    @Test func aDeadCloudIsSaidSo() async throws {
        let tool = try CommandLineTool { _ in .empty(500) }
        tool.server.stop()
        let result = try await tool.run("network list")
        #expect(result.status == 1)
        #expect(result.errors.contains("connection refused"))
        #expect(result.errors.contains("osctl status"))
    }

    @Test func servicesErrorsAreShown() async throws {
        let tool = try CommandLineTool { _ in
            .json(409, ["NeutronError": ["type": "OverQuota", "message": "Quota exceeded for resources: ['network'].", "detail": ""]])
        }
        let result = try await tool.run("network create lan")
        #expect(result.errors == "Error: Quota exceeded for resources: ['network'].\nSee what is used: osctl quota usage\n")
    }

    @Test func creationsCarryTheirOptions() async throws {
        let tool = try CommandLineTool { request in
            if request.path.hasSuffix("/subnets") { return .json(201, ["subnet": ["id": "s", "name": "lan-v4"]]) }
            return .json(200, ["networks": [CommandTests.network]])
        }
        let result = try await tool.run(
            "subnet create lan-v4 --network lan --subnet-range 10.0.0.0/24 --dns-nameserver 1.1.1.1 --allocation-pool 10.0.0.10-10.0.0.20 --gateway none -o json"
        )
        #expect(result.status == 0, "\(result)")
        let request = try #require(tool.server.requests.last)
        #expect(
            request.json == [
                "subnet": [
                    "name": "lan-v4", "network_id": "11111111-1111-4111-8111-111111111111", "cidr": "10.0.0.0/24", "ip_version": 4,
                    "enable_dhcp": true, "gateway_ip": nil, "dns_nameservers": ["1.1.1.1"],
                    "allocation_pools": [["start": "10.0.0.10", "end": "10.0.0.20"]],
                ]
            ])
        #expect(request.headers["idempotency-key"]?.count == 36)
    }

    @Test func aServerIsMadeAndWaitedFor() async throws {
        let polls = Mutex(0)
        let id = "22222222-2222-4222-8222-222222222222"
        let tool = try CommandLineTool { request in
            switch request.line {
            case "POST /compute/v2.1/servers": return .json(202, ["server": ["id": .string(id), "adminPass": "x"]])
            case "GET /compute/v2.1/flavors/detail": return .json(200, ["flavors": [["id": "1", "name": "m1.nano"]]])
            case "GET /image/v2/images?name=guest": return .json(200, ["images": [["id": "img", "name": "guest"]]])
            case "GET /compute/v2.1/os-server-groups": return .json(200, ["server_groups": [["id": "g-id", "name": "g"]]])
            default:
                let count = polls.withLock { count in
                    count += 1
                    return count
                }
                let server: JSONValue = [
                    "id": .string(id), "name": "web", "status": count < 3 ? "BUILD" : "ACTIVE",
                    "OS-EXT-STS:task_state": count < 3 ? "spawning" : nil, "addresses": ["lan": [["addr": "10.0.0.5", "version": 4]]],
                ]
                return .json(200, ["server": server])
            }
        }
        let result = try await tool.run(
            "server create web --flavor m1.nano --image guest --key-name k --property a=b --hint group=g --wait")
        #expect(result.status == 0, "\(result)")
        #expect(result.output.contains("lan=10.0.0.5"))
        #expect(result.errors == "server web: build, spawning\nserver web: active\n")
        let body = try #require(tool.server.requests.first { $0.method == "POST" && $0.path.hasSuffix("/servers") }).json
        #expect(
            body == [
                "server": [
                    "name": "web", "flavorRef": "1", "imageRef": "img", "networks": "auto", "key_name": "k", "metadata": ["a": "b"],
                ],
                "os:scheduler_hints": ["group": "g-id"],
            ])
    }

    @Test func listsAreSortedBothWays() async throws {
        let tool = try CommandLineTool { _ in
            .json(200, ["flavors": .array([2, 10, 1].map { ["id": .string("\($0)"), "name": .string("f\($0)"), "ram": JSONValue($0)] })])
        }
        #expect(try await tool.run("flavor list --sort -ram --limit 2 -o value -c Name").output == "f10\nf2\n")
        #expect(try await tool.run("flavor list --sort ram -o value -c Name").output == "f1\nf2\nf10\n")
    }

    private static let refused: JSONValue = [
        "result": "rejected", "fits": 0, "dry_run": true,
        "message": "No valid host was found. It would fit with 2 vCPU less (2 instead of 4).",
        "filters": [["name": "ResourceFilter", "hosts_before": 3, "hosts_after": 0, "reasons": ["not enough VCPU": 3]]],
    ]

    @Test func dryRunCreatesNothing() async throws {
        let places: JSONValue = [
            "result": "scheduled", "dry_run": true, "host": "h1", "fits": 7,
            "filters": [["name": "ComputeFilter", "hosts_before": 3, "hosts_after": 2, "reasons": ["not in service": 1]]],
            "operator": [["host": "h2", "filter": "ComputeFilter", "reason": "the compute service is disabled"]],
            "servers": [
                ["result": "scheduled", "host": "h1"], ["result": "scheduled", "host": "h1"], ["result": "scheduled", "host": "h3"],
            ],
        ]
        let answer = Mutex(places)
        let tool = try CommandLineTool { request in
            request.path == "/compute/v2.1/os-wolke-scheduling" ? .json(200, ["scheduling": answer.withLock { $0 }]) : .json(500, [:])
        }
        let id = "22222222-2222-4222-8222-222222222222"
        let command = "server create web --flavor \(id) --image \(id) --count 3 --dry-run"
        let found = try await tool.run(command)
        #expect(found.status == 0, "\(found)")
        #expect(
            found.output.hasPrefix(
                "It would go to h1. 7 like it would fit now. Nothing is claimed.\nOf 3 servers all would find a host: 2 on h1, 1 on h3.\n"))
        #expect(found.output.contains("h2    ComputeFilter  the compute service is disabled"))
        answer.withLock { $0 = CommandTests.refused }
        let refused = try await tool.run(command)
        #expect(refused.status == 1)
        #expect(refused.output.hasPrefix("No valid host was found. It would fit with 2 vCPU less (2 instead of 4).\n"))
        #expect(refused.output.contains("ResourceFilter  0           3 × not enough VCPU"))
        #expect(try JSONValue.parse(try await tool.run(command + " -o json").output)["fits"] == 0)
        #expect(!tool.server.requests.contains { $0.method == "POST" && $0.path.hasSuffix("/servers") })
    }

    @Test func whyHasTheSchedulersRecord() async throws {
        let id = "22222222-2222-4222-8222-222222222222"
        var record = CommandTests.refused.objectValue ?? [:]
        record["dry_run"] = nil
        record["created_at"] = "2026-01-01T00:00:00Z"
        let then = JSONValue.object(record)
        let tool = try CommandLineTool { request in
            switch request.path {
            case "/compute/v2.1/servers/\(id)": .json(200, ["server": ["id": .string(id), "name": "web", "status": "ERROR"]])
            case "/compute/v2.1/servers/\(id)/os-wolke-scheduling":
                .json(200, ["scheduling": [then], "now": ["result": "scheduled", "fits": 1, "dry_run": true]])
            default: .json(200, ["instanceActions": []])
            }
        }
        let why = try await tool.run("server why \(id)")
        #expect(
            why.output.hasPrefix("Server web is ERROR.\n\nThe scheduler's decision of 2026-01-01T00:00:00Z: No valid host was found."),
            "\(why)")
        #expect(why.output.contains("Asked now: There is a host for it. One like it would fit now. Nothing is claimed."))
        #expect(try JSONValue.parse(try await tool.run("server why \(id) -o json").output)["scheduling"] != nil)
    }

    @Test func aServerThatFailsSaysWhy() async throws {
        let tool = try CommandLineTool { request in
            request.method == "POST"
                ? .json(202, ["server": ["id": "x"]])
                : .json(200, ["server": ["id": "x", "name": "web", "status": "ERROR", "fault": ["message": "No valid host was found."]]])
        }
        let id = "22222222-2222-4222-8222-222222222222"
        let result = try await tool.run("server create web --flavor \(id) --image \(id) --wait")
        #expect(result.status == 1)
        #expect(result.errors.hasSuffix("Error: The server web is now ERROR: No valid host was found.\nSee: osctl server why x\n"))
    }

    @Test(arguments: [
        ("server create web --flavor f", "A server needs --image (see: osctl image list), --volume or --block-device."),
        ("volume create v", "A volume needs --size, in GB."),
        ("role add r --user u", "Specify one of --project, --domain and --system."),
        ("role remove r --system", "Specify one of --user and --group."),
        ("role remove r --user u --group g --system", "Specify one of --user and --group."),
        ("role remove r --user u --system --inherited", "--inherited needs --project or --domain."),
        (
            "subnet create s --network n --subnet-range 10.0.0.0/24 --allocation-pool x",
            "The value 'x' is invalid for '--allocation-pool <first-last>'"
        ),
        ("security-group rule create g --dst-port 9:1", "The value '9:1' is invalid for '--dst-port <port>'"),
        ("network lst", "Unexpected argument 'lst'"),
        ("quota set demo cores", "The value 'cores' is invalid for '<limit=number>'"),
    ]) func argumentErrorsComeBeforeAnyRequest(line: String, message: String) async throws {
        let tool = try CommandLineTool { _ in .empty(500) }
        let result = try await tool.run(line)
        #expect(result.status == 64)
        #expect(result.errors.hasPrefix("Error: \(message)"), "\(result.errors)")
        #expect(tool.server.lines.isEmpty)
    }

    /// The commands that the doctor gives for roles in cloud projects (`IdentityInspections`).
    @Test func rolesOfGroupsAndBelowAPlaceAreAddedAndRemoved() async throws {
        let tool = try CommandLineTool { request in
            request.path.contains("/domains") ? .json(200, ["domains": [["id": "default", "name": "Default"]]]) : .empty(204)
        }
        let id = "0123456789abcdef0123456789abcdef"
        for (line, expected) in [
            ("role remove \(id) --group \(id) --project \(id)", "DELETE /v3/projects/\(id)/groups/\(id)/roles/\(id)"),
            (
                "role add \(id) --user \(id) --domain default --inherited",
                "PUT /v3/OS-INHERIT/domains/default/users/\(id)/roles/\(id)/inherited_to_projects"
            ),
        ] {
            let result = try await tool.run(line)
            #expect(result.status == 0, "\(result)")
            #expect(tool.server.lines.last == expected)
        }
    }

    @Test func quotasOfAllServicesAreOneList() async throws {
        let tool = try CommandLineTool { request in
            switch request.path {
            case "/compute/v2.1/os-quota-sets/p1/detail":
                return .json(
                    200,
                    [
                        "quota_set": [
                            "cores": ["limit": 20, "in_use": 1, "reserved": 0], "instances": ["limit": -1, "in_use": 1, "reserved": 0],
                        ]
                    ])
            case "/network/v2.0/quotas/p1/details": return .json(200, ["quota": ["network": ["limit": 100, "used": 2, "reserved": 0]]])
            default: return .json(200, ["quota_set": ["volumes": ["limit": 10, "in_use": 0, "reserved": 0]]])
            }
        }
        let result = try await tool.run("quota usage")
        #expect(
            result.output == """
                SERVICE        RESOURCE  USED  RESERVED  LIMIT
                compute        servers   1     0         unlimited
                compute        cores     1     0         20
                network        networks  2     0         100
                block-storage  volumes   0     0         10

                """, "\(result)")
        #expect(tool.server.lines.last == "GET /volume/v3/p1/os-quota-sets/p1?usage=True")
        let change = try await tool.run("quota set demo cores=8 networks=5")
        #expect(change.status == 0, "\(change)")
        #expect(tool.server.requests.suffix(2).map(\.json) == [["quota_set": ["cores": 8]], ["quota": ["network": 5]]])
    }

    @Test func imagesAreUploadedAndTakenBackOnFailure() async throws {
        let fails = Mutex(false)
        let tool = try CommandLineTool { request in
            if request.path.hasSuffix("/file") { return fails.withLock { $0 } ? .json(415, ["message": "no qcow2"]) : .empty(204) }
            if request.method == "DELETE" { return .empty(204) }
            return .json(request.method == "POST" ? 201 : 200, ["id": "i1", "name": "g", "status": "active", "size": 3])
        }
        let file = tool.home + "/disk.qcow2"
        try "abc".write(toFile: file, atomically: true, encoding: .utf8)
        let result = try await tool.run(["image", "create", "g", "--file", file])
        #expect(result.status == 0, "\(result)")
        #expect(tool.server.requests.first { $0.path.hasSuffix("/file") }?.body == Array("abc".utf8))
        fails.withLock { $0 = true }
        let failed = try await tool.run(["image", "create", "g", "--file", file])
        #expect(failed.status == 1)
        #expect(failed.errors.hasPrefix("Error: no qcow2"))
        #expect(tool.server.lines.last == "DELETE /image/v2/images/i1")
    }

    @Test func downloadsAppearWhenComplete() async throws {
        let breaks = Mutex(true)
        let tool = try CommandLineTool { request in
            guard request.path.hasSuffix("/file") else { return .json(200, ["images": [["id": "i1", "name": "g"]]]) }
            let answer = StubServer.Answer.bytes(200, [UInt8](repeating: 7, count: 200_000))
            return breaks.withLock { $0 } ? answer.broken(after: 100_000) : answer
        }
        let file = tool.home + "/saved"
        #expect(try await tool.run(["image", "download", "g", "-f", file]).status == 1)
        #expect(!FileManager.default.fileExists(atPath: file) && !FileManager.default.fileExists(atPath: file + ".part"))
        breaks.withLock { $0 = false }
        let result = try await tool.run(["image", "download", "g", "-f", file])
        #expect(result.status == 0, "\(result)")
        #expect(FileManager.default.contents(atPath: file)?.count == 200_000)
    }

    @Test func consoleShowsTheLog() async throws {
        let tool = try CommandLineTool { request in
            request.method == "POST" ? .json(200, ["output": "hello\nlogin:"]) : .json(200, ["servers": [["id": "x", "name": "web"]]])
        }
        #expect(try await tool.run("server console web").output == "hello\nlogin:\n")
        #expect(try await tool.run("server console log web --lines 5").status == 0)
        #expect(tool.server.requests.last?.json == ["os-getConsoleOutput": ["length": 5]])
    }

    @Test func everyCommandHasHelp() async throws {
        let tool = try CommandLineTool { _ in .empty(500) }
        let result = try await tool.run("--experimental-dump-help")
        #expect(result.status == 0, "\(result.errors)")
        #expect(try JSONValue.parse(result.output)["command"]?["subcommands"]?.arrayValue?.count ?? 0 > 25)
        for shell in ["bash", "zsh", "fish"] {
            let script = try await tool.run("--generate-completion-script \(shell)")
            #expect(script.status == 0 && script.output.contains("floating-ip"))
        }
    }
}
