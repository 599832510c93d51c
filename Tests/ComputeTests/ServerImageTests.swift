import ComputeCore
import Contracts
import Database
import Foundation
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import WebAPI
import Workflow

@testable import ComputeService

/// `createImage`, `createBackup`, `shelve`, `shelveOffload` and `unshelve`.
@Suite struct ServerImageTests {
    private func act(_ cloud: TestCloud, _ id: String, _ body: JSONValue, as token: String = "member", version: String = "2.96")
        async throws -> TestCloud.Answer
    {
        cloud.workWhileWaiting()
        return try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: token, version: version)
    }

    private struct Image {
        let id: String
        let name: String
        let status: String
        let minDisk: Int
        let properties: JSONObject
    }

    private func images(_ cloud: TestCloud) async throws -> [Image] {
        try await cloud.database.read { connection in
            try connection.query(
                """
                SELECT id, name, status, min_disk, properties FROM images WHERE properties ? 'image_type' ORDER BY created_at, id
                """
            ).map {
                Image(
                    id: try $0.string("id"), name: try $0.string("name"), status: try $0.string("status"), minDisk: try $0.int("min_disk"),
                    properties: try $0.object("properties"))
            }
        }
    }

    private func jobs(_ cloud: TestCloud) async throws -> Int {
        try await cloud.database.read { try $0.query("SELECT count(*) AS count FROM server_jobs")[0].int("count") }
    }

    private func settled(_ cloud: TestCloud, _ label: Comment? = nil) async throws {
        try await cloud.engine().drain()
        #expect(try await cloud.leftovers() == [], label)
        #expect(try await jobs(cloud) == 0, label)
    }

    private func state(_ cloud: TestCloud, _ id: String) async throws -> (status: String?, task: JSONValue?) {
        let server = try await cloud.server(id)
        return (server["status"]?.stringValue, server["OS-EXT-STS:task_state"])
    }

    // MARK: images

    @Test func anImageIsMadeOfAServer() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let body: JSONValue = ["createImage": ["name": "copy", "metadata": ["purpose": "test"]]]
            let answer = try await act(cloud, id, body)
            #expect(answer.status == 202)
            let image = try #require(answer.json["image_id"]?.stringValue)
            #expect(answer.headers["location"] == nil)
            try await settled(cloud)
            let creation = try #require(try await images(cloud).first)
            #expect(creation.id == image && creation.name == "copy" && creation.status == "active" && creation.minDisk == 1)
            #expect(creation.properties["instance_uuid"] == .string(id))
            #expect(creation.properties["image_type"] == "snapshot")
            #expect(creation.properties["base_image_ref"] == .string(Fixtures.image))
            #expect(creation.properties["purpose"] == "test")
            #expect(try await state(cloud, id).status == "ACTIVE")
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions")
            #expect(actions.json["instanceActions"]?.arrayValue?.compactMap { $0["action"]?.stringValue }.contains("createImage") == true)
            // Before 2.45 the answer is a header.
            let older = try await act(cloud, id, ["createImage": ["name": "older"]], version: "2.44")
            #expect(older.status == 202 && older.json == .null)
            #expect(older.headers["location"]?.hasPrefix("http://image.test/v2/images/") == true)
            try await settled(cloud)
        }
    }

    @Test func theTaskFollowsTheHost() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.holdJobs(true)
            let rounds = Counter()
            cloud.time.whenWaiting {
                try await cloud.cloud.work(cloud.consumer)
                let isHeld = try await cloud.database.read {
                    try !$0.query("SELECT 1 AS one FROM servers WHERE task_state = 'image_uploading'").isEmpty
                }
                guard isHeld, await rounds.next() == 1 else { return }
                let server = try await cloud.server(id)
                #expect(server["OS-EXT-STS:task_state"] == "image_uploading")
                #expect(server["progress"] == 40)
                #expect(server["status"] == "ACTIVE")
                for body: JSONValue in [["os-stop": nil], ["createImage": ["name": "second"]], ["shelve": nil]] {
                    #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/action", body).status == 409)
                }
                cloud.cloud.holdJobs(false)
            }
            _ = try await begin(cloud, id, ["createImage": ["name": "copy"]])
            try await settled(cloud)
            #expect(await rounds.next() > 1)
            #expect(try await state(cloud, id).task == .null)
        }
    }

    /// Sends an action whose answer waits for the workflow's first step, and leaves the other steps to the caller.
    private func begin(_ cloud: TestCloud, _ id: String, _ body: JSONValue) async throws -> Int {
        async let answer = cloud.call("POST", "/v2.1/servers/\(id)/action", body)
        try await cloud.engine().drain()
        return try await answer.status
    }

    @Test(arguments: ["no room for the copy", "the guest agent did not freeze the server's file systems"])
    func failedImagesAreDeleted(reason: String) async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.failJobs(reason)
            #expect(try await act(cloud, id, ["createImage": ["name": "copy"]]).status == 202)
            try await settled(cloud)
            #expect(try await images(cloud).isEmpty)
            #expect(try await state(cloud, id) == ("ACTIVE", .null))
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions", as: "admin")
            let action = try #require(
                actions.json["instanceActions"]?.arrayValue?.first { $0["action"] == "createImage" }?["request_id"]?.stringValue)
            let events = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions/\(action)", as: "admin")
            #expect(events.json.description.contains(reason))
        }
    }

    @Test func aRefusalOfImageIsTheAnswer() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.refuseImages(ResourceError(.tooLarge, "The project has the maximum number of images."))
            let answer = try await act(cloud, id, ["createImage": ["name": "copy"]])
            #expect(answer.status == 403)
            #expect(answer.message.contains("maximum number of images"))
            try await settled(cloud)
            #expect(try await state(cloud, id) == ("ACTIVE", .null))
        }
    }

    @Test func aDeletedImageEndsTheWork() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.holdJobs(true)
            try await askWhileHeld(cloud, id) { cloud in
                _ = try await cloud.database.write { try $0.execute("DELETE FROM images WHERE name = 'copy'") }
            }
            try await settled(cloud)
            #expect(try await state(cloud, id) == ("ACTIVE", .null))
        }
    }

    @Test("S21: deleting a server while its image is made leaves neither") func s21DeleteWhileCopying() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.holdJobs(true)
            try await askWhileHeld(cloud, id) { try await $0.call("DELETE", "/v2.1/servers/\(id)") }
            try await settled(cloud)
            #expect(try await images(cloud).isEmpty)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)").status == 404)
            #expect(cloud.cloud.domains(on: "host-1").isEmpty)
        }
    }

    @Test func aHostThatIsDownEndsTheWork() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            cloud.cloud.holdJobs(true)
            try await askWhileHeld(cloud, id) { cloud in
                cloud.cloud.silence("host-1")
                cloud.time.advance(by: .seconds(600))
            }
            try await settled(cloud)
            #expect(try await images(cloud).isEmpty)
            #expect(try await state(cloud, id) == ("ACTIVE", .null))
        }
    }

    /// Requests an image, and runs `body` once while the host works on it.
    private func askWhileHeld(
        _ cloud: TestCloud, _ id: String, _ body: @escaping @Sendable (TestCloud) async throws -> Void
    ) async throws {
        let rounds = Counter()
        cloud.time.whenWaiting {
            try await cloud.cloud.work(cloud.consumer)
            let isHeld = try await cloud.database.read {
                try !$0.query("SELECT 1 AS one FROM server_jobs WHERE state = 'running'").isEmpty
            }
            if isHeld, await rounds.next() == 1 { try await body(cloud) }
        }
        _ = try await begin(cloud, id, ["createImage": ["name": "copy"]])
        try await cloud.engine().drain()
        // `body` has run.
        #expect(await rounds.next() > 1)
    }

    @Test func metadataCannotReplaceAttributes() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            for name in ServerImages.attributes.sorted() {
                let answer = try await act(
                    cloud, id, ["createImage": ["name": "copy", "metadata": .object(JSONObject([(name, JSONValue.string("x"))]))]])
                #expect(answer.status == 400 && answer.message.contains("'\(name)'"))
            }
            #expect(try await act(cloud, id, ["createImage": ["name": "copy", "metadata": ["n": 1]]]).status == 400)
            #expect(try await act(cloud, id, ["createImage": [:]]).status == 400)
            #expect(try await act(cloud, id, ["createBackup": ["name": "b", "backup_type": "daily", "rotation": -1]]).status == 400)
            #expect(try await images(cloud).isEmpty)
        }
    }

    // MARK: backups

    @Test func backupsRotate() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            func backup(_ name: String, _ type: String, _ rotation: Int) async throws -> TestCloud.Answer {
                cloud.time.advance(by: .seconds(5))
                let body: JSONObject = ["name": .string(name), "backup_type": .string(type), "rotation": JSONValue(rotation)]
                let answer = try await act(cloud, id, ["createBackup": .object(body)])
                try await settled(cloud)
                return answer
            }
            for (name, type) in [("d1", "daily"), ("w1", "weekly"), ("d2", "daily"), ("d3", "daily")] {
                #expect(try await backup(name, type, 2).json["image_id"] != nil)
            }
            #expect(try await images(cloud).map(\.name) == ["w1", "d2", "d3"])
            #expect(try await images(cloud).last?.properties["image_type"] == "backup")
            let none = try await backup("d4", "daily", 0)
            #expect(none.status == 202 && none.json == .null && none.headers["location"] == nil)
            #expect(try await images(cloud).map(\.name) == ["w1"])
        }
    }

    // MARK: shelving

    @Test func aServerIsShelvedAndRestored() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ["shelve": nil]).status == 202)
            #expect(try await state(cloud, id).task == "shelving")
            try await settled(cloud)
            #expect(try await state(cloud, id) == ("SHELVED_OFFLOADED", .null))
            #expect(cloud.cloud.domains(on: "host-1").isEmpty)
            let creation = try #require(try await images(cloud).first)
            #expect(creation.name == "web-shelved" && creation.status == "active")
            let row = try await cloud.database.read { connection in
                try connection.query(
                    """
                    SELECT (SELECT count(*) FROM fake_allocations) AS allocations, s.host,
                        (SELECT host_id FROM ports WHERE device_id = s.id::text) AS bound FROM servers s
                    """
                ).map { (try $0.int("allocations"), try $0.optionalString("host"), try $0.string("bound")) }[0]
            }
            #expect(row == (0, nil, ""))

            #expect(try await act(cloud, id, ["unshelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await state(cloud, id) == ("ACTIVE", .null))
            #expect(try await images(cloud).isEmpty)
            let spec = try #require(
                cloud.cloud.received.last { $0["server"]?["id"] == .string(id) && $0["server"]?["image"]?["copied"] == true })
            #expect(spec["server"]?["image"]?["id"] == .string(creation.id))
            #expect(try await cloud.server(id)["image"]?["id"] == .string(Fixtures.image))
            let bound = try await cloud.database.read {
                try $0.query("SELECT host_id FROM ports WHERE device_id = \(id)")[0].string("host_id")
            }
            #expect(bound == "host-1")
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await settled(cloud)
        }
    }

    @Test func aServerOnAVolumeIsShelvedWithoutAnImage() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer([
                "imageRef": "",
                "block_device_mapping_v2": [
                    ["boot_index": 0, "uuid": .string(Fixtures.volume), "source_type": "volume", "destination_type": "volume"]
                ],
            ])
            #expect(try await act(cloud, id, ["createBackup": ["name": "b", "backup_type": "daily", "rotation": 1]]).status == 400)
            #expect(try await act(cloud, id, ["shelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await state(cloud, id).status == "SHELVED_OFFLOADED")
            #expect(try await images(cloud).isEmpty)
            let kept = try await cloud.database.read { try $0.query("SELECT count(*) AS count FROM volume_attachments")[0].int("count") }
            #expect(kept == 1)
            #expect(try await act(cloud, id, ["unshelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await state(cloud, id).status == "ACTIVE")
            let connected = try await cloud.database.read {
                try $0.query("SELECT connection IS NOT NULL AS connected FROM server_volumes")[0].bool("connected")
            }
            #expect(connected)
        }
    }

    @Test func aShelvedServerStaysOnItsHostForATime() async throws {
        try await TestCloud.with(settings: ComputeSettings(shelvedOffloadTime: 3600)) { cloud in
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ["shelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await state(cloud, id) == ("SHELVED", .null))
            #expect(cloud.cloud.domains(on: "host-1")[id]?.power == "shutoff")
            for body: JSONValue in [["os-start": nil], ["createImage": ["name": "copy"]], ["shelve": nil]] {
                #expect(try await act(cloud, id, body).status == 409)
            }
            #expect(try await act(cloud, id, ["unshelve": ["availability_zone": "nova"]]).status == 409)
            #expect(try await act(cloud, id, ["unshelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await state(cloud, id) == ("ACTIVE", .null))
            #expect(try await images(cloud).isEmpty)

            #expect(try await act(cloud, id, ["shelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await act(cloud, id, ["shelveOffload": nil]).status == 403)
            _ = try await ComputePeriodicTasks(cloud.compute).runOnce()
            try await settled(cloud)
            #expect(try await state(cloud, id).status == "SHELVED")
            cloud.time.advance(by: .seconds(3700))
            _ = try await ComputePeriodicTasks(cloud.compute).runOnce()
            try await cloud.cloud.work(cloud.consumer)
            try await settled(cloud)
            #expect(try await state(cloud, id).status == "SHELVED_OFFLOADED")
            #expect(try await act(cloud, id, ["shelveOffload": nil], as: "admin").status == 409)
        }
    }

    @Test func placesOfUnshelvedServersAreChecked() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ["shelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await act(cloud, id, ["unshelve": ["availability_zone": "nowhere"]]).status == 400)
            #expect(try await act(cloud, id, ["unshelve": [:]]).status == 400)
            #expect(try await act(cloud, id, ["unshelve": ["host": "host-1"]]).status == 403)
            #expect(try await act(cloud, id, ["unshelve": ["host": "host-9"]], as: "admin").status == 400)
            #expect(try await act(cloud, id, ["unshelve": ["host": "host-1"]], version: "2.90").status == 400)
            #expect(try await act(cloud, id, ["unshelve": ["availability_zone": nil]], version: "2.90").status == 400)
            #expect(try await act(cloud, id, ["unshelve": ["host": "host-1", "availability_zone": nil]], as: "admin").status == 202)
            try await settled(cloud)
            #expect(try await state(cloud, id).status == "ACTIVE")
        }
    }

    @Test("S21: a shelved server is deleted with its image") func s21DeleteShelved() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ["shelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await images(cloud).count == 1)
            #expect(try await cloud.call("DELETE", "/v2.1/servers/\(id)").status == 204)
            try await settled(cloud)
            #expect(try await images(cloud).isEmpty)
        }
    }

    @Test func aFailedUnshelveCanBeRepeated() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            #expect(try await act(cloud, id, ["shelve": nil]).status == 202)
            try await settled(cloud)
            cloud.cloud.failOnHost("no such machine type")
            #expect(try await act(cloud, id, ["unshelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await state(cloud, id) == ("SHELVED_OFFLOADED", .null))
            #expect(try await images(cloud).count == 1)
            cloud.cloud.failOnHost(nil)
            #expect(try await act(cloud, id, ["unshelve": nil]).status == 202)
            try await settled(cloud)
            #expect(try await state(cloud, id).status == "ACTIVE")
        }
    }

    // MARK: disturbances

    /// Every step fails, runs twice, or its process dies: afterwards the server is as before or as requested, and nothing is left over.
    @Test(arguments: ["server.snapshot", "server.shelve", "server.offload", "server.unshelve", "image.remove"])
    func underEveryDisturbance(kind: String) async throws {
        try await TestCloud.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
            for variant in WorkflowChecks(definition).variants {
                let name = Comment(rawValue: variant.name)
                let id = try await cloud.createServer()
                cloud.workWhileWaiting([variant.definition])
                let engine = cloud.engine([variant.definition])
                if kind == "server.snapshot" || kind == "image.remove" {
                    let body: JSONValue = ["createBackup": ["name": "copy", "backup_type": "daily", "rotation": 1]]
                    let answer = try await cloud.call("POST", "/v2.1/servers/\(id)/action", body)
                    try await engine.drain()
                    #expect(answer.status == 202 || !variant.succeeds, name)
                    #expect(try await images(cloud).filter { $0.status == "active" }.count == (variant.succeeds ? 1 : 0), name)
                    #expect(try await images(cloud).allSatisfy { $0.status == "active" }, name)
                } else {
                    try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["shelve": nil])
                    try await engine.drain()
                    if kind == "server.unshelve" {
                        try await cloud.call("POST", "/v2.1/servers/\(id)/action", ["unshelve": nil])
                        try await engine.drain()
                    }
                    let goal = kind == "server.unshelve" ? ("ACTIVE", "SHELVED_OFFLOADED") : ("SHELVED_OFFLOADED", "ACTIVE")
                    let status = try await state(cloud, id).status
                    #expect(status == (variant.succeeds ? goal.0 : goal.1), name)
                    #expect(try await images(cloud).count == (status == "ACTIVE" ? 0 : 1), name)
                }
                #expect(try await jobs(cloud) == 0, name)
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                cloud.time.whenWaiting { try await cloud.cloud.work(cloud.consumer) }
                try await settled(cloud, name)
                _ = try await cloud.database.write { try $0.execute("DELETE FROM images WHERE properties ? 'image_type'") }
            }
        }
    }
}
