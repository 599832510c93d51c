import BlockStorageCore
import BlockStorageService
import Commands
import Contracts
import Database
import DiskTool
import Foundation
import JSON
import Kernel
import TestKit
import Testing
import Workflow

/// Snapshots of volumes in use, which the host of the server copies.
@Suite struct HostCopyTests {
    private let server = SystemRandom().uuid().description

    private func volumeInUse(_ cloud: VolumeFixture) async throws -> String {
        let id = try await cloud.create()
        _ = try await cloud.database.write { try $0.execute("UPDATE volumes SET status = 'in-use' WHERE id = \(id)::uuid") }
        try await cloud.plug(id, into: server)
        return id
    }

    private func ask(_ cloud: VolumeFixture, _ volume: String, version: String? = nil, force: Bool? = true) async throws
        -> VolumeFixture.Answer
    {
        var body: JSONObject = ["volume_id": .string(volume)]
        if let force { body["force"] = .bool(force) }
        return try await cloud.call("POST", "/v3/snapshots", version: version, ["snapshot": .object(body)])
    }

    private func report(_ cloud: VolumeFixture, _ id: String, _ status: String, token: String = "service") async throws
        -> VolumeFixture.Answer
    {
        try await cloud.call(
            "POST", "/v3/p1/snapshots/\(id)/action", token: token,
            ["os-update_snapshot_status": ["status": .string(status), "progress": "100%"]])
    }

    private func status(_ cloud: VolumeFixture, _ id: String) async throws -> String? {
        try await cloud.call("GET", "/v3/snapshots/\(id)")["snapshot"]?["status"]?.stringValue
    }

    /// Writes the host's copy: a file of the volume's size.
    private func write(_ cloud: VolumeFixture, _ id: String, bytes: Int = 1 << 30) throws {
        let path = "\(cloud.directory)/\(ServerJob.VolumeCopies.fileName(ofSnapshot: id))"
        #expect(FileManager.default.createFile(atPath: path, contents: Data("as it was".utf8)))
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try file.truncate(atOffset: UInt64(bytes))
        try file.close()
    }

    /// Starts the workflow, which then waits for the host.
    private func begin(_ cloud: VolumeFixture) async throws { try? await cloud.engine.drain(roundsMax: 4) }

    @Test func aHostsCopyBecomesTheSnapshot() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await volumeInUse(cloud)
            #expect(try await ask(cloud, volume, force: nil).status == 400)
            let answer = try await ask(cloud, volume)
            #expect(answer.status == 202, "\(answer.json)")
            let id = try #require(answer["snapshot"]?["id"]?.stringValue)
            try await begin(cloud)
            #expect(try await status(cloud, id) == "creating")
            try write(cloud, id)
            #expect(try await report(cloud, id, "available").status == 202)
            try await cloud.settle()
            #expect(try await status(cloud, id) == "available")
            let data = try #require(FileManager.default.contents(atPath: "\(cloud.directory)/snapshot-\(id)")?.prefix(9))
            #expect(String(decoding: data, as: UTF8.self) == "as it was")
            // From 3.66 on `force` is not needed.
            #expect(try await ask(cloud, volume, version: "3.66", force: nil).status == 202)
        }
    }

    /// The host of one server would copy what another machine writes meanwhile.
    @Test func aVolumeThatAMachineOutsideHasTooIsNotCopied() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await volumeInUse(cloud)
            func attach(_ machine: String?) async throws {
                _ = try await cloud.database.write {
                    try $0.execute(
                        """
                        INSERT INTO volume_attachments (id, volume_id, project_id, server_id, status, created_at, updated_at)
                        VALUES (gen_random_uuid(), \(volume)::uuid, 'p1', \(machine)::uuid, 'attached', now(), now())
                        """)
                }
            }
            for machine in [SystemRandom().uuid().description, nil] {
                try await attach(machine)
                let refused = try await ask(cloud, volume)
                #expect(refused.status == 400 && refused.json.description.contains("outside this cloud"), "\(refused.json)")
                _ = try await cloud.database.write { try $0.execute("DELETE FROM volume_attachments") }
            }
            try await attach(server)
            #expect(try await ask(cloud, volume).status == 202)
        }
    }

    /// A host makes the disk of a larger volume smaller while it swaps a guest's volume for it, and may be lost in the meantime.
    @Test(arguments: [VolumeFormat.raw, .qcow2]) func aDiskLeftTooSmallIsEnlargedWhenItIsAttached(format: VolumeFormat) async throws {
        var settings = BlockStorageSettings()
        settings.format = format
        try await VolumeFixture.with(settings: settings) { cloud in
            let tool = DiskTool(Sandbox())
            for connects in [true, false] {
                let id = try await cloud.create(["size": 2])
                let path = "\(cloud.directory)/volume-\(id)"
                let disk = DiskSource(path: path, driver: format == .raw ? .raw : .qcow2)
                try tool.resize(disk, to: 1 << 30, shrinks: true)
                func size() throws -> Int { try tool.measure(ForeignDisk(path: path, declared: format.rawValue), largest: 2 << 30) }
                #expect(try size() == 1 << 30)
                var body: JSONObject = ["volume_uuid": .string(id), "instance_uuid": .string(SystemRandom().uuid().description)]
                let connector: JSONValue = ["host": "h1"]
                if connects { body["connector"] = connector }
                let creation = try await cloud.call(
                    "POST", "/v3/p1/attachments", token: "service", version: "latest", ["attachment": .object(body)])
                #expect(creation.status == 200, "\(creation.json)")
                if !connects {
                    #expect(try size() == 1 << 30)
                    let attachment = creation["attachment"]?["id"]?.stringValue ?? ""
                    let updated = try await cloud.call(
                        "PUT", "/v3/p1/attachments/\(attachment)", token: "service", version: "latest",
                        ["attachment": ["connector": connector]])
                    #expect(updated.status == 200, "\(updated.json)")
                }
                #expect(try size() == 2 << 30)
            }
        }
    }

    @Test("S3: a tenant cannot declare a host's copy complete") func s3Report() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await volumeInUse(cloud)
            let id = try #require(try await ask(cloud, volume)["snapshot"]?["id"]?.stringValue)
            try await begin(cloud)
            #expect(try await report(cloud, id, "available", token: "member").status == 403)
            #expect(try await report(cloud, id, "deleting").status == 400)
            try await begin(cloud)
            #expect(try await status(cloud, id) == "creating")
        }
    }

    @Test(arguments: [("error", 1 << 30), ("available", 1 << 20), ("available", nil)] as [(String, Int?)])
    func incompleteCopiesFailTheSnapshot(reported: String, bytes: Int?) async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await volumeInUse(cloud)
            let id = try #require(try await ask(cloud, volume)["snapshot"]?["id"]?.stringValue)
            try await begin(cloud)
            if let bytes { try write(cloud, id, bytes: bytes) }
            #expect(try await report(cloud, id, reported).status == 202)
            if bytes == nil {
                // The file may become visible later; a delete ends the wait.
                try await begin(cloud)
                #expect(try await status(cloud, id) != "available")
                #expect(try await cloud.call("DELETE", "/v3/snapshots/\(id)").status == 202)
                try await cloud.settle()
                #expect(try await status(cloud, id) == nil)
            } else {
                try await cloud.settle()
                #expect(try await status(cloud, id) == "error")
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: cloud.directory).filter { $0.hasPrefix("snapshot-") } == [])
        }
    }

    @Test("S18: a snapshot stays while its host copies, because the host would go on to fill the disk") func s18DeletedCopy() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await volumeInUse(cloud)
            let id = try #require(try await ask(cloud, volume)["snapshot"]?["id"]?.stringValue)
            try await begin(cloud)
            let refused = try await cloud.call("DELETE", "/v3/snapshots/\(id)")
            #expect(refused.status == 400 && "\(refused.json)".contains("A host is copying"), "\(refused.json)")
            #expect(try await status(cloud, id) == "creating")
        }
    }

    @Test func aDeleteEndsTheWait() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await volumeInUse(cloud)
            let id = try #require(try await ask(cloud, volume)["snapshot"]?["id"]?.stringValue)
            try await begin(cloud)
            try write(cloud, id)
            #expect(try await cloud.call("DELETE", "/v3/p1/snapshots/\(id)", token: "service").status == 202)
            try await cloud.settle()
            #expect(try await report(cloud, id, "available").status == 404)
            #expect(try FileManager.default.contentsOfDirectory(atPath: cloud.directory).filter { $0.hasPrefix("snapshot-") } == [])
        }
    }

    @Test func aCopyMayTakeDays() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await volumeInUse(cloud)
            let id = try #require(try await ask(cloud, volume)["snapshot"]?["id"]?.stringValue)
            try await begin(cloud)
            try write(cloud, id)
            cloud.time.advance(by: .seconds(3 * 86_400))
            try await begin(cloud)
            #expect(try await status(cloud, id) == "creating")
            #expect(try await report(cloud, id, "available").status == 202)
            try await cloud.settle()
            #expect(try await status(cloud, id) == "available")
        }
    }

    @Test("S18: what a host has written for a snapshot that was given up is removed") func s18Leftovers() async throws {
        try await VolumeFixture.with { cloud in
            let task = LeftoverTask(database: cloud.database, driver: cloud.driver)
            let volume = try await volumeInUse(cloud)
            let id = try #require(try await ask(cloud, volume)["snapshot"]?["id"]?.stringValue)
            try await begin(cloud)
            try write(cloud, id)
            #expect(try await task.runOnce() == [])
            #expect(try await cloud.call("DELETE", "/v3/p1/snapshots/\(id)", token: "service").status == 202)
            try await cloud.settle()
            // The host's QEMU has not been told yet.
            try write(cloud, id)
            try write(cloud, "not-a-snapshot")
            #expect(try await report(cloud, id, "available").status == 404)
            #expect(try await task.runOnce() == [UnfinishedDisk(.snapshot, id)])
            #expect(cloud.files.filter { $0.hasPrefix("snapshot-") } == ["snapshot-not-a-snapshot.part"])
        }
    }

    @Test func severalServersAreNotOfOneMoment() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await volumeInUse(cloud)
            try await cloud.plug(volume, into: SystemRandom().uuid().description)
            #expect(try await ask(cloud, volume).status == 400)
        }
    }
}
