import Database
import JSON
import Kernel
import TestKit
import Testing
import Workflow

/// Audit records contain the written values, not those of the request.
@Suite struct AuditRecordTests {
    private func record(_ cloud: TestCloud, _ action: String) async throws -> JSONValue {
        try await cloud.database.read {
            try $0.query("SELECT content FROM audit_records WHERE action = \("os_compute_api:" + action) ORDER BY id DESC LIMIT 1")
                .first?.optionalJSON("content") ?? .null
        }
    }

    @Test func aServerIsRecordedAsWritten() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(["user_data": "c2VjcmV0"])
            for version in ["2.19", "2.75", "2.96"] {
                let answer = try await cloud.call(
                    "PUT", "/v2.1/servers/\(id)", ["server": ["name": "db", "accessIPv6": "2001:DB8:0:0::1"]], as: "admin", version: version
                )
                #expect(answer.status == 200, "\(answer.json)")
                let written = try await record(cloud, "servers:update")
                #expect(written["accessIPv6"] == "2001:db8::1" && written["name"] == "db" && written["id"] == .string(id), "\(written)")
                #expect(!String(decoding: written.encoded, as: UTF8.self).contains("c2VjcmV0"), "user data may hold secrets")
            }
        }
    }

    @Test func anAttachmentIsRecordedAsWritten() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.workWhileWaiting()
            let path = "/v2.1/servers/\(id)/os-volume_attachments"
            let attached = try await cloud.call("POST", path, ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]])
            #expect(attached.status == 200, "\(attached.json)")
            try await cloud.engine().drain()
            let changed = try await cloud.call(
                "PUT", "\(path)/\(Fixtures.volume)",
                ["volumeAttachment": ["volumeId": .string(Fixtures.volume), "delete_on_termination": "true", "device": "/dev/vdb"]])
            #expect(changed.status == 202, "\(changed.json)")
            #expect(
                try await record(cloud, "os-volumes-attachments:update") == [
                    "volumeId": .string(Fixtures.volume), "delete_on_termination": true,
                ])
        }
    }

    @Test func operatorsChangesAreRecordedAsWritten() async throws {
        try await TestCloud.with { cloud in
            let flavor = try await cloud.call(
                "POST", "/v2.1/flavors", ["flavor": ["name": "new", "vcpus": "2", "ram": "64", "disk": 0]], as: "admin")
            #expect(flavor.status == 200, "\(flavor.json)")
            let recorded = try await record(cloud, "os-flavor-manage:create")
            #expect(recorded["vcpus"] == 2 && recorded["id"] == flavor.json["flavor"]?["id"] && recorded["swap"] == 0, "\(recorded)")

            let aggregate = try await cloud.call("POST", "/v2.1/os-aggregates", ["aggregate": ["name": "rack"]], as: "admin")
            #expect(try await record(cloud, "os-aggregates:create")["id"] == aggregate.json["aggregate"]?["id"])
            let id = aggregate.json["aggregate"]?["id"]?.intValue ?? 0
            _ = try await cloud.call("PUT", "/v2.1/os-aggregates/\(id)", ["aggregate": ["availability_zone": "z1"]], as: "admin")
            let updated = try await record(cloud, "os-aggregates:update")
            #expect(updated["name"] == "rack" && updated["availability_zone"] == "z1", "\(updated)")

            let group = try await cloud.call("POST", "/v2.1/os-server-groups", ["server_group": ["name": "g", "policy": "affinity"]])
            #expect(try await record(cloud, "os-server-groups:create")["id"] == group.json["server_group"]?["id"])

            _ = try await cloud.database.write { connection in
                try connection.execute(
                    "INSERT INTO projects (id, name, is_domain, created_at, updated_at) VALUES ('p1', 'p1', true, now(), now())")
            }
            _ = try await cloud.call("PUT", "/v2.1/os-quota-sets/p1", ["quota_set": ["cores": "7", "force": true]], as: "admin")
            let quota = try await record(cloud, "os-quota-sets:update")
            #expect(quota["cores"] == 7 && quota["force"] == nil, "\(quota)")
        }
    }
}
