import BlockStorageCore
@testable import BlockStorageService
import Contracts
import Database
import FileTransfer
import Foundation
import ImageAccess
import JSON
import Kernel
import NIOCore
import ServiceKit
import Synchronization
import TestKit
import Testing
import WebAPI
import Workflow

/// Disturbs every workflow in every way: the result is the same as without the disturbance.
@Suite struct VolumeWorkflowTests {
    /// Runs all workflows, with one of them replaced.
    private func run(_ cloud: VolumeFixture, _ definition: WorkflowDefinition) async throws {
        let ambient = Ambient(time: cloud.time, random: SeededRandom(seed: 9))
        try await cloud.settle(cloud.module.engine(replacing: [definition], ambient: ambient))
    }

    private func definition(_ cloud: VolumeFixture, _ kind: String) throws -> WorkflowDefinition {
        try #require(cloud.module.workflows.first { $0.kind == kind })
    }

    private func begin(_ cloud: VolumeFixture, _ body: JSONValue) async throws -> String {
        let answer = try await cloud.call("POST", "/v3/volumes", ["volume": body])
        return try #require(answer["volume"]?["id"]?.stringValue, "\(answer.json)")
    }

    @Test func everyWorkflowIsDisturbed() async throws {
        try await VolumeFixture.with { cloud in
            let missing = try DisturbanceTests.missing(cloud.module.workflows.map(\.kind), file: #filePath)
            #expect(missing == [])
        }
    }

    @Test func storedFramesMatchEarlierReleases() async throws {
        try await VolumeFixture.with { cloud in
            let differences = try WorkflowRecords.differences(cloud.module.workflows, file: "block-storage-workflows.json")
            #expect(differences == [])
        }
    }

    @Test(arguments: ["blank", "image", "volume"]) func creatingUnderEveryDisturbance(_ source: String) async throws {
        try await VolumeFixture.with { cloud in
            var body: JSONObject = ["size": 1]
            var before: [String] = []
            switch source {
            case "image": body["imageRef"] = .string(try await cloud.addImage(Array(repeating: 3, count: 10_000)))
            case "volume":
                let id = try await cloud.create()
                before = ["volume-\(id)"]
                body["source_volid"] = .string(id)
            default: break
            }
            for variant in WorkflowChecks(try definition(cloud, "volume_create")).variants {
                let id = try await begin(cloud, .object(body))
                try await run(cloud, variant.definition)
                // After the disk is published, a failure is too late to revert anything: the volume is complete.
                let status = try await cloud.status(id)
                if variant.succeeds {
                    #expect(status == "available", "\(variant.name)")
                    #expect(cloud.files == (before + ["volume-\(id)"]).sorted(), "\(variant.name)")
                } else {
                    #expect(status == "error" || variant.name.hasPrefix("publish fails after"), "\(variant.name): \(status ?? "gone")")
                    #expect(cloud.files.filter { !$0.hasSuffix(".lock") } == before, "\(variant.name)")
                }
                #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202, "\(variant.name)")
                try await cloud.settle()
                #expect(cloud.files == before, "\(variant.name)")
            }
            #expect(try await cloud.usage()["volumes"] == before.count)
        }
    }

    @Test func extendingUnderEveryDisturbance() async throws {
        try await VolumeFixture.with { cloud in
            for variant in WorkflowChecks(try definition(cloud, "volume_extend")).variants
            where !variant.name.hasPrefix("publish fails after") {
                let id = try await cloud.create()
                #expect(try await cloud.call("POST", "/v3/volumes/\(id)/action", ["os-extend": ["new_size": 2]]).status == 202)
                try await run(cloud, variant.definition)
                #expect(try await cloud.status(id) == (variant.succeeds ? "available" : "error_extending"), "\(variant.name)")
                #expect(try await cloud.usage()["gigabytes"] == (variant.succeeds ? 2 : 1), "\(variant.name)")
                #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202)
                try await cloud.settle()
                #expect(try await cloud.usage()["gigabytes"] == 0, "\(variant.name)")
            }
        }
    }

    @Test func deletingUnderEveryDisturbance() async throws {
        try await VolumeFixture.with { cloud in
            for variant in WorkflowChecks(try definition(cloud, "volume_delete")).variants {
                let id = try await cloud.create()
                #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202)
                #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202)
                try await run(cloud, variant.definition)
                #expect(try await cloud.call("GET", "/v3/volumes/\(id)").status == 404, "\(variant.name)")
                #expect(cloud.files.isEmpty, "\(variant.name)")
                #expect(try await cloud.usage() == ["volumes": 0, "gigabytes": 0, "snapshots": 0], "\(variant.name)")
            }
        }
    }

    @Test func snapshotsUnderEveryDisturbance() async throws {
        try await VolumeFixture.with { cloud in
            let volume = try await cloud.create()
            let creating = WorkflowChecks(try definition(cloud, "snapshot_create")).variants
            let deleting = WorkflowChecks(try definition(cloud, "snapshot_delete")).variants
            for (index, variant) in creating.enumerated() {
                let answer = try await cloud.call("POST", "/v3/snapshots", ["snapshot": ["volume_id": .string(volume)]])
                let id = try #require(answer["snapshot"]?["id"]?.stringValue, "\(answer.json)")
                try await run(cloud, variant.definition)
                let status = try await cloud.call("GET", "/v3/snapshots/\(id)")["snapshot"]?["status"]
                #expect(
                    status == (variant.succeeds ? "available" : "error") || variant.name.hasPrefix("publish fails after"), "\(variant.name)"
                )
                #expect(try await cloud.call("DELETE", "/v3/snapshots/\(id)").status == 202)
                try await run(cloud, deleting[index % deleting.count].definition)
                #expect(try await cloud.call("GET", "/v3/snapshots/\(id)").status == 404, "\(variant.name)")
                #expect(cloud.files == ["volume-\(volume)"], "\(variant.name)")
            }
            #expect(try await cloud.usage() == ["volumes": 1, "gigabytes": 1, "snapshots": 0])
        }
    }

    @Test("S21: deleting a volume during its creation leaves nothing behind") func deletingEndsACreationThatIsUnderWay() async throws {
        try await VolumeFixture.with { cloud in
            let image = try await cloud.addImage(Array(repeating: 3, count: 10_000))
            let id = try await begin(cloud, ["size": 1, "imageRef": .string(image)])
            try? await cloud.engine.drain(roundsMax: 1)
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202)
            try await cloud.settle()
            #expect(try await cloud.call("GET", "/v3/volumes/\(id)").status == 404)
            #expect(cloud.files.isEmpty)
            #expect(try await cloud.usage()["volumes"] == 0)
        }
    }

    @Test func aCopyOfADeadProcessIsNotDisturbed() async throws {
        try await VolumeFixture.with { cloud in
            let image = try await cloud.addImage([1, 2, 3])
            let id = try await begin(cloud, ["size": 1, "imageRef": .string(image)])
            // Another process holds the lock: this one waits, and takes over when the lock is released.
            let lock = open(cloud.directory + "/volume-\(id).lock", O_RDWR | O_CREAT, 0o600)
            #expect(flock(lock, LOCK_EX | LOCK_NB) == 0)
            for _ in 0..<5 { try? await cloud.engine.drain(roundsMax: 2) }
            #expect(try await cloud.status(id) == "creating")
            #expect(cloud.files == ["volume-\(id).lock"])
            close(lock)
            try await cloud.settle()
            #expect(try await cloud.status(id) == "available")
            #expect(cloud.files == ["volume-\(id)"])
        }
    }

    @Test("S18: copies of one project leave room for those of others", .timeLimit(.minutes(10)))
    func s18CopiesAreSharedOut() async throws {
        try await VolumeFixture.with { cloud in
            let images = HeldImages()
            let driver = try FileDriver(directory: cloud.directory, images: images)
            let id = try await cloud.addImage([1, 2, 3])
            let source = try await cloud.database.read { connection in
                let found = try #require(try ImageAccess().source(connection, id, project: "p1", user: "u1"))
                return SourceImage(found.image, as: found.subject)
            }
            var objects: [StoredObject] = []
            func begin(_ project: String) async throws {
                let object = StoredObject(.volume, SystemRandom().uuid().description, project: project, format: .raw, size: 1)
                objects.append(object)
                #expect(try await !driver.fill(object, from: source))
            }
            for _ in 0..<10 { try await begin("p1") }
            while images.begun < 4 { try await SystemTime().sleep(for: .milliseconds(5)) }
            try await begin("p2")
            while images.begun < 5 { try await SystemTime().sleep(for: .milliseconds(5)) }
            try await begin("p1")
            for object in objects {
                while true {
                    do { try await driver.delete(object) } catch let error as ResourceError where error.code == .unavailable {
                        try await SystemTime().sleep(for: .milliseconds(5))
                        continue
                    }
                    break
                }
            }
            #expect(images.begun == 5)
        }
    }
}

/// Images whose data never arrives.
private final class HeldImages: ImageSource {
    private let count = Atomic<Int>(0)
    var begun: Int { count.load(ordering: .acquiring) }

    func download(
        _ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        count.add(1, ordering: .acquiringAndReleasing)
        while true { try await SystemTime().sleep(for: .milliseconds(10)) }
    }
}
