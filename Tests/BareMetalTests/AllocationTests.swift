import BareMetalService
import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Claims on nodes by resource class and traits.
@Suite struct AllocationTests {
    /// Nodes that are available: two large ones, one of them with a trait and of the project p1.
    private static func with(_ body: (NodeFixture, _ plain: String, _ own: String) async throws -> Void) async throws {
        try await NodeFixture.with { cloud in
            let plain = try await cloud.enroll("plain", ["resource_class": "large"])
            let own = try await cloud.enroll("own", ["resource_class": "large", "owner": "p1"])
            #expect(try await cloud.call("PUT", "/v1/nodes/own/traits/CUSTOM_FAST").status == 204)
            for id in [plain, own] {
                for target in ["manage", "provide"] {
                    #expect(try await cloud.provision(id, target).status == 202)
                    try await cloud.settle()
                }
            }
            try await body(cloud, plain, own)
        }
    }

    private static func claim(
        _ cloud: NodeFixture, _ body: JSONObject, as token: String = "admin", version: String = "1.96"
    ) async throws -> NodeFixture.Answer {
        try await cloud.call("POST", "/v1/allocations", .object(body), as: token, version: version)
    }

    @Test func aNodeIsClaimedUsedAndFreed() async throws {
        try await AllocationTests.with { (cloud, plain, own) async throws in
            let creation = try await AllocationTests.claim(
                cloud, ["name": "a", "resource_class": "large", "traits": ["CUSTOM_FAST"], "extra": ["k": 1]])
            #expect(
                creation.status == 201 && creation.json["state"] == "active" && creation.json["node_uuid"] == .string(own),
                "\(creation.json)")
            let id = try #require(creation.json["uuid"]?.stringValue)
            #expect(creation.headers["location"]?.hasSuffix("/v1/allocations/\(id)") == true)
            let node = try await cloud.node(own)
            #expect(node["instance_uuid"] == .string(id) && node["allocation_uuid"] == .string(id))
            #expect(try await cloud.call("GET", "/v1/nodes/own/allocation").json["name"] == "a")
            #expect(try await cloud.call("GET", "/v1/nodes/plain/allocation").status == 404)
            #expect(try await cloud.call("GET", "/v1/allocations?node=own").json["allocations"]?.arrayValue?.count == 1)
            #expect(try await cloud.call("GET", "/v1/allocations?state=error").json["allocations"] == [])
            // Nobody else gets it, and the other one has no such trait.
            let second = try await AllocationTests.claim(cloud, ["resource_class": "large", "traits": ["CUSTOM_FAST"]])
            #expect(second.json["state"] == "error" && second.json["node_uuid"] == .null, "\(second.json)")
            #expect(second.json["last_error"]?.stringValue?.contains("CUSTOM_FAST") == true)
            let third = try await AllocationTests.claim(cloud, ["resource_class": "large", "candidate_nodes": ["own"]])
            #expect(third.json["last_error"]?.stringValue?.hasPrefix("none of the requested nodes") == true, "\(third.json)")
            // An active node keeps its claim; with its instance the claim goes.
            #expect(try await cloud.provision(own, "active").status == 202)
            try await cloud.settle()
            #expect(try await cloud.call("DELETE", "/v1/allocations/a").status == 409)
            #expect(try await cloud.provision(own, "deleted").status == 202)
            try await cloud.settle()
            #expect(try await cloud.call("GET", "/v1/allocations/a").status == 404)
            #expect(try await cloud.node(own)["instance_uuid"] == .null)
            _ = plain
        }
    }

    @Test func aClaimIsFreedByHandOrWithTheInstance() async throws {
        try await AllocationTests.with { (cloud, _, own) async throws in
            let body: JSONObject = ["name": "b", "resource_class": "large", "candidate_nodes": ["own"]]
            for path in ["/v1/allocations/b", "/v1/nodes/own/allocation"] {
                let creation = try await AllocationTests.claim(cloud, body)
                let removed = try await cloud.call("DELETE", path)
                let node = try await cloud.node(own)
                #expect(creation.json["state"] == "active" && removed.status == 204 && node["instance_uuid"] == .null, "\(path)")
            }
            #expect(try await AllocationTests.claim(cloud, body).json["state"] == "active")
            #expect(try await cloud.patch("own", "remove", "/instance_uuid").status == 200)
            #expect(try await cloud.call("GET", "/v1/allocations/b").status == 404)
        }
    }

    @Test func namesAndExtraDataChange() async throws {
        try await AllocationTests.with { (cloud, _, _) async throws in
            #expect(try await AllocationTests.claim(cloud, ["name": "a", "resource_class": "large"]).status == 201)
            #expect(try await AllocationTests.claim(cloud, ["name": "b", "resource_class": "none"]).status == 201)
            func patch(_ path: String, _ value: JSONValue) async throws -> Int {
                try await cloud.call("PATCH", "/v1/allocations/b", [["op": "replace", "path": .string(path), "value": value]]).status
            }
            #expect(try await patch("/name", "a") == 409)
            #expect(try await patch("/name", "a b") == 400)
            #expect(try await patch("/resource_class", "large") == 400)
            #expect(try await patch("/extra", ["x": 1]) == 200)
            #expect(try await patch("/name", "c") == 200)
            #expect(try await cloud.call("GET", "/v1/allocations/c").json["extra"] == ["x": 1])
            #expect(try await cloud.call("GET", "/v1/allocations/c?fields=name").json == ["name": "c"])
        }
    }

    @Test func anActiveNodeGetsAClaimAfterwards() async throws {
        try await AllocationTests.with { (cloud, plain, own) async throws in
            #expect(try await AllocationTests.claim(cloud, ["node": "plain"]).status == 409)
            #expect(try await cloud.provision(plain, "active").status == 202)
            try await cloud.settle()
            #expect(try await AllocationTests.claim(cloud, ["node": "plain", "resource_class": "small"]).status == 409)
            #expect(try await AllocationTests.claim(cloud, ["node": "plain"], version: "1.57").status == 400)
            let creation = try await AllocationTests.claim(cloud, ["node": "plain", "name": "late"])
            #expect(creation.status == 201 && creation.json["resource_class"] == "large" && creation.json["node_uuid"] == .string(plain))
            #expect(try await cloud.node(plain)["instance_uuid"] == creation.json["uuid"])
            _ = own
        }
    }

    @Test("S4: projects claim their own nodes for themselves, and see no other claims")
    func s4ProjectsClaimTheirOwn() async throws {
        try await AllocationTests.with { (cloud, _, own) async throws in
            let creation = try await AllocationTests.claim(cloud, ["name": "mine", "resource_class": "large"], as: "member")
            #expect(creation.json["node_uuid"] == .string(own) && creation.json["owner"] == "p1", "\(creation.json)")
            let none = try await AllocationTests.claim(cloud, ["resource_class": "large"], as: "member")
            #expect(none.json["state"] == "error", "the node without an owner is nobody's: \(none.json)")
            #expect(try await AllocationTests.claim(cloud, ["resource_class": "large", "owner": "p2"], as: "member").status == 403)
            #expect(
                try await AllocationTests.claim(cloud, ["resource_class": "large", "candidate_nodes": ["plain"]], as: "member").status
                    == 400)
            #expect(try await AllocationTests.claim(cloud, ["resource_class": "large"], as: "reader").status == 403)
            #expect(try await AllocationTests.claim(cloud, ["name": "theirs", "resource_class": "x", "owner": "p2"]).status == 201)
            #expect(try await cloud.call("GET", "/v1/allocations/theirs", as: "member").status == 404)
            #expect(try await cloud.call("DELETE", "/v1/allocations/theirs", as: "member").status == 404)
            #expect(try await cloud.call("GET", "/v1/allocations", as: "member").json["allocations"]?.arrayValue?.count == 2)
        }
    }

    @Test("S20: claims at the same time never share a node")
    func s20ClaimsDoNotShareANode() async throws {
        try await AllocationTests.with { (cloud, plain, own) async throws in
            let nodes = try await withThrowingTaskGroup(of: JSONValue.self) { group in
                for _ in 0..<8 {
                    group.addTask { try await AllocationTests.claim(cloud, ["resource_class": "large"]).json["node_uuid"] ?? "absent" }
                }
                return try await group.reduce(into: [JSONValue]()) { $0.append($1) }
            }
            #expect(nodes.count { $0 == .string(plain) } == 1 && nodes.count { $0 == .string(own) } == 1, "\(nodes)")
            #expect(nodes.count { $0 == .null } == 6)
        }
    }

    @Test func whatCannotBeClaimedIsRefused() async throws {
        try await AllocationTests.with { (cloud, _, _) async throws in
            let refused: [JSONObject] = [
                [:], ["resource_class": ""], ["resource_class": "large", "name": "a b"], ["resource_class": "large", "traits": ["custom"]],
                ["resource_class": "large", "candidate_nodes": ["absent"]], ["node": "absent"],
                ["resource_class": "large", "state": "active"],
                ["resource_class": "large", "uuid": "x"],
            ]
            for body in refused {
                let answer = try await AllocationTests.claim(cloud, body)
                #expect(answer.status == 400, "\(body): \(answer.json)")
            }
            #expect(try await cloud.call("GET", "/v1/allocations").json["allocations"] == [])
        }
    }
}
