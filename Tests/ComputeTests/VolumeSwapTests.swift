import ComputeService
import Database
import JSON
import Kernel
import ServiceKit
import Synchronization
import TestKit
import Testing
import WebAPI
import Workflow

/// Another volume in the place of one that a running server has.
@Suite struct VolumeSwapTests {
    private static let new = "c3d2e1f0-a9b8-4c7d-8e6f-5a4b3c2d1e05"
    private static let body: JSONValue = ["volumeAttachment": ["volumeId": .string(new)]]

    private func server(_ cloud: TestCloud, size: Int = 2) async throws -> String {
        let id = try await cloud.createServer()
        _ = try await cloud.database.write { connection in
            try connection.execute("DELETE FROM volumes WHERE id = \(VolumeSwapTests.new)")
            try Fixtures.insertVolume(connection, id: VolumeSwapTests.new, project: "p1", size: size)
        }
        cloud.workWhileWaiting()
        let attach: JSONValue = ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]]
        #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/os-volume_attachments", attach).status == 200)
        try await cloud.engine().drain()
        // From now on only the engines that the test makes do the work.
        cloud.time.whenWaiting { try await cloud.cloud.work(cloud.consumer) }
        return id
    }

    private func swap(_ cloud: TestCloud, _ id: String, as token: String = "admin", version: String = "2.1") async throws
        -> TestCloud.Answer
    {
        let path = "/v2.1/servers/\(id)/os-volume_attachments/\(Fixtures.volume)"
        return try await cloud.call("PUT", path, VolumeSwapTests.body, as: token, version: version)
    }

    private func statuses(_ cloud: TestCloud) async throws -> [String] {
        try await cloud.database.read { connection in
            try [Fixtures.volume, VolumeSwapTests.new].map {
                try connection.query("SELECT status FROM volumes WHERE id = \($0)")[0].string("status")
            }
        }
    }

    private func attached(_ cloud: TestCloud, _ id: String) async throws -> [String?] {
        let list = try await cloud.call("GET", "/v2.1/servers/\(id)/os-volume_attachments").json["volumeAttachments"]
        return list?.arrayValue?.map { $0["volumeId"]?.stringValue } ?? []
    }

    @Test func aVolumeTakesThePlaceOfAnother() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            #expect(try await swap(cloud, id, as: "member").status == 403)
            let answer = try await swap(cloud, id)
            #expect(answer.status == 202, "\(answer.json)")
            #expect(try await attached(cloud, id) == [Fixtures.volume])
            #expect(try await swap(cloud, id).status == 409)
            let path = "/v2.1/servers/\(id)/os-volume_attachments/\(Fixtures.volume)"
            #expect(try await cloud.call("DELETE", path).status == 409)
            try await cloud.engine().drain()
            #expect(try await statuses(cloud) == ["available", "in-use"])
            #expect(try await attached(cloud, id) == [VolumeSwapTests.new])
            try await cloud.cloud.deliver(to: cloud.consumer)
            let volumes = cloud.cloud.received.last?["server"]?["volumes"]?.arrayValue
            #expect(volumes?.map { $0["volume_id"] } == [.string(VolumeSwapTests.new)] && volumes?.first?["device"] == "vdb")
            let actions = try await cloud.call("GET", "/v2.1/servers/\(id)/os-instance-actions").json["instanceActions"]?.arrayValue
            #expect(actions?.first?["action"] == "swap_volume" && actions?.first?["message"] == .null)
            try await cloud.call("DELETE", "/v2.1/servers/\(id)")
            try await cloud.engine().drain()
            #expect(try await statuses(cloud) == ["available", "available"])
            #expect(try await cloud.leftovers() == [])
        }
    }

    @Test func impossibleSwapsAreRefused() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            func refusal(_ change: SQL, _ back: SQL, _ status: Int, _ text: String) async throws {
                _ = try await cloud.database.write { try $0.execute(change) }
                let answer = try await swap(cloud, id)
                #expect(answer.status == status && answer.message.contains(text), "\(answer.json)")
                _ = try await cloud.database.write { try $0.execute(back) }
            }
            let (old, new) = (Fixtures.volume, VolumeSwapTests.new)
            try await refusal(
                "UPDATE volumes SET size = 3 WHERE id = \(old)", "UPDATE volumes SET size = 1 WHERE id = \(old)", 400,
                "New volume must be the same size or larger.")
            try await refusal(
                "UPDATE volumes SET status = 'error' WHERE id = \(new)", "UPDATE volumes SET status = 'available' WHERE id = \(new)", 400,
                "must be 'available'")
            try await refusal(
                "UPDATE volumes SET multiattach = true WHERE id = \(old)", "UPDATE volumes SET multiattach = false", 400,
                "Volumes that several servers can attach")
            try await refusal(
                """
                INSERT INTO volume_attachments (id, volume_id, project_id, server_id, status, created_at, updated_at)
                VALUES (\(new), \(new), 'p1', gen_random_uuid(), 'attached', now(), now())
                """, "DELETE FROM volume_attachments WHERE id = \(new)", 400, "New volume must be detached in order to swap.")
            try await refusal(
                """
                INSERT INTO volume_attachments (id, volume_id, project_id, server_id, status, created_at, updated_at)
                VALUES (\(new), \(old), 'p1', gen_random_uuid(), 'attached', now(), now())
                """, "DELETE FROM volume_attachments WHERE id = \(new)", 400,
                "Swapping multi-attach volumes with more than one read/write attachment is not supported.")
            try await refusal(
                "UPDATE servers SET vm_state = 'stopped' WHERE id = \(id)", "UPDATE servers SET vm_state = 'active' WHERE id = \(id)", 409,
                "Cannot 'swap_volume' instance")
            try await refusal(
                "UPDATE volumes SET project_id = 'p2' WHERE id = \(new)", "UPDATE volumes SET project_id = 'p1' WHERE id = \(new)", 400,
                "could not be found")
            try await refusal(
                "UPDATE volumes SET project_id = 'p2' WHERE id = \(old)", "UPDATE volumes SET project_id = 'p1' WHERE id = \(old)", 404,
                "could not be found")
            #expect(try await statuses(cloud) == ["in-use", "available"])
        }
    }

    @Test func failedSwapsChangeNothing() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            cloud.cloud.failJobs("no room for the copy")
            #expect(try await swap(cloud, id).status == 202)
            try await cloud.engine().drain()
            #expect(try await statuses(cloud) == ["in-use", "available"])
            #expect(try await attached(cloud, id) == [Fixtures.volume])
            cloud.cloud.failJobs(nil)
            #expect(try await swap(cloud, id).status == 202)
            try await cloud.engine().drain()
            #expect(try await attached(cloud, id) == [VolumeSwapTests.new])
        }
    }

    /// Until the host has ended its copy, it writes to the new volume.
    @Test func aVolumeIsFreeWhenTheHostHasEndedItsCopy() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            cloud.cloud.failJobs("no room for the copy")
            #expect(try await swap(cloud, id).status == 202)
            // The host says that it cannot do the job, and does not get the end of the job yet.
            let rounds = Mutex(0)
            cloud.time.whenWaiting {
                let isFirst = rounds.withLock { rounds in
                    rounds += 1
                    return rounds == 1
                }
                if isFirst { try await cloud.cloud.work(cloud.consumer) } else { try await cloud.cloud.beat(cloud.consumer) }
            }
            await #expect(throws: ResourceError.self) { try await cloud.engine().drain(roundsMax: 60) }
            #expect(try await statuses(cloud) == ["in-use", "in-use"])
            cloud.time.whenWaiting { try await cloud.cloud.work(cloud.consumer) }
            try await cloud.engine().drain()
            #expect(try await statuses(cloud) == ["in-use", "available"])
            // A host of which nothing is heard may still write to the volume.
            #expect(try await swap(cloud, id).status == 202)
            cloud.time.whenWaiting { cloud.cloud.silence("host-1") }
            await #expect(throws: ResourceError.self) { try await cloud.engine().drain(roundsMax: 300) }
            #expect(try await statuses(cloud) == ["in-use", "in-use"])
            _ = try await cloud.database.write { try $0.execute("UPDATE compute_services SET forced_down = true WHERE host = 'host-1'") }
            try await cloud.engine().drain()
            #expect(try await statuses(cloud) == ["in-use", "available"])
        }
    }

    /// A move would start the guest elsewhere with the volume that it is about to lose, and so would an evacuation.
    @Test func aServerDoesNotMoveDuringAnExchange() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            #expect(try await swap(cloud, id).status == 202)
            let moves: [(JSONValue, String)] = [
                (["migrate": nil], "2.56"), (["os-migrateLive": ["host": nil, "block_migration": "auto"]], "2.30"),
                (["evacuate": [:]], "2.29"),
            ]
            for (body, version) in moves {
                let answer = try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: "admin", version: version)
                #expect(answer.status == 409, "\(body): \(answer.json)")
            }
            // The new volume is taken.
            let attach: JSONValue = ["volumeAttachment": ["volumeId": .string(VolumeSwapTests.new)]]
            #expect(try await cloud.call("POST", "/v2.1/servers/\(id)/os-volume_attachments", attach).status == 400)
            try await cloud.engine().drain()
            #expect(try await attached(cloud, id) == [VolumeSwapTests.new])
        }
    }

    /// Members that cannot change may be sent back as they are.
    @Test func otherMembersOfAnAttachmentCannotChange() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            let path = "/v2.1/servers/\(id)/os-volume_attachments/\(Fixtures.volume)"
            let shown = try await cloud.call("GET", path, version: "2.89").json["volumeAttachment"]
            func put(_ name: String, _ value: JSONValue) async throws -> TestCloud.Answer {
                var body: JSONObject = ["volumeId": .string(Fixtures.volume), "delete_on_termination": true]
                body[name] = value
                return try await cloud.call("PUT", path, ["volumeAttachment": .object(body)], version: "2.89")
            }
            #expect(try await put("device", shown?["device"] ?? .null).status == 202)
            #expect(try await put("serverId", .string(id)).status == 202)
            for (name, value) in [
                ("device", "/dev/vdz"), ("serverId", .string(Fixtures.volume)), ("tag", "other"), ("id", .string(id)),
            ] as [(String, JSONValue)] {
                let answer = try await put(name, value)
                #expect(answer.status == 400 && answer.message.contains("volumeAttachment.\(name)"), "\(name): \(answer.json)")
            }
        }
    }

    /// After the order, only the host knows which volume the guest has, unless an operator declares the host down.
    @Test func afterTheOrderTheExchangeWaitsForTheHost() async throws {
        try await TestCloud.with { cloud in
            let id = try await server(cloud)
            let definition = try #require(cloud.module.workflows.first { $0.kind == "server.swap_volume" })
            #expect(try await swap(cloud, id).status == 202)
            // The host is lost when it has been ordered to.
            let lost = definition.mapping { step in
                guard step.name == "pivoted" else { return step }
                return WorkflowStep(
                    step.name, deadline: step.deadline,
                    run: { context in
                        cloud.cloud.silence("host-1")
                        return try await step.run(&context)
                    }, undo: step.undo)
            }
            await #expect(throws: ResourceError.self) { try await cloud.engine([lost]).drain(roundsMax: 300) }
            #expect(try await attached(cloud, id) == [Fixtures.volume])
            _ = try await cloud.database.write { try $0.execute("UPDATE compute_services SET forced_down = true WHERE host = 'host-1'") }
            try await cloud.engine().drain()
            #expect(try await attached(cloud, id) == [VolumeSwapTests.new])
            #expect(try await statuses(cloud) == ["available", "in-use"])
        }
    }

    /// Every step fails, runs twice, or its process dies: the server has one of the volumes, and the other one is free.
    @Test func underEveryDisturbance() async throws {
        try await TestCloud.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "server.swap_volume" })
            for variant in WorkflowChecks(definition).variants {
                let name = Comment(rawValue: variant.name)
                let id = try await server(cloud)
                #expect(try await swap(cloud, id).status == 202, name)
                try await cloud.engine([variant.definition]).drain()
                let volumes = try await attached(cloud, id)
                // Once the host has done what it was ordered to, the guest has the new volume.
                let isOrdered = ["pivoted", "exchange", "release"].contains { variant.name.hasPrefix($0) }
                #expect(volumes == [variant.succeeds || isOrdered ? VolumeSwapTests.new : Fixtures.volume], name)
                let isOld = volumes == [Fixtures.volume]
                #expect(try await statuses(cloud) == (isOld ? ["in-use", "available"] : ["available", "in-use"]), name)
                let left = try await cloud.database.read { connection in
                    try connection.query(
                        """
                        SELECT (SELECT count(*) FROM server_jobs) + (SELECT count(*) FROM server_volumes WHERE swap_volume_id IS NOT NULL)
                            AS n
                        """)[0].int("n")
                }
                #expect(left == 0, name)
                try await cloud.call("DELETE", "/v2.1/servers/\(id)")
                try await cloud.engine().drain()
                #expect(try await statuses(cloud) == ["available", "available"], name)
                #expect(try await cloud.leftovers() == [], name)
            }
        }
    }
}
