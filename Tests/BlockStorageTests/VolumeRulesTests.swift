import BlockStorageCore
import BlockStorageService
import Database
import DiskTool
import JSON
import Kernel
import TestKit
import Testing

@Suite struct VolumeRulesTests {
    @Test func attachmentsDecideTheState() {
        #expect(AttachmentStatus.volumeStatus([]) == .available)
        #expect(AttachmentStatus.volumeStatus([.reserved]) == .reserved)
        #expect(AttachmentStatus.volumeStatus([.reserved, .attaching]) == .attaching)
        #expect(AttachmentStatus.volumeStatus([.attached, .attaching]) == .inUse)
    }

    @Test func everyActionHasItsStates() {
        for action in VolumeStatus.Action.allCases {
            #expect(VolumeStatus.allowed.filter { $0.action == action }.count == 1)
            #expect(!VolumeStatus.deleting.allows(action))
        }
        #expect(!VolumeStatus.inUse.allows(.delete))
    }

    @Test func imagesMustFit() throws {
        var image = SourceImage(
            id: "i", name: nil, status: "active", diskFormat: "qcow2", containerFormat: "bare", minDisk: 2, minRAM: 0,
            size: 10, virtualSize: 3 << 30, checksum: nil, hashValue: nil, properties: [:],
            subject: .accepted(project: "p1", user: "u1"))
        try image.check(volumeSize: 3)
        #expect(throws: ResourceError.self) { try image.check(volumeSize: 2) }
        image.virtualSize = nil
        #expect(throws: ResourceError.self) { try image.check(volumeSize: 1) }
        image.status = "queued"
        #expect(throws: ResourceError.self) { try image.check(volumeSize: 3) }
        image.status = "active"
        image.containerFormat = "docker"
        #expect(throws: ResourceError.self) { try image.check(volumeSize: 3) }
    }
}

@Suite struct VolumeInputTests {
    @Test func badInputIsNamed() async throws {
        try await VolumeFixture.with { cloud in
            for (volume, status) in [
                ([:] as JSONValue, 400), (["size": 0], 400), (["size": -1], 400), (["size": "x"], 400), (["size": 1.5], 400),
                (["size": 1, "name": 5], 400), (["size": 1, "metadata": ["k": 1]], 400), (["size": 1, "nonsense": 1], 400),
                (["size": 1, "imageRef": "x"], 400), (["size": 1, "volume_type": "none"], 404),
                (["size": 1, "availability_zone": "moon"], 400), (["size": 1, "multiattach": true], 400),
                (["size": 1, "backup_id": "b"], 400), (["size": 1, "source_volid": .string(SystemRandom().uuid().description)], 404),
                (["size": 1, "name": .string(String(repeating: "n", count: 256))], 400), ([], 400),
            ] {
                let answer = try await cloud.call("POST", "/v3/volumes", ["volume": volume])
                #expect(answer.status == status, "\(volume): \(answer.json)")
            }
            for query in ["limit=x", "sort=nothing:asc", "sort=size:up", "metadata=[1]", "bootable=maybe", "all_tenants=perhaps"] {
                #expect(try await cloud.call("GET", "/v3/volumes/detail?\(query)").status == 400, "\(query)")
            }
            for list in ["volumes", "snapshots", "types", "attachments"] {
                let answer = try await cloud.call("GET", "/v3/\(list)?marker=\(SystemRandom().uuid())", version: "3.70")
                #expect(answer.status == 404, "\(list)")
            }
            #expect(try await cloud.call("POST", "/v3/snapshots", ["snapshot": ["volume_id": nil]]).status == 404)
            #expect(try await cloud.call("GET", "/v3/volumes/").status == 404)
            #expect(try await cloud.call("GET", "/v3/volumes/no-uuid").status == 404)
            #expect(try await cloud.call("GET", "/v3/snapshots/no-uuid").status == 404)
            #expect(try await cloud.call("POST", "/v3/volumes", token: "reader", ["volume": ["size": 1]]).status == 403)
            #expect(try await cloud.usage()["volumes"] == 0)
        }
    }

    @Test func listsFilterSortAndPage() async throws {
        try await VolumeFixture.with { cloud in
            for (name, size) in [("b", 1), ("a", 3), ("c", 2)] {
                _ = try await cloud.create(["name": .string(name), "size": JSONValue(size), "metadata": ["n": .string(name)]])
                cloud.time.advance(by: .seconds(1))
            }
            func names(_ query: String, token: String = "member") async throws -> [String] {
                let answer = try await cloud.call("GET", "/v3/volumes/detail?" + query, token: token, version: "3.70")
                #expect(answer.status == 200, "\(query): \(answer.json)")
                return answer["volumes"]?.arrayValue?.compactMap { $0["name"]?.stringValue } ?? []
            }
            #expect(try await names("") == ["c", "a", "b"])
            #expect(try await names("sort=size:asc") == ["b", "c", "a"])
            #expect(try await names("limit=0") == [])
            #expect(try await names("offset=1&limit=5") == ["a", "b"])
            #expect(try await names("sort_key=display_name&sort_dir=asc") == ["a", "b", "c"])
            #expect(try await names("sort=name:asc") == ["a", "b", "c"])
            #expect(try await names("sort_key=size") == ["a", "c", "b"])
            #expect(try await names("name=a") == ["a"])
            #expect(try await names("metadata=%7B%27n%27%3A+%27c%27%7D") == ["c"])
            #expect(try await names("status=error") == [])
            #expect(try await names("all_tenants=1", token: "other") == [])
            #expect(try await names("all_tenants=1", token: "admin").count == 3)
            var seen: [String] = []
            var target: String? = "/v3/p1/volumes?limit=1&sort=name:asc"
            while let next = target, seen.count < 9 {
                let answer = try await cloud.call("GET", next)
                #expect(answer["volumes"]?.arrayValue?.first?["status"] == nil)
                seen += answer["volumes"]?.arrayValue?.compactMap { $0["name"]?.stringValue } ?? []
                target = answer["volumes_links"]?.arrayValue?.first?["href"]?.stringValue.map {
                    String($0.dropFirst("http://volumes.example".count))
                }
            }
            #expect(seen == ["a", "b", "c"])
            #expect(try await cloud.call("GET", "/v3/volumes?with_count=True&limit=1&name=a", version: "3.45")["count"] == 1)
            #expect(try await cloud.call("GET", "/v3/volumes/summary", version: "3.36")["volume-summary"]?["total_size"] == 6)
        }
    }

    @Test("S19: quotas hold in a race") func s19QuotasAreExact() async throws {
        var settings = BlockStorageSettings()
        settings.quotaLimits = ["volumes": 2, "gigabytes": 5]
        try await VolumeFixture.with(settings: settings) { cloud in
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<6 { group.addTask { try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 2]]).status } }
                return try await group.reduce(into: [Int]()) { $0.append($1) }
            }
            #expect(statuses.filter { $0 == 202 }.count == 2)
            #expect(statuses.filter { $0 == 413 }.count == 4)
            try await cloud.settle()
            #expect(try await cloud.usage() == ["volumes": 2, "gigabytes": 4, "snapshots": 0])
            #expect(try await cloud.call("PUT", "/v3/os-quota-sets/p1", ["quota_set": ["volumes": 3]]).status == 403)
            #expect(
                try await cloud.call("PUT", "/v3/os-quota-sets/p1", token: "admin", ["quota_set": ["volumes": 3, "backups": 1]])[
                    "quota_set"]?["volumes"] == 3)
            #expect(try await cloud.call("GET", "/v3/os-quota-sets/p1")["quota_set"]?["backups"] == 1)
            #expect(try await cloud.call("PUT", "/v3/os-quota-sets/p1", token: "admin", ["quota_set": ["volumes": -2]]).status == 400)
            #expect(try await cloud.call("PUT", "/v3/os-quota-sets/p1", token: "admin", ["quota_set": ["wheels": 2]]).status == 400)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1]]).status == 202)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1]]).status == 413)
            let limits = try await cloud.call("GET", "/v3/limits")["limits"]?["absolute"]
            #expect(limits?["totalVolumesUsed"] == 3)
            #expect(limits?["maxTotalVolumeGigabytes"] == 5)
            #expect(try await cloud.call("GET", "/v3/os-quota-sets/p2").status == 403)
        }
    }

    @Test func theDefaultQuotaCanBeChanged() async throws {
        try await VolumeFixture.with { cloud in
            let path = "/v3/os-quota-class-sets/default"
            let set = try await cloud.call(
                "PUT", path, token: "admin", ["quota_class_set": ["volumes": 1, "gigabytes": "7", "class_name": "default"]])
            #expect(set.status == 200 && set["quota_class_set"]?["volumes"] == 1 && set["quota_class_set"]?["id"] == nil, "\(set.json)")
            #expect(try await cloud.call("GET", path, token: "admin")["quota_class_set"]?["gigabytes"] == 7)
            #expect(try await cloud.call("GET", "/v3/os-quota-sets/p1/defaults")["quota_set"]?["volumes"] == 1)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1]]).status == 202)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1]]).status == 413)
            // A project's own limit takes precedence.
            #expect(try await cloud.call("PUT", "/v3/os-quota-sets/p1", token: "admin", ["quota_set": ["volumes": 2]]).status == 200)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1]]).status == 202)
            #expect(try await cloud.call("PUT", path, ["quota_class_set": ["volumes": 9]]).status == 403)
            for bad: JSONValue in [["wheels": 1], ["volumes": -2], ["volumes": "many"], ["volumes": 3_000_000_000]] {
                #expect(try await cloud.call("PUT", path, token: "admin", ["quota_class_set": bad]).status == 400, "\(bad)")
            }
            #expect(
                try await cloud.call("PUT", "/v3/os-quota-class-sets/gold", token: "admin", ["quota_class_set": ["volumes": 9]]).status
                    == 400)
            try await cloud.settle()
        }
    }

    @Test func typesAndOperators() async throws {
        try await VolumeFixture.with { cloud in
            #expect(try await cloud.call("GET", "/v3/types?is_public=none")["volume_types"]?.arrayValue?.count == 1)
            #expect(try await cloud.call("GET", "/v3/types")["volume_types"]?.arrayValue?.first?["name"] == "__DEFAULT__")
            #expect(try await cloud.call("GET", "/v3/types/default")["volume_type"]?["is_public"] == true)
            let creation = try await cloud.call(
                "POST", "/v3/types", token: "admin",
                ["volume_type": ["name": "fast", "os-volume-type-access:is_public": false, "extra_specs": ["a": "b"]]])
            let id = try #require(creation["volume_type"]?["id"]?.stringValue)
            #expect(creation["volume_type"]?["extra_specs"] == ["a": "b"])
            #expect(try await cloud.call("POST", "/v3/types", token: "admin", ["volume_type": ["name": "fast"]]).status == 409)
            #expect(try await cloud.call("GET", "/v3/types/\(id)").status == 404)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "volume_type": "fast"]]).status == 404)
            #expect(
                try await cloud.call("POST", "/v3/types/\(id)/action", token: "admin", ["addProjectAccess": ["project": "p1"]]).status
                    == 202)
            // Specs of the storage backend are not visible to users.
            #expect(try await cloud.call("GET", "/v3/types/\(id)")["volume_type"]?["extra_specs"] == [:])
            let volume = try await cloud.create(["size": 1, "volume_type": "fast"])
            #expect(try await cloud.volume(volume)["volume_type"] == "fast")
            #expect(try await cloud.call("DELETE", "/v3/types/\(id)", token: "admin").status == 400)
            #expect(
                try await cloud.call(
                    "POST", "/v3/volumes/\(volume)/action", ["os-retype": ["new_type": "__DEFAULT__", "migration_policy": "never"]]
                ).status == 202)
            #expect(try await cloud.call("PUT", "/v3/types/\(id)/extra_specs/a", token: "admin", ["a": "c"]).status == 200)
            #expect(try await cloud.call("GET", "/v3/types/\(id)/extra_specs", token: "admin")["extra_specs"] == ["a": "c"])
            #expect(try await cloud.call("DELETE", "/v3/types/\(id)/extra_specs/z", token: "admin").status == 404)
            #expect(try await cloud.call("DELETE", "/v3/types/\(id)", token: "admin").status == 202)
            #expect(
                try await cloud.call("GET", "/v3/scheduler-stats/get_pools?detail=True", token: "admin")["pools"]?.arrayValue?.first?[
                    "name"] == "wolke@file#file")
            #expect(try await cloud.call("GET", "/v3/scheduler-stats/get_pools").status == 403)
            #expect(
                try await cloud.call("GET", "/v3/os-availability-zone")["availabilityZoneInfo"]?.arrayValue?.first?["zoneName"] == "nova")
            #expect(try await cloud.call("GET", "/v3/extensions").status == 200)
            #expect(try await cloud.call("GET", "/v3/os-services", token: "admin")["services"] == [])
        }
    }

    @Test func servicesAreTheBackendAndASchedulerOnEachMachine() async throws {
        try await VolumeFixture.with { cloud in
            func runOnce(_ machine: String) async throws {
                try await ServiceReportTask(
                    database: cloud.database, driver: cloud.driver, settings: BlockStorageSettings(), ambient: Ambient(), log: cloud.log,
                    machine: machine
                ).runOnce()
            }
            try await runOnce("c-1")
            try await runOnce("c-2")
            try await runOnce("c-1")
            func list(_ query: String = "", version: String = "3.70") async throws -> [JSONValue] {
                try await cloud.call("GET", "/v3/os-services" + query, token: "admin", version: version)["services"]?.arrayValue ?? []
            }
            let all = try await list()
            #expect(all.map { $0["binary"] } == ["cinder-scheduler", "cinder-scheduler", "cinder-volume"], "\(all)")
            #expect(all.map { $0["host"] } == ["c-1", "c-2", "wolke@file"])
            #expect(all.map { $0["backend_state"] } == [nil, nil, "up"])
            #expect(try await list("?binary=cinder-scheduler&host=c-2").count == 1)
            #expect(try await list("?binary=cinder-backup").isEmpty)
            func disable(_ host: String, _ binary: String) async throws -> VolumeFixture.Answer {
                try await cloud.call("PUT", "/v3/os-services/disable", token: "admin", ["host": .string(host), "binary": .string(binary)])
            }
            let refused = try await disable("c-1", "cinder-scheduler")
            #expect(refused.status == 400 && refused.json.description.contains("cinder-scheduler"), "\(refused.json)")
            #expect(try await disable("c-9", "cinder-scheduler").status == 404)
            #expect(try await disable("wolke@file", "cinder-volume").status == 200)
            #expect(try await list().map { $0["status"] } == ["enabled", "enabled", "disabled"])
            // A machine that was silent for a day is removed.
            try await cloud.database.write {
                _ = try $0.execute("UPDATE block_storage_services SET seen_at = seen_at - interval '25 hours' WHERE host = 'c-2'")
            }
            try await runOnce("c-1")
            #expect(try await list("?binary=cinder-scheduler").map { $0["host"] } == ["c-1"])
        }
    }

    @Test func theSandboxesStateIsWrittenDown() async throws {
        try await VolumeFixture.with { cloud in
            for problem in ["no bwrap", nil] as [String?] {
                let watch = SandboxWatch(time: SystemTime()) { problem }
                try await ServiceReportTask(
                    database: cloud.database, driver: cloud.driver, settings: BlockStorageSettings(), ambient: Ambient(), log: cloud.log,
                    machine: "c-1", sandbox: watch
                ).runOnce()
                let rows = try await cloud.database.read { connection in
                    try connection.query("SELECT sandbox_problem FROM block_storage_services WHERE host = 'c-1'")
                        .map { try $0.optionalString("sandbox_problem") }
                }
                #expect(rows == [problem])
            }
        }
    }

    @Test func quotasOfSingleTypesAreRefusedWithTheReason() async throws {
        try await VolumeFixture.with { cloud in
            for name in ["volumes___DEFAULT__", "gigabytes_x", "snapshots_x"] {
                let body = JSONObject([(name, 5 as JSONValue)])
                let answer = try await cloud.call("PUT", "/v3/os-quota-sets/p1", token: "admin", ["quota_set": .object(body)])
                #expect(answer.status == 400 && answer.json.description.contains("single volume types"), "\(answer.json)")
                let defaults = try await cloud.call(
                    "PUT", "/v3/os-quota-class-sets/default", token: "admin", ["quota_class_set": .object(body)])
                #expect(defaults.status == 400 && defaults.json.description.contains(name), "\(defaults.json)")
            }
        }
    }
}
