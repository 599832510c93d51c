import Commands
import Contracts
import DiskTool
import Foundation
import ImageFormat
import JSON
import Kernel
import Libvirt
import Testing

@testable import ComputeAgentCore
@testable import ComputeAgentService

@Suite struct JobPlanTests {
    private func job(_ id: String) throws -> JSONValue {
        [
            "id": .string(id), "kind": "upload-disk",
            "upload": ["image_id": .string(id), "project_id": "p", "user_id": "u", "quiesce": "never"],
        ]
    }

    @Test func jobsBeginOnceAndAreDroppedWhenTheyAreNoLongerWanted() throws {
        let (a, b) = (SystemRandom().uuid().description, SystemRandom().uuid().description)
        let server = try Fixture.server(["jobs": [try job(a), try job(b)]])
        let fresh = JobPlan(wanted: server.jobs, known: [], active: [])
        #expect(fresh.begun.map(\.id) == [a, b] && fresh.dropped.isEmpty)
        // A restarted agent repeats jobs that had begun, but not jobs that have ended.
        let known = [LocalJob(id: a), LocalJob(id: b, state: .failed, error: "no")]
        #expect(JobPlan(wanted: server.jobs, known: known, active: []).begun.map(\.id) == [a])
        #expect(JobPlan(wanted: server.jobs, known: known, active: [a]).begun.isEmpty)
        #expect(JobPlan(wanted: [], known: known, active: [a]).dropped == known)
    }

    @Test func recordsKeepJobs() throws {
        var record = LocalServerRecord(serverID: SystemRandom().uuid().description)
        record.jobs = [LocalJob(id: "a"), LocalJob(id: "b", state: .failed, error: "no", reason: "none")]
        #expect(try LocalServerRecord(document: record.document) == record)
        var older = record.document.objectValue ?? [:]
        older["jobs"] = nil
        #expect(try LocalServerRecord(document: .object(older)).jobs.isEmpty)
    }

    /// Ids become parts of paths.
    @Test func jobsWithOtherIdsAreRefused() throws {
        for id in ["../../etc/passwd", "", "a/b"] {
            #expect(throws: FormError.self) { try Fixture.server(["jobs": [try job(id)]]) }
        }
    }
}

extension OnARealHost {
    @Suite(.serialized) struct ServerJobTests {
        private static func id(_ number: Int) -> String { "22222222-0000-0000-0000-00000000000\(number)" }
        private let image = SystemRandom().uuid().description
        private let jobID = SystemRandom().uuid().description

        private func server(_ number: Int, _ generation: Int, jobs: [JSONValue] = [], power: String = "running") throws -> DesiredServer {
            try Fixture.server([
                "id": .string(ServerJobTests.id(number)), "generation": JSONValue(generation), "power": .string(power), "ports": [],
                "memory_mb": 32, "root_gb": 1, "jobs": .array(jobs),
                "image": [
                    "id": .string(TestImages.talking), "checksum": nil, "disk_format": "raw", "size": 1_048_576, "properties": [:],
                ],
            ])
        }

        private func upload(quiesce: String = "never") -> JSONValue {
            [
                "id": .string(jobID), "kind": "upload-disk",
                "upload": ["image_id": .string(image), "project_id": "p1", "user_id": "u1", "quiesce": .string(quiesce)],
            ]
        }

        private func state(_ report: TestAgent.ObservedReportDocument) -> String? {
            report.body["jobs"]?.arrayValue?.first { $0["id"] == .string(jobID) }?["state"]?.stringValue
        }

        private func place(_ name: String) async throws -> (host: PrivateHost, state: String) {
            let host = try await PrivateHost.shared.value
            return (host, "\(host.directory)/\(name)")
        }

        /// The uploaded data is a disk of its own, with the content of the server's image.
        private func check(_ uploads: TestUploads, _ directory: String) throws {
            let data = try #require(uploads.data(image))
            let path = "\(directory)/uploaded.qcow2"
            try Files.replace(path, with: data)
            defer { try? FileManager.default.removeItem(atPath: path) }
            // Our parser refuses every reference to another file.
            let disk = try ForeignDisk(path: path, declared: "qcow2")
            #expect(disk.header.virtualSize == 1 << 30)
            let raw = "\(directory)/uploaded.raw"
            try DiskTool(Sandbox()).convert(disk, to: raw, .raw, size: 1 << 30)
            defer { try? FileManager.default.removeItem(atPath: raw) }
            let start = try Files.read(raw, offset: 0, count: 1 << 20)
            #expect(String(decoding: start, as: UTF8.self).contains("hello from the guest"))
        }

        @Test func theDiskOfARunningGuestIsUploaded() async throws {
            let place = try await place("job-running")
            let uploads = TestUploads()
            let agent = try await TestAgent(place.host, state: place.state, uploads: uploads)
            let id = ServerJobTests.id(1)
            try await agent.fleet.ensure(try server(1, 1))
            _ = try await agent.waitForReport(id) { $0.power == "running" && $0.state == "applied" }
            let pid = try place.host.emulatorPID(id)
            try await agent.fleet.ensure(try server(1, 2, jobs: [upload()]))
            _ = try await agent.waitForReport(id) { state($0) == "done" }
            #expect(uploads.begun == 1)
            #expect(uploads.subjects == [ActingSubject(project: "p1", user: "u1", grounds: .accepted)])
            try check(uploads, place.state)
            // The guest has not noticed it, and nothing is left.
            #expect(try place.host.emulatorPID(id) == pid)
            #expect(try Files.list(agent.disks.files(id).directory).filter { $0.hasPrefix("copy-") } == [])
            // The same job again is done.
            try await agent.fleet.ensure(try server(1, 3, jobs: [upload()]))
            _ = try await agent.waitForReport(id) { $0.body["generation"] == 3 && state($0) == "done" }
            #expect(uploads.begun == 1)
            try await agent.fleet.ensure(try server(1, 4, power: "absent"))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            await agent.stop()
        }

        @Test func theDiskOfAStoppedGuestIsUploaded() async throws {
            let place = try await place("job-stopped")
            let uploads = TestUploads()
            let agent = try await TestAgent(place.host, state: place.state, uploads: uploads)
            let id = ServerJobTests.id(2)
            try await agent.fleet.ensure(try server(2, 1))
            _ = try await agent.waitForReport(id) { $0.power == "running" && $0.state == "applied" }
            // The answer to the first upload is lost.
            uploads.answer([.unavailable("lost"), nil])
            try await agent.fleet.ensure(try server(2, 2, jobs: [upload()], power: "shutoff"))
            _ = try await agent.waitForReport(id) { $0.power == "shutoff" && state($0) == "done" }
            #expect(uploads.begun == 2)
            try check(uploads, place.state)
            try await agent.fleet.ensure(try server(2, 3, power: "absent"))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            await agent.stop()
        }

        @Test func aRestartedAgentRepeatsAJob() async throws {
            let place = try await place("job-restart")
            let uploads = TestUploads()
            uploads.hold(true)
            let id = ServerJobTests.id(3)
            let first = try await TestAgent(place.host, state: place.state, uploads: uploads)
            try await first.fleet.ensure(try server(3, 1, jobs: [upload()]))
            _ = try await first.waitForReport(id) { report in
                report.body["jobs"]?.arrayValue?.first?["phase"] == "uploading"
            }
            await first.stop()
            uploads.hold(false)
            let second = try await TestAgent(place.host, state: place.state, uploads: uploads)
            _ = try await second.waitForReport(id) { state($0) == "done" }
            try check(uploads, place.state)
            try await second.fleet.ensure(try server(3, 2, power: "absent"))
            _ = try await second.waitForReport(id) { $0.power == "absent" }
            await second.stop()
        }

        @Test func cancelledJobsLeaveNoFiles() async throws {
            let place = try await place("job-cancel")
            let uploads = TestUploads()
            uploads.hold(true)
            let id = ServerJobTests.id(4)
            let agent = try await TestAgent(place.host, state: place.state, uploads: uploads)
            try await agent.fleet.ensure(try server(4, 1, jobs: [upload()]))
            _ = try await agent.waitForReport(id) { report in
                report.body["jobs"]?.arrayValue?.first?["phase"] == "uploading"
            }
            try await agent.fleet.ensure(try server(4, 2))
            _ = try await agent.waitForReport(id) { $0.body["generation"] == 2 && $0.state == "applied" && $0.body["jobs"] == nil }
            #expect(uploads.data(image) == nil)
            #expect(try Files.list(agent.disks.files(id).directory).filter { $0.hasPrefix("copy-") } == [])
            try await agent.fleet.ensure(try server(4, 3, power: "absent"))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            await agent.stop()
        }

        /// A job that cannot succeed ends at once, with a reason for the server's owner.
        @Test func refusalsEndAJob() async throws {
            let place = try await place("job-refused")
            let uploads = TestUploads()
            let id = ServerJobTests.id(5)
            let agent = try await TestAgent(place.host, state: place.state, uploads: uploads)
            uploads.answer([.notFound("no such image")])
            try await agent.fleet.ensure(try server(5, 1, jobs: [upload()]))
            let gone = try await agent.waitForReport(id) { state($0) == "failed" }
            #expect(gone["jobs"]?.arrayValue?.first?["reason"] == .string("image \(image) was deleted"))
            let other = SystemRandom().uuid().description
            let frozen: JSONValue = [
                "id": .string(other), "kind": "upload-disk",
                "upload": ["image_id": .string(image), "project_id": "p1", "user_id": "u1", "quiesce": "required"],
            ]
            let unknown: JSONValue = ["id": .string(SystemRandom().uuid().description), "kind": "dance"]
            try await agent.fleet.ensure(try server(5, 2, jobs: [frozen, unknown]))
            let report = try await agent.waitForReport(id) { report in
                let jobs = report.body["jobs"]?.arrayValue ?? []
                return jobs.count == 2 && jobs.allSatisfy { $0["state"] == "failed" }
            }
            let reasons = (report["jobs"]?.arrayValue ?? []).compactMap { $0["reason"]?.stringValue }.sorted()
            #expect(
                reasons == [
                    "its host does not know the job \"dance\"",
                    "the server has no guest agent, but os_require_quiesce asks for one",
                ])
            #expect(report["power_state"] == "running")
            try await agent.fleet.ensure(try server(5, 3, power: "absent"))
            _ = try await agent.waitForReport(id) { $0.power == "absent" }
            await agent.stop()
        }
    }
}
