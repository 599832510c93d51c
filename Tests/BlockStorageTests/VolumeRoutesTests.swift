import CDispatch
import Authorization
import BlockStorageCore
import Database
import WebAPI
@testable import BlockStorageService
import Foundation
import Glibc
import ImageAccess
import JSON
import Kernel
import Synchronization
import TestKit
import Testing

@Suite struct VolumeRoutesTests {
    @Test func discoveryAndVersions() async throws {
        try await VolumeFixture.with { cloud in
            let root = try await cloud.call("GET", "/", token: nil)
            #expect(root.status == 300)
            #expect(root["versions"]?.arrayValue?.first?["version"] == "3.70")
            #expect(try await cloud.call("GET", "/v3/", token: nil).status == 200)
            #expect(try await cloud.call("GET", "/v3/volumes").status == 200)
            #expect(try await cloud.call("GET", "/v3/p1/volumes").status == 200)
            #expect(try await cloud.call("GET", "/v3/p2/volumes").status == 400)
            #expect(try await cloud.call("GET", "/v3/volumes", version: "3.99").status == 406)
            #expect(try await cloud.call("GET", "/v3/volumes", version: "3.42").headers["openstack-api-version"] == "volume 3.42")
            #expect(try await cloud.call("GET", "/v3/volumes", token: nil).status == 401)
            #expect(try await cloud.call("GET", "/v3/replications").status == 404)
        }
    }

    @Test func aLife() async throws {
        try await VolumeFixture.with { cloud in
            // As the openstack client sends it: options that were not given are null.
            let created = try await cloud.call(
                "POST", "/v3/p1/volumes", version: "3.70",
                [
                    "volume": [
                        "size": 2, "name": "data", "description": nil, "availability_zone": nil, "metadata": ["k": "v"], "imageRef": nil,
                        "snapshot_id": nil, "source_volid": nil, "volume_type": nil, "consistencygroup_id": nil, "backup_id": nil,
                    ]
                ])
            #expect(created.status == 202)
            let volume = created["volume"]
            #expect(volume?["status"] == "creating")
            #expect(volume?["bootable"] == "false")
            #expect(volume?["volume_type"] == "__DEFAULT__")
            #expect(volume?["attachments"] == [])
            // Fields of other extensions are in later responses, not in this one.
            #expect(volume?["os-vol-tenant-attr:tenant_id"] == nil)
            #expect(volume?["os-vol-host-attr:host"] == nil)
            let id = try #require(volume?["id"]?.stringValue)
            #expect(volume?["links"]?.arrayValue?.first?["href"] == .string("http://volumes.example/v3/p1/volumes/\(id)"))
            try await cloud.settle()
            let shown = try await cloud.volume(id)
            #expect(shown["status"] == "available")
            #expect(shown["os-vol-host-attr:host"] == "wolke@file#file")
            #expect(shown["os-vol-tenant-attr:tenant_id"] == "p1")
            #expect(shown["created_at"]?.stringValue?.count == 26)
            #expect(cloud.files == ["volume-\(id)"])
            let size = try FileManager.default.attributesOfItem(atPath: cloud.directory + "/volume-\(id)")[.size] as? Int
            #expect(size == 2 << 30)
            #expect(
                try await cloud.call("PUT", "/v3/volumes/\(id)", ["volume": ["name": "new", "description": "d"]])["volume"]?["name"]
                    == "new")
            #expect(try await cloud.call("GET", "/v3/volumes/\(id)/metadata")["metadata"] == ["k": "v"])
            #expect(try await cloud.call("PUT", "/v3/volumes/\(id)/metadata/x", ["meta": ["x": "y"]]).status == 200)
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)/metadata/k").status == 200)
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)/metadata/k").status == 404)
            #expect(try await cloud.usage() == ["volumes": 1, "gigabytes": 2, "snapshots": 0])
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202)
            try await cloud.settle()
            #expect(try await cloud.call("GET", "/v3/volumes/\(id)").status == 404)
            #expect(cloud.files.isEmpty)
            #expect(try await cloud.usage() == ["volumes": 0, "gigabytes": 0, "snapshots": 0])
        }
    }

    @Test func volumesOfImagesSnapshotsAndVolumes() async throws {
        try await VolumeFixture.with { cloud in
            let bytes = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let image = try await cloud.addImage(bytes)
            func content(_ id: String) throws -> [UInt8] {
                let file = try #require(FileHandle(forReadingAtPath: cloud.directory + "/volume-\(id)"))
                return Array(try file.read(upToCount: bytes.count) ?? Data())
            }
            let first = try await cloud.create(["size": 1, "imageRef": .string(image)])
            let shown = try await cloud.volume(first)
            #expect(shown["status"] == "available", "\(shown)")
            #expect(shown["bootable"] == "true")
            #expect(shown["volume_image_metadata"]?["image_id"] == .string(image))
            #expect(shown["volume_image_metadata"]?["hw_disk_bus"] == "virtio")
            #expect(try content(first) == bytes)

            let snapshot = try await cloud.call(
                "POST", "/v3/p1/snapshots", ["snapshot": ["volume_id": .string(first), "name": "s", "metadata": nil]])
            #expect(snapshot.status == 202)
            let snapshotID = try #require(snapshot["snapshot"]?["id"]?.stringValue)
            try await cloud.settle()
            #expect(try await cloud.call("GET", "/v3/snapshots/\(snapshotID)")["snapshot"]?["status"] == "available")
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(first)").status == 400)
            let action = "/v3/snapshots/\(snapshotID)/action"
            func act(_ body: JSONValue) async throws -> Int { try await cloud.call("POST", action, token: "admin", body).status }
            #expect(try await act(["os-update_snapshot_status": ["status": "error"]]) == 400)
            #expect(try await act(["os-reset_status": ["status": "creating"]]) == 202)
            for wrong: JSONValue in ["80", "101%", "%", "-1%", "+8%", ""] {
                #expect(try await act(["os-update_snapshot_status": ["status": "creating", "progress": wrong]]) == 400, "\(wrong)")
            }
            for (progress, shown) in [("80%", "80%"), (nil, "80%"), (90, "90%")] as [(JSONValue, JSONValue)] {
                #expect(try await act(["os-update_snapshot_status": ["status": "creating", "progress": progress]]) == 202)
                let snapshot = try await cloud.call("GET", "/v3/snapshots/\(snapshotID)")["snapshot"]
                #expect(snapshot?["os-extended-snapshot-attributes:progress"] == shown)
            }
            #expect(try await act(["os-update_snapshot_status": ["status": "available", "progress": "70%"]]) == 202)
            let snapshotNow = try await cloud.call("GET", "/v3/snapshots/\(snapshotID)")["snapshot"]
            #expect(snapshotNow?["os-extended-snapshot-attributes:progress"] == "100%")
            let second = try await cloud.create(["size": 2, "snapshot_id": .string(snapshotID)])
            #expect(try content(second) == bytes)
            #expect(try await cloud.volume(second)["size"] == 2)
            let third = try await cloud.create(["source_volid": .string(second)])
            #expect(try content(third) == bytes)
            #expect(try await cloud.volume(third)["size"] == 2)
            #expect(try await cloud.volume(third)["bootable"] == "true")
            #expect(try await cloud.usage() == ["volumes": 3, "gigabytes": 6, "snapshots": 1])
            #expect(
                try await cloud.call(
                    "POST", "/v3/volumes", ["volume": ["size": 1, "snapshot_id": .string(snapshotID), "imageRef": .string(image)]]
                ).status == 400)
            #expect(try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "source_volid": .string(second)]]).status == 400)
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(first)?cascade=True").status == 202)
            try await cloud.settle()
            #expect(try await cloud.call("GET", "/v3/snapshots/\(snapshotID)").status == 404)
            #expect(cloud.files == ["volume-\(second)", "volume-\(third)"].sorted())
            #expect(try await cloud.usage() == ["volumes": 2, "gigabytes": 4, "snapshots": 0])
        }
    }

    @Test func invalidImagesEndInErrorWithoutFiles() async throws {
        try await VolumeFixture.with { cloud in
            let broken = try await cloud.addImage([1, 2, 3], format: "qcow2")
            let id = try await cloud.create(["size": 1, "imageRef": .string(broken)])
            #expect(try await cloud.status(id) == "error")
            #expect(try await cloud.fault(id).contains("The image cannot be used to create a volume: disk_format is 'qcow2'"))
            #expect(cloud.files.filter { !$0.hasSuffix(".lock") }.isEmpty)
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202)
            try await cloud.settle()
            #expect(cloud.files.isEmpty)
            #expect(
                try await cloud.call(
                    "POST", "/v3/volumes", ["volume": ["size": 1, "imageRef": .string(SystemRandom().uuid().description)]]
                ).status == 400)
        }
    }

    @Test("S1 S3: images that the Image service should have refused end in error and leave nothing")
    func s1_hostileImagesBecomeNoVolumes() async throws {
        try await VolumeFixture.with { cloud in
            let canary = cloud.directory + ".canary"
            defer { unlink(canary) }
            try Data("CANARY".utf8).write(to: URL(fileURLWithPath: canary))
            let corpus = HostileImages.corpus(canary: canary).filter {
                ["raw", "qcow2", "vmdk", "vdi", "vhd"].contains($0.declared)
            }
            #expect(corpus.count >= 60)
            for hostile in corpus {
                let image = try await cloud.addImage(hostile.bytes, format: hostile.declared)
                let id = try await cloud.create(["size": 1, "imageRef": .string(image)])
                #expect(try await cloud.status(id) == "error", "\(hostile)")
                let fault = try await cloud.fault(id)
                #expect(fault.contains(hostile.reason), "\(hostile): \(fault)")
                #expect(cloud.files.filter { !$0.hasSuffix(".lock") }.isEmpty, "\(hostile)")
                #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 202)
                try await cloud.settle()
            }
        }
    }

    @Test("S3: an image that is larger than the volume is refused, regardless of the Image service's record")
    func s3_volumesAreAsLargeAsAskedFor() async throws {
        try await VolumeFixture.with { cloud in
            let image = try await cloud.addImage(DiskImages.qcow2(size: 2 << 30), format: "qcow2")
            let id = try await cloud.create(["size": 1, "imageRef": .string(image)])
            #expect(try await cloud.status(id) == "error")
            let fault = try await cloud.fault(id)
            #expect(fault.contains("more than the requested 1073741824"), "\(fault)")
            #expect(cloud.files.filter { !$0.hasSuffix(".lock") }.isEmpty)
            let larger = try await cloud.create(["size": 2, "imageRef": .string(image)])
            #expect(try await cloud.status(larger) == "available")
            var status = stat()
            #expect(stat(cloud.directory + "/volume-\(larger)", &status) == 0)
            #expect(status.st_size == 2 << 30)
            #expect(status.st_mode & 0o7777 == 0o600 && status.st_gid == getegid())
            let copy = try await cloud.create(["source_volid": .string(larger)])
            #expect(try await cloud.status(copy) == "available")
            for id in [larger, copy] {
                #expect(stat(cloud.directory + "/volume-\(id)", &status) == 0)
                #expect(status.st_mode & 0o7777 == 0o600 && status.st_gid == getegid(), "\(id == copy ? "the copy" : "its source")")
            }
            #expect(stat(cloud.directory, &status) == 0 && status.st_mode & 0o066 == 0)
        }
    }

    @Test("S5: a new volume contains no data of earlier volumes")
    func s5_volumesBeginEmpty() async throws {
        try await VolumeFixture.with { cloud in
            let id = SystemRandom().uuid().description
            let pattern = Data(repeating: 0x5a, count: 3 << 20)
            for format in [VolumeFormat.raw, .qcow2] {
                let object = StoredObject(.volume, id, project: "p1", format: format, size: 1)
                // Files that a crash or an earlier volume left under every name that the driver uses.
                for suffix in ["", ".part", ".image", ".lock"] {
                    try pattern.write(to: URL(fileURLWithPath: "\(cloud.directory)/\(object.name)\(suffix)"))
                }
                try await cloud.driver.delete(object)
                #expect(cloud.files.isEmpty)
                try pattern.write(to: URL(fileURLWithPath: "\(cloud.directory)/\(object.name).part"))
                try await cloud.driver.create(object)
                let file = try #require(FileHandle(forReadingAtPath: "\(cloud.directory)/\(object.name)"))
                #expect(try file.read(upToCount: 8 << 20)?.contains(0x5a) == false, "\(format)")
                try await cloud.driver.delete(object)
            }
            // The part of a larger volume beyond the image, and the part by which it grows.
            let image = try await cloud.addImage([UInt8](repeating: 0x5a, count: 4096))
            let volume = try await cloud.create(["size": 1, "imageRef": .string(image)])
            #expect(try await cloud.call("POST", "/v3/volumes/\(volume)/action", ["os-extend": ["new_size": 2]]).status == 202)
            try await cloud.settle()
            let file = try #require(FileHandle(forReadingAtPath: "\(cloud.directory)/volume-\(volume)"))
            for (place, zeros) in [(0, false), (4096, true), ((1 << 30) - 4096, true), (1 << 30, true), ((2 << 30) - 4096, true)] {
                try file.seek(toOffset: UInt64(place))
                let bytes = try file.read(upToCount: 4096) ?? Data()
                #expect(bytes.count == 4096 && bytes.allSatisfy { $0 == 0 } == zeros, "\(place)")
            }
        }
    }

    @Test("S24: no volume is created from an image whose data does not match its hash")
    func s24_hashesAreCheckedFirst() async throws {
        try await VolumeFixture.with { cloud in
            let bytes = [UInt8](repeating: 7, count: 100_000)
            let image = try await cloud.addImage(bytes, hash: String(repeating: "0", count: 128))
            let short = try await cloud.addImage(bytes)
            cloud.images.data.withLock { $0[short] = Array(bytes.dropLast()) }
            for (image, word) in [(image, "does not match its hash"), (short, "bytes arrived")] {
                let object = StoredObject(.volume, SystemRandom().uuid().description, project: "p1", format: .raw, size: 1)
                let source = try await cloud.database.read { connection in
                    let found = try #require(try ImageAccess().source(connection, image, project: "p1", user: "u1"))
                    return SourceImage(found.image, as: found.subject)
                }
                var failure = ""
                for _ in 0..<4000 where failure.isEmpty {
                    do { if try await cloud.driver.fill(object, from: source) { failure = "filled" } } catch { failure = "\(error)" }
                    try await SystemTime().sleep(for: .milliseconds(10))
                }
                #expect(failure.contains(word), "\(failure)")
                #expect(cloud.files.filter { !$0.hasSuffix(".lock") }.isEmpty, "\(cloud.files)")
            }
        }
    }

    @Test("S10: Image's rules, including the operator's policy file, decide from which images a volume can be created")
    func s10ImagePolicyDecides() async throws {
        func make(_ policy: [String: String], as token: String = "member") async throws -> VolumeFixture.Answer {
            let result = Mutex<VolumeFixture.Answer?>(nil)
            try await VolumeFixture.with(imagePolicy: policy) { cloud in
                let image = try await cloud.addImage([UInt8](repeating: 7, count: 4096))
                let answer = try await cloud.call("POST", "/v3/volumes", token: token, ["volume": ["size": 1, "imageRef": .string(image)]])
                let creation = try await cloud.database.read { try $0.query("SELECT count(*) AS n FROM volumes")[0].int("n") }
                #expect(creation == (answer.status == 202 ? 1 : 0))
                if answer.status == 202 {
                    try await cloud.settle()
                    let caller = try await StaticAuthenticator.standard.caller(token: token)
                    let grounds: ActingSubject.Grounds = policy.isEmpty ? .accepted : .user
                    let subject = ActingSubject(project: caller.projectID ?? "", user: caller.userID, grounds: grounds)
                    #expect(cloud.images.subjects.withLock { $0.first } == subject)
                }
                result.withLock { $0 = answer }
            }
            return try #require(result.withLock { $0 })
        }
        #expect(try await make([:]).status == 202)
        let unseen = try await make(["get_image": "role:reader and project_id:%(project_id)s"])
        #expect(unseen.status == 400 && unseen.json.description.contains("unable to access"), "\(unseen.json)")
        let refused = try await make(["download_image": "rule:admin_required"])
        #expect(refused.status == 403 && refused.json.description.contains("download_image"), "\(refused.json)")
        #expect(try await make(["download_image": "rule:admin_required"], as: "admin").status == 202)
    }

    @Test("S10: a volume belongs to its creator, regardless of the body")
    func s10VolumesAreTheirCreators() async throws {
        try await VolumeFixture.with { cloud in
            for name in ["project_id", "user_id"] {
                let answer = try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, name: "somebody"]])
                #expect(answer.status == 400, "\(name)")
            }
            #expect(try await cloud.usage()["volumes"] == 0)
            #expect(
                try await cloud.call("POST", "/v3/volumes", ["volume": ["size": 1, "project_id": "p1", "user_id": .null]]).status == 202)
            try await cloud.settle()
        }
    }

    @Test func extending() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let path = "/v3/volumes/\(id)/action"
            #expect(try await cloud.call("POST", path, ["os-extend": ["new_size": 1]]).status == 400)
            #expect(try await cloud.call("POST", path, ["os-extend": ["new_size": 5000]]).status == 413)
            #expect(try await cloud.call("POST", path, ["os-extend": ["new_size": "3"]]).status == 202)
            #expect(try await cloud.status(id) == "extending")
            #expect(try await cloud.call("POST", path, ["os-extend": ["new_size": 4]]).status == 400)
            try await cloud.settle()
            #expect(try await cloud.status(id) == "available")
            #expect(try await cloud.volume(id)["size"] == 3)
            #expect(try await cloud.usage()["gigabytes"] == 3)
            #expect(try await cloud.call("POST", path, ["os-set_bootable": ["bootable": true]]).status == 200)
            #expect(try await cloud.volume(id)["bootable"] == "true")
            #expect(try await cloud.call("POST", path, ["os-reserve": nil]).status == 202)
            #expect(try await cloud.status(id) == "attaching")
            #expect(try await cloud.call("POST", path, ["os-reserve": nil]).status == 400)
            #expect(try await cloud.call("POST", path, ["os-unreserve": nil]).status == 202)
            let set = try await cloud.call("POST", path, ["os-set_image_metadata": ["metadata": ["a": "b"]]])
            #expect(set["metadata"] == ["a": "b"])
            #expect(try await cloud.call("POST", path, ["os-unset_image_metadata": ["key": "a"]]).json == .null)
            #expect(try await cloud.call("POST", path, ["os-reset_status": ["status": "error"]]).status == 403)
            #expect(try await cloud.call("POST", path, token: "admin", ["os-reset_status": ["status": "error"]]).status == 202)
            #expect(try await cloud.status(id) == "error")
            #expect(try await cloud.call("POST", path, ["os-nonsense": [:]]).status == 400)
        }
    }

    @Test func attachments() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let server = "0a0a0a0a-0000-4000-8000-00000000000a"
            let body: JSONValue = [
                "attachment": [
                    "volume_uuid": .string(id), "instance_uuid": .string(server),
                    "connector": ["host": "h1", "mountpoint": "vdb", "multipath": false],
                ]
            ]
            let creation = try await cloud.call("POST", "/v3/p1/attachments", token: "service", version: "latest", key: "op", body)
            #expect(creation.status == 200)
            let attachment = creation["attachment"]
            #expect(attachment?["status"] == "attaching")
            #expect(
                attachment?["connection_info"] == [
                    "driver": "file", "path": .string("\(cloud.directory)/volume-\(id)"), "format": "raw", "read_only": false,
                ])
            let attachmentID = try #require(attachment?["id"]?.stringValue)
            #expect(
                try await cloud.call("POST", "/v3/p1/attachments", token: "service", version: "latest", key: "op", body)["attachment"]?[
                    "id"]?.stringValue == attachmentID)
            #expect(try await cloud.call("POST", "/v3/p1/attachments", token: "service", version: "latest", body).status == 400)
            #expect(try await cloud.status(id) == "attaching")
            for _ in 0..<2 {
                #expect(
                    try await cloud.call(
                        "POST", "/v3/p1/attachments/\(attachmentID)/action", token: "service", version: "latest", ["os-complete": [:]]
                    ).status == 204)
            }
            for (instance, count) in [(server, 1), (id, 0)] {
                let found = try await cloud.call("GET", "/v3/attachments?instance_id=\(instance)")["attachments"]
                #expect(found?.arrayValue?.count == count)
            }
            let shown = try await cloud.volume(id)
            #expect(shown["status"] == "in-use")
            #expect(shown["attachments"]?.arrayValue?.first?["server_id"] == .string(server))
            #expect(shown["attachments"]?.arrayValue?.first?["host_name"] == "h1")
            #expect(try await cloud.call("GET", "/v3/volumes/\(id)")["volume"]?["attachments"]?.arrayValue?.first?["host_name"] == .null)
            #expect(try await cloud.call("GET", "/v3/attachments/\(attachmentID)")["attachment"]?["connection_info"] == nil)
            #expect(try await cloud.call("DELETE", "/v3/volumes/\(id)").status == 400)
            #expect(try await cloud.call("POST", "/v3/volumes/\(id)/action", ["os-extend": ["new_size": 4]]).status == 400)
            #expect(try await cloud.call("POST", "/v3/snapshots", ["snapshot": ["volume_id": .string(id), "force": true]]).status == 400)
            try await cloud.plug(id, into: server)
            #expect(try await cloud.call("DELETE", "/v3/attachments/\(attachmentID)").status == 409)
            #expect(try await cloud.call("DELETE", "/v3/attachments/\(attachmentID)", token: "other").status == 404)
            #expect(try await cloud.call("DELETE", "/v3/p1/attachments/\(attachmentID)", token: "service").status == 200)
            #expect(try await cloud.call("DELETE", "/v3/p1/attachments/\(attachmentID)", token: "service").status == 404)
            #expect(try await cloud.status(id) == "available")
            let kept = try await cloud.call(
                "POST", "/v3/attachments", version: "3.27", ["attachment": ["volume_uuid": .string(id), "instance_uuid": .string(server)]])
            #expect(kept["attachment"]?["status"] == "reserved")
            #expect(try await cloud.status(id) == "reserved")
            let keptID = try #require(kept["attachment"]?["id"]?.stringValue)
            #expect(try await cloud.call("PUT", "/v3/attachments/\(keptID)", ["attachment": ["connector": [:]]]).status == 400)
            #expect(
                try await cloud.call("PUT", "/v3/attachments/\(keptID)", ["attachment": ["connector": ["host": "h2"]]])["attachment"]?[
                    "status"] == "attaching")
            #expect(try await cloud.call("GET", "/v3/attachments/detail")["attachments"]?.arrayValue?.count == 1)
        }
    }

    @Test("S4: only one of many concurrent attachments succeeds") func s4OneAttachmentWinsOfMany() async throws {
        try await VolumeFixture.with { cloud in
            let id = try await cloud.create()
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for index in 0..<8 {
                    group.addTask {
                        try await cloud.call(
                            "POST", "/v3/p1/attachments", token: "service", version: "latest",
                            [
                                "attachment": [
                                    "volume_uuid": .string(id), "instance_uuid": .string("0a0a0a0a-0000-4000-8000-00000000000\(index)"),
                                    "connector": ["host": "h"],
                                ]
                            ]
                        ).status
                    }
                }
                return try await group.reduce(into: [Int]()) { $0.append($1) }
            }
            #expect(statuses.filter { $0 == 200 }.count == 1)
            #expect(statuses.filter { $0 == 400 }.count == 7)
        }
    }
}
