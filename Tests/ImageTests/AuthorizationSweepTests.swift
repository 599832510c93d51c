import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route of the Image API, for callers without access.
@Suite struct ImageAuthorizationSweepTests {
    /// A private image of the project p1 with data, a tag, and a member other than the foreigner.
    private static func with(_ body: (RouteSweep) async throws -> Void) async throws {
        try await ImageFixture.with { cloud in
            let id = try await cloud.create(["name": "i", "disk_format": "raw", "container_format": "bare", "visibility": "shared"])
            #expect(try await cloud.upload(id, Array(repeating: 1, count: 1024)).status == 204)
            #expect(try await cloud.call("PUT", "/v2/images/\(id)/tags/t1").status == 204)
            #expect(try await cloud.call("POST", "/v2/images/\(id)/members", json: ["member": "p3"]).status == 200)
            #expect(try await cloud.call("POST", "/v2/metadefs/namespaces", token: "admin", json: namespace).status == 201)
            // A staged image of p1 that the sweep imports, and a task of an earlier import.
            let imported = try await cloud.create(["name": "s", "disk_format": "raw", "container_format": "bare", "visibility": "shared"])
            #expect(try await cloud.stage(imported, [1, 2, 3]).status == 204)
            #expect(try await cloud.beginImport(imported).status == 202)
            try await cloud.settle()
            let task = try await cloud.task(imported)["id"]?.stringValue ?? ""
            let staged = try await cloud.create(["name": "s", "disk_format": "raw", "container_format": "bare", "visibility": "shared"])
            #expect(try await cloud.stage(staged, [1, 2, 3]).status == 204)
            let stagedImage = "/v2/images/{image_id}/import image_id"
            let tag = "/v2/metadefs/namespaces/{namespace}/tags/{tag} tag"
            try await body(
                RouteSweep(
                    cloud.api, database: cloud.database,
                    parameters: [
                        "image_id": id, "member_id": "p3", "tag": "t1", "schema": "image", "namespace": "n1", "task_id": task, tag: "g1",
                        "object": "o1", "property": "p1", "resource_type": "OS::Glance::Image", stagedImage: staged, "store_id": "file",
                    ],
                    bodies: [
                        "POST /v2/images/{image_id}/import": ["method": ["name": "glance-direct"]],
                        "POST /v2/tasks": [
                            "type": "import",
                            "input": [
                                "import_from": "http://example.com/x", "import_from_format": "raw", "image_properties": ["name": "t"],
                            ],
                        ],
                    ],
                    headers: [("Content-Type", "application/openstack-images-v2.1-json-patch")]))
        }
    }

    /// A private namespace of p1, with a part of each kind.
    private static let namespace: JSONValue = [
        "namespace": "n1", "owner": "p1", "objects": [["name": "o1"]], "properties": ["p1": ["title": "P", "type": "string"]],
        "tags": [["name": "g1"]], "resource_type_associations": [["name": "OS::Glance::Image"]],
    ]

    private var duties: RouteSweep.Duties {
        RouteSweep.Duties()
    }

    @Test func aKeyGivesOneEffect() async throws {
        try await ImageAuthorizationSweepTests.with { sweep in
            let findings = try await sweep.repeated(
                "admin",
                except: [
                    "POST /v2/metadefs/namespaces/{namespace}/tags/{tag}": "the tag exists",
                    "POST /v2/cache/clean": "there is no cache", "POST /v2/cache/prune": "there is no cache",
                ])
            #expect(findings == [])
        }
    }

    @Test("S4 S6 S10 S11: requirements of every service", arguments: RouteSweep.Duty.allCases)
    func s10EveryServiceOwes(_ duty: RouteSweep.Duty) async throws {
        try await ImageAuthorizationSweepTests.with { sweep in
            let findings = try await sweep.findings(duty, duties)
            #expect(findings == [])
        }
    }

    @Test("S10: a service acting for a tenant cannot read images of other projects") func s10ForeignImages() async throws {
        try await ImageFixture.with { cloud in
            func read(_ image: String, _ subject: ActingSubject) async throws -> Int {
                try await cloud.call("GET", "/v2/images/\(image)/file", token: "service", headers: subject.headers).status
            }
            var images: [String: String] = [:]
            for visibility in ["private", "shared", "community"] {
                let id = try await cloud.create(
                    ["name": "i", "disk_format": "raw", "container_format": "bare", "visibility": .string(visibility)], token: "other")
                #expect(try await cloud.upload(id, [1, 2, 3], token: "other").status == 204)
                images[visibility] = id
            }
            let member = ActingSubject.accepted(project: "p1", user: "u1")
            #expect(try await read(images["private"] ?? "", member) == 404)
            #expect(try await read(images["shared"] ?? "", member) == 404)
            #expect(try await read(images["community"] ?? "", member) == 200)
            #expect(try await read(images["private"] ?? "", .accepted(project: "p2", user: "u3")) == 200)
            #expect(try await read(images["private"] ?? "", ActingSubject(project: "admin", user: "admin", grounds: .user)) == 200)
            let alone = try await cloud.call("GET", "/v2/images/\(images["community"] ?? "")/file", token: "service").status
            #expect(alone == 404)
        }
    }
}
