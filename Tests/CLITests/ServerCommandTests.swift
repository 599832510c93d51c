import JSON
import TestKit
import Testing

/// The requests of `osctl server`, `osctl image` and `osctl quota`, against a stub service.
@Suite struct ServerCommandTests {
    private static let server = "11111111-1111-4111-8111-111111111111"
    private static let other = "22222222-2222-4222-8222-222222222222"
    private static let third = "33333333-3333-4333-8333-333333333333"

    private func tool() throws -> CommandLineTool {
        try CommandLineTool { request in
            if request.path.hasSuffix("/os-interface"), request.method == "GET" {
                return .json(
                    200,
                    [
                        "interfaceAttachments": [
                            ["net_id": .string(ServerCommandTests.other), "port_id": "p1"], ["net_id": "elsewhere", "port_id": "p2"],
                        ]
                    ])
            }
            if request.method == "DELETE" { return .empty(204) }
            let id = JSONValue.string(ServerCommandTests.server)
            return .json(200, ["server": ["id": id], "volumeAttachment": [:], "id": id, "name": "web"])
        }
    }

    private static let requests: [(String, String, String, String)] = [
        (
            "server volume swap \(server) \(other) \(third)", "PUT", "/compute/v2.1/servers/\(server)/os-volume_attachments/\(other)",
            "{\"volumeAttachment\":{\"volumeId\":\"\(third)\"}}"
        ),
        (
            "server volume set \(server) \(other) --delete-on-termination", "PUT",
            "/compute/v2.1/servers/\(server)/os-volume_attachments/\(other)",
            "{\"volumeAttachment\":{\"volumeId\":\"\(other)\",\"delete_on_termination\":true}}"
        ),
        (
            "server add volume \(server) \(other) --tag db --delete-on-termination", "POST",
            "/compute/v2.1/servers/\(server)/os-volume_attachments",
            "{\"volumeAttachment\":{\"volumeId\":\"\(other)\",\"tag\":\"db\",\"delete_on_termination\":true}}"
        ),
        (
            "server add network \(server) \(other) --fixed-ip-address 10.0.0.9 --tag lan", "POST",
            "/compute/v2.1/servers/\(server)/os-interface",
            "{\"interfaceAttachment\":{\"net_id\":\"\(other)\",\"fixed_ips\":[{\"ip_address\":\"10.0.0.9\"}],\"tag\":\"lan\"}}"
        ),
        (
            "server rebuild \(server) --image \(other) --name web --no-key-name --no-user-data --property a=b --preserve-ephemeral", "POST",
            "/compute/v2.1/servers/\(server)/action",
            "{\"rebuild\":{\"imageRef\":\"\(other)\",\"name\":\"web\",\"key_name\":null,\"user_data\":null,\"metadata\":{\"a\":\"b\"},\"preserve_ephemeral\":true}}"
        ),
        (
            "server set \(server) --state error", "POST", "/compute/v2.1/servers/\(server)/action",
            "{\"os-resetState\":{\"state\":\"error\"}}"
        ),
        ("server set \(server) --hostname db", "PUT", "/compute/v2.1/servers/\(server)", "{\"server\":{\"hostname\":\"db\"}}"),
        ("server unset \(server) --description", "PUT", "/compute/v2.1/servers/\(server)", "{\"server\":{\"description\":null}}"),
        (
            "image member add \(server) \(other)", "POST", "/image/v2/images/\(server)/members", "{\"member\":\"\(other)\"}"
        ),
        (
            "image set \(server) --name web --remove-property os", "PATCH", "/image/v2/images/\(server)",
            "[{\"op\":\"replace\",\"path\":\"/name\",\"value\":\"web\"},{\"op\":\"remove\",\"path\":\"/os\"}]"
        ),
        (
            "quota defaults set servers=20 cores=-1", "PUT", "/compute/v2.1/os-quota-class-sets/default",
            "{\"quota_class_set\":{\"instances\":20,\"cores\":-1}}"
        ),
    ]

    @Test(arguments: requests) func theLastRequestHasTheOptions(line: String, method: String, path: String, body: String) async throws {
        let tool = try tool()
        let result = try await tool.run(line)
        #expect(result.status == 0, "\(result)")
        let request = try #require(tool.server.requests.last)
        #expect(request.method == method && request.path == path, "\(request)")
        #expect(try request.json == JSONValue.parse(Array(body.utf8)))
    }

    @Test(arguments: [
        ("server unset \(server) --property a --tag b", ["metadata/a", "tags/b"].map { "DELETE /compute/v2.1/servers/\(server)/" + $0 }),
        ("server set \(server) --tag b", ["PUT /compute/v2.1/servers/\(server)/tags/b"]),
        (
            "server remove network \(server) \(other)",
            ["GET", "DELETE"].map { "\($0) /compute/v2.1/servers/\(server)/os-interface" + ($0 == "GET" ? "" : "/p1") }
        ),
        ("server topology \(server)", ["GET /compute/v2.1/servers/\(server)/topology"]),
        ("server diagnostics \(server)", ["GET /compute/v2.1/servers/\(server)/diagnostics"]),
        (
            "image set \(server) --tag a --remove-tag b",
            ["PUT /image/v2/images/\(server)/tags/a", "DELETE /image/v2/images/\(server)/tags/b"]
        ),
        ("image deactivate \(server)", ["POST /image/v2/images/\(server)/actions/deactivate"]),
        ("image cache add \(server)", ["PUT /image/v2/cache/\(server)"]),
        ("image cache remove \(server)", ["DELETE /image/v2/cache/\(server)"]),
        ("image cache clear --only queue", ["DELETE /image/v2/cache"]),
        ("image cache prune", ["POST /image/v2/cache/prune"]),
        ("image member remove \(server) \(other)", ["DELETE /image/v2/images/\(server)/members/\(other)"]),
    ]) func requestsAre(line: String, expected: [String]) async throws {
        let tool = try tool()
        let result = try await tool.run(line)
        #expect(result.status == 0, "\(result)")
        #expect(Array(tool.server.lines.dropFirst()) == expected)
    }

    @Test func aNewServerHasTheDisksAndInterfacesOfItsOptions() async throws {
        let tool = try tool()
        let result = try await tool.run(
            """
            server create web --flavor \(Self.other) --image \(Self.third) --swap 64 --ephemeral 1 --block-device \
            source=blank,destination=volume,size=2,delete-on-termination=true --nic network=\(Self.server),fixed-ip=10.0.0.7,tag=lan \
            --hostname db --host h1
            """)
        #expect(result.status == 0, "\(result)")
        let request = try #require(tool.server.requests.first { $0.method == "POST" && $0.path.hasSuffix("/servers") })
        let server = try #require(request.json["server"])
        #expect(server["hostname"] == "db" && server["host"] == "h1")
        #expect(server["networks"] == [["uuid": .string(Self.server), "fixed_ip": "10.0.0.7", "tag": "lan"]])
        #expect(
            server["block_device_mapping_v2"] == [
                [
                    "boot_index": 0, "uuid": .string(Self.third), "source_type": "image", "destination_type": "local",
                    "delete_on_termination": true,
                ],
                [
                    "boot_index": -1, "source_type": "blank", "destination_type": "local", "guest_format": "swap", "volume_size": 64,
                    "delete_on_termination": true,
                ],
                [
                    "boot_index": -1, "source_type": "blank", "destination_type": "local", "volume_size": 1,
                    "delete_on_termination": true,
                ],
                [
                    "delete_on_termination": true, "destination_type": "volume", "volume_size": 2, "source_type": "blank",
                    "boot_index": -1,
                ],
            ])
    }

    @Test(arguments: [
        ("server create web --flavor a --block-device size=x", "volume_size must be a number, not x"),
        ("server create web --flavor a --image b --nic tag=x", "--nic needs either network=NAME or port=NAME"),
        ("server create web --flavor a --image b --block-device colour=red", "--block-device has no key colour"),
        ("server unset web", "Nothing to unset."), ("quota defaults set networks=5", "There is no limit networks."),
    ]) func badOptionsAreRefused(line: String, message: String) async throws {
        let tool = try CommandLineTool { request in
            request.path.hasSuffix("/flavors/detail")
                ? .json(200, ["flavors": [["id": "1", "name": "a"]]])
                : .json(200, ["images": [["id": .string(ServerCommandTests.other), "name": "b"]]])
        }
        let result = try await tool.run(line)
        #expect(result.status != 0)
        #expect(result.errors.contains(message), "\(result)")
    }
}
