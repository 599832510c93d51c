import Authorization
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@Suite struct PlacementAPITests {
    private func provider(_ bench: PlacementBench, _ name: String, parent: String? = nil) async throws -> String {
        let creation = try await bench.call(
            "POST", "/resource_providers", body: ["name": .string(name), "parent_provider_uuid": JSONValue(parent)])
        #expect(creation.status == 200)
        return creation.json["uuid"]?.stringValue ?? ""
    }

    private func give(_ bench: PlacementBench, _ id: String, _ inventories: JSONValue, generation: Int = 0) async throws {
        let put = try await bench.call(
            "PUT", "/resource_providers/\(id)/inventories",
            body: ["resource_provider_generation": JSONValue(generation), "inventories": inventories])
        #expect(put.status == 200, "\(put.json)")
    }

    private func code(_ json: JSONValue) -> String? { json["errors"]?.arrayValue?.first?["code"]?.stringValue }
    private func detail(_ json: JSONValue) -> String { json["errors"]?.arrayValue?.first?["detail"]?.stringValue ?? "" }

    @Test func versionsAreFoundAndNegotiated() async throws {
        try await PlacementBench.with { bench in
            let root = try await bench.call("GET", "/", token: nil)
            #expect(root.json["versions"]?.arrayValue?.first?["max_version"] == "1.39")
            #expect(root.headers["openstack-api-version"] == "placement 1.39")
            let refused = try await bench.call("GET", "/", version: "1.99", token: nil)
            #expect(refused.status == 406)
            #expect(refused.json["errors"]?.arrayValue?.first?["max_version"] == "1.39")
            #expect(try await bench.call("GET", "/traits", version: "1.5").status == 404)
            #expect(try await bench.call("GET", "/resource_providers", token: "member").status == 403)
            #expect(try await bench.call("GET", "/resource_providers", token: nil).status == 401)
        }
    }

    @Test func providersLiveAndDie() async throws {
        try await PlacementBench.with { bench in
            let old = try await bench.call("POST", "/resource_providers", version: "1.0", body: ["name": "old"])
            #expect(old.status == 201)
            #expect(old.headers["location"]?.contains("/resource_providers/") == true)
            let root = try await provider(bench, "root")
            let child = try await provider(bench, "child", parent: root)
            let shown = try await bench.call("GET", "/resource_providers/\(child)")
            #expect(shown.json["root_provider_uuid"]?.stringValue == root)
            #expect(shown.json["links"]?.arrayValue?.count == 6)
            #expect(try await bench.call("GET", "/resource_providers/\(child)", version: "1.0").json["links"]?.arrayValue?.count == 3)
            let again = try await bench.call("POST", "/resource_providers", body: ["name": "root"])
            #expect(again.status == 409)
            #expect(code(again.json) == "placement.duplicate_name")
            #expect(try await bench.call("GET", "/resource_providers?in_tree=\(root)").json["resource_providers"]?.arrayValue?.count == 2)
            #expect(try await bench.call("GET", "/resource_providers?name=child").json["resource_providers"]?.arrayValue?.count == 1)
            let loop = try await bench.call(
                "PUT", "/resource_providers/\(root)", body: ["name": "root", "parent_provider_uuid": .string(child)])
            #expect(loop.status == 400)
            let renamed = try await bench.call(
                "PUT", "/resource_providers/\(child)", body: ["name": "renamed", "parent_provider_uuid": nil])
            #expect(renamed.json["name"] == "renamed")
            #expect(renamed.json["root_provider_uuid"]?.stringValue == child)
            #expect(
                try await bench.call("PUT", "/resource_providers/\(child)", body: ["name": "c", "parent_provider_uuid": .string(root)])
                    .status == 200)
            #expect(
                code(try await bench.call("DELETE", "/resource_providers/\(root)").json)
                    == "placement.resource_provider.cannot_delete_parent")
            #expect(try await bench.call("DELETE", "/resource_providers/\(child)").status == 204)
            #expect(try await bench.call("DELETE", "/resource_providers/\(root)").status == 204)
            #expect(try await bench.call("GET", "/resource_providers/\(root)").status == 404)
        }
    }

    @Test func inventoriesHaveGenerations() async throws {
        try await PlacementBench.with { bench in
            let id = try await provider(bench, "p")
            let path = "/resource_providers/\(id)/inventories"
            try await give(bench, id, ["VCPU": ["total": 8, "allocation_ratio": 2.0]])
            let late = try await bench.call("PUT", path, body: ["resource_provider_generation": 0, "inventories": [:]])
            #expect(late.status == 409)
            #expect(code(late.json) == "placement.concurrent_update")
            let shown = try await bench.call("GET", path)
            #expect(shown.json["resource_provider_generation"] == 1)
            #expect(shown.json["inventories"]?["VCPU"]?["max_unit"] == 2_147_483_647)
            #expect(shown.json["inventories"]?["VCPU"]?["allocation_ratio"]?.doubleValue == 2)
            let unknown = try await bench.call("PUT", path + "/NOPE", body: ["resource_provider_generation": 1, "total": 1])
            #expect(unknown.status == 400)
            let added = try await bench.call("POST", path, body: ["resource_class": "DISK_GB", "total": 10])
            #expect(added.status == 201)
            #expect(
                try await bench.call("PUT", path + "/DISK_GB", body: ["resource_provider_generation": 2, "total": 20]).json["total"] == 20)
            #expect(try await bench.call("DELETE", path + "/DISK_GB").status == 204)
            #expect(try await bench.call("GET", path + "/DISK_GB").status == 404)
            for (document, word) in [
                (["total": 0], "total"), (["total": "x"], "total"), ([:], "total"), (["total": 5, "reserved": 6], "reserved"),
                (["total": 5, "allocation_ratio": 0], "allocation_ratio"), (["total": 5, "min_unit": 3, "max_unit": 2], "min_unit"),
                (["total": 5, "colour": 1], "colour"), (["total": 9_999_999_999], "total"),
            ] as [(JSONValue, String)] {
                let bad = try await bench.call("PUT", path, body: ["resource_provider_generation": 4, "inventories": ["VCPU": document]])
                #expect(bad.status == 400)
                #expect(detail(bad.json).contains(word), "\(bad.json)")
            }
            let strange = try await bench.call(
                "PUT", path, body: ["resource_provider_generation": 4, "inventories": ["NO_CLASS": ["total": 1]]])
            #expect(strange.status == 400)
            #expect(try await bench.call("GET", path).json["resource_provider_generation"] == 4)
        }
    }

    @Test func allocationsAreExact() async throws {
        try await PlacementBench.with { bench in
            let id = try await provider(bench, "p")
            try await give(bench, id, ["VCPU": ["total": 4, "max_unit": 3], "MEMORY_MB": ["total": 100, "step_size": 10]])
            let consumer = SystemRandom().uuid().description
            func body(_ amounts: JSONValue, generation: JSONValue = nil) -> JSONValue {
                [
                    "allocations": [id: ["resources": amounts]].value, "project_id": "p1", "user_id": "u1",
                    "consumer_generation": generation, "consumer_type": "INSTANCE",
                ]
            }
            let path = "/allocations/\(consumer)"
            #expect(try await bench.call("PUT", path, body: body(["VCPU": 3, "MEMORY_MB": 20])).status == 204)
            let shown = try await bench.call("GET", path)
            #expect(shown.json["consumer_generation"] == 1)
            #expect(shown.json["allocations"]?[id]?["resources"] == ["VCPU": 3, "MEMORY_MB": 20])
            let stale = try await bench.call("PUT", path, body: body(["VCPU": 1]))
            #expect(stale.status == 409)
            #expect(code(stale.json) == "placement.concurrent_update")
            #expect(try await bench.call("PUT", path, body: body(["VCPU": 1], generation: 1)).status == 204)
            let other = "/allocations/\(SystemRandom().uuid())"
            for amounts in [["VCPU": 4], ["MEMORY_MB": 15], ["MEMORY_MB": 110], ["DISK_GB": 1]] as [JSONValue] {
                #expect(try await bench.call("PUT", other, body: body(amounts)).status == 409)
            }
            for amounts in [["VCPU": 0], ["VCPU": "x"], [:], ["NOPE": 1]] as [JSONValue] {
                #expect(try await bench.call("PUT", other, body: body(amounts)).status == 400, "\(amounts)")
            }
            #expect(try await bench.call("PUT", "/allocations/nonsense", body: body(["VCPU": 1])).status == 400)
            let missing: JSONValue = [
                "allocations": [SystemRandom().uuid().description: ["resources": ["VCPU": 1]]].value, "project_id": "p", "user_id": "u",
                "consumer_generation": nil, "consumer_type": "X",
            ]
            #expect(try await bench.call("PUT", other, body: missing).status == 400)
            #expect(try await bench.count("consumers") == 1)
            let usages = try await bench.call("GET", "/resource_providers/\(id)/usages")
            #expect(usages.json["usages"] == ["VCPU": 1, "MEMORY_MB": 0])
            #expect(code(try await bench.call("DELETE", "/resource_providers/\(id)/inventories").json) == "placement.inventory.inuse")
            #expect(code(try await bench.call("DELETE", "/resource_providers/\(id)").json) == "placement.resource_provider.inuse")
            let project = try await bench.call("GET", "/usages?project_id=p1", version: "1.9", token: "member")
            #expect(project.json["usages"] == ["VCPU": 1])
            #expect(try await bench.call("GET", "/usages?project_id=p1").json["usages"]?["INSTANCE"]?["consumer_count"] == 1)
            #expect(try await bench.call("GET", "/usages?project_id=p2", token: "member").status == 403)
            #expect(try await bench.call("GET", "/usages").status == 400)
            // Without allocations, the consumer is deleted.
            #expect(
                try await bench.call(
                    "PUT", path,
                    body: ["allocations": [:], "project_id": "p1", "user_id": "u1", "consumer_generation": 2, "consumer_type": "INSTANCE"]
                ).status == 204)
            #expect(try await bench.count("consumers") == 0)
        }
    }

    @Test func oldFormsOfAllocationsWork() async throws {
        try await PlacementBench.with { bench in
            let id = try await provider(bench, "p")
            try await give(bench, id, ["VCPU": ["total": 4]])
            let consumer = SystemRandom().uuid().description
            let list: JSONValue = ["allocations": [["resource_provider": ["uuid": .string(id)], "resources": ["VCPU": 2]]]]
            #expect(try await bench.call("PUT", "/allocations/\(consumer)", version: "1.0", body: list).status == 204)
            let shown = try await bench.call("GET", "/allocations/\(consumer)", version: "1.0")
            #expect(shown.json["project_id"] == nil)
            #expect(shown.json["allocations"]?[id]?["resources"]?["VCPU"] == 2)
            let two = SystemRandom().uuid().description
            let posted: JSONValue = [
                consumer: ["allocations": [:], "project_id": "p", "user_id": "u"],
                two: ["allocations": [id: ["resources": ["VCPU": 4]]].value, "project_id": "p", "user_id": "u"],
            ].value
            #expect(try await bench.call("POST", "/allocations", version: "1.13", body: posted).status == 204)
            let on = try await bench.call("GET", "/resource_providers/\(id)/allocations")
            #expect(on.json["allocations"]?[two]?["resources"]?["VCPU"] == 4)
            #expect(on.json["allocations"]?[consumer] == nil)
            #expect(try await bench.call("POST", "/reshaper", body: [:]).status == 501)
        }
    }

    @Test("S20: concurrent allocations stop at the capacity") func s20ConcurrentAllocationsStopAtTheCapacity() async throws {
        try await PlacementBench.with(connectionsMax: 12) { bench in
            let id = try await provider(bench, "p")
            try await give(bench, id, ["VCPU": ["total": 7]])
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for _ in 0..<20 {
                    group.addTask {
                        try await bench.call(
                            "PUT", "/allocations/\(SystemRandom().uuid())",
                            body: [
                                "allocations": [id: ["resources": ["VCPU": 1]]].value, "project_id": "p", "user_id": "u",
                                "consumer_generation": nil, "consumer_type": "X",
                            ]
                        ).status
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(statuses.filter { $0 == 204 }.count == 7)
            #expect(statuses.filter { $0 == 409 }.count == 13)
        }
    }

    @Test func namesAreStandardOrCustom() async throws {
        try await PlacementBench.with { bench in
            #expect(try await bench.call("PUT", "/traits/CUSTOM_FAST").status == 201)
            #expect(try await bench.call("PUT", "/traits/CUSTOM_FAST").status == 204)
            #expect(try await bench.call("PUT", "/traits/FAST").status == 400)
            #expect(try await bench.call("GET", "/traits/HW_CPU_X86_AVX").status == 204)
            #expect(try await bench.call("GET", "/traits/CUSTOM_SLOW").status == 404)
            #expect(try await bench.call("GET", "/traits?name=startswith:CUSTOM").json["traits"] == ["CUSTOM_FAST"])
            #expect(try await bench.call("GET", "/traits?name=FAST").status == 400)
            #expect(try await bench.call("DELETE", "/traits/HW_CPU_X86_AVX").status == 400)
            let id = try await provider(bench, "p")
            let put = try await bench.call(
                "PUT", "/resource_providers/\(id)/traits",
                body: ["resource_provider_generation": 0, "traits": ["CUSTOM_FAST", "HW_CPU_X86_AVX"]])
            #expect(put.json["traits"]?.arrayValue?.count == 2)
            #expect(
                try await bench.call("PUT", "/resource_providers/\(id)/traits", body: ["resource_provider_generation": 0, "traits": []])
                    .status == 409)
            #expect(
                try await bench.call(
                    "PUT", "/resource_providers/\(id)/traits", body: ["resource_provider_generation": 1, "traits": ["CUSTOM_NONE"]]
                ).status == 400)
            #expect(try await bench.call("DELETE", "/traits/CUSTOM_FAST").status == 409)
            #expect(
                try await bench.call("GET", "/resource_providers?required=HW_CPU_X86_AVX,!CUSTOM_FAST").json["resource_providers"] == [])
            #expect(try await bench.call("DELETE", "/resource_providers/\(id)/traits").status == 204)
            #expect(try await bench.call("DELETE", "/traits/CUSTOM_FAST").status == 204)
            #expect(try await bench.call("POST", "/resource_classes", body: ["name": "CUSTOM_GPU"]).status == 201)
            #expect(try await bench.call("PUT", "/resource_classes/CUSTOM_GPU").status == 204)
            #expect(try await bench.call("PUT", "/resource_classes/GPU").status == 400)
            #expect(try await bench.call("GET", "/resource_classes/VCPU").json["name"] == "VCPU")
            #expect(try await bench.call("DELETE", "/resource_classes/VCPU").status == 400)
            #expect(
                try await bench.call("PUT", "/resource_classes/CUSTOM_GPU", version: "1.2", body: ["name": "CUSTOM_CARD"]).json["name"]
                    == "CUSTOM_CARD")
            #expect(try await bench.call("DELETE", "/resource_classes/CUSTOM_CARD").status == 204)
        }
    }

    @Test func aggregatesAndCandidates() async throws {
        try await PlacementBench.with { bench in
            let aggregate = SystemRandom().uuid().description
            let one = try await provider(bench, "one")
            let two = try await provider(bench, "two")
            for id in [one, two] { try await give(bench, id, ["VCPU": ["total": 4], "MEMORY_MB": ["total": 100]]) }
            let put = try await bench.call(
                "PUT", "/resource_providers/\(one)/aggregates",
                body: ["resource_provider_generation": 1, "aggregates": [.string(aggregate)]])
            #expect(put.json["aggregates"] == [.string(aggregate)])
            #expect(put.json["resource_provider_generation"] == 2)
            func candidates(_ query: String, version: String = "1.39") async throws -> (Int, JSONValue) {
                let answer = try await bench.call("GET", "/allocation_candidates?\(query)", version: version)
                return (answer.status, answer.json)
            }
            let (_, both) = try await candidates("resources=VCPU:2,MEMORY_MB:10")
            #expect(both["allocation_requests"]?.arrayValue?.count == 2)
            #expect(both["provider_summaries"]?[one]?["resources"]?["VCPU"] == ["capacity": 4, "used": 0])
            #expect(try await candidates("resources=VCPU:2&limit=1").1["allocation_requests"]?.arrayValue?.count == 1)
            let (_, member) = try await candidates("resources=VCPU:2&member_of=\(aggregate)")
            #expect(member["allocation_requests"]?.arrayValue?.first?["mappings"]?[""] == [.string(one)])
            #expect(try await candidates("resources=VCPU:2&member_of=!\(aggregate)").1["provider_summaries"]?[one] == nil)
            #expect(try await candidates("resources=VCPU:2&in_tree=\(two)").1["allocation_requests"]?.arrayValue?.count == 1)
            #expect(try await candidates("resources=VCPU:5").1["allocation_requests"] == [])
            #expect(try await candidates("resources=VCPU:1&required=HW_CPU_X86_AVX").1["allocation_requests"] == [])
            let traits: JSONValue = ["resource_provider_generation": 2, "traits": ["HW_CPU_X86_AVX"]]
            #expect(try await bench.call("PUT", "/resource_providers/\(one)/traits", body: traits).status == 200)
            for (query, found) in [("HW_CPU_X86_AVX", one), ("!HW_CPU_X86_AVX", two)] {
                let (_, roots) = try await candidates("resources=VCPU:1&root_required=\(query)")
                #expect(roots["allocation_requests"]?.arrayValue?.map { $0["mappings"]?[""] } == [[.string(found)]], "\(query)")
            }
            #expect(try await candidates("resources=VCPU:1&root_required=HW_CPU_X86_AVX", version: "1.34").0 == 400)
            for bad in [
                "resources=VCPU:1&root_required=NOPE", "resources=VCPU:1&root_required=in:HW_CPU_X86_AVX",
                "resources=VCPU:1&root_required=HW_CPU_X86_AVX,!HW_CPU_X86_AVX", "", "resources=", "resources=VCPU", "resources=VCPU:0",
                "resources=NOPE:1", "resources1=VCPU:1", "resources=VCPU:1&limit=0",
                "resources=VCPU:1&member_of=x", "resources=VCPU:1&required=NOPE", "resources=VCPU:1&group_policy=none",
                "resources=VCPU:1&other=1", "resources=VCPU:1&resources=VCPU:2", "resources=VCPU:1&in_tree=x",
            ] {
                #expect(try await candidates(bad).0 == 400, "\(bad)")
            }
            let old = try await candidates("resources=VCPU:1", version: "1.10").1
            #expect(old["allocation_requests"]?.arrayValue?.first?["allocations"]?.arrayValue?.first?["resource_provider"] != nil)
        }
    }

    @Test func candidatesMaySpanATree() async throws {
        try await PlacementBench.with { bench in
            let root = try await provider(bench, "root")
            try await give(bench, root, ["VCPU": ["total": 4]])
            for name in ["gpu1", "gpu2"] {
                let child = try await provider(bench, name, parent: root)
                try await give(bench, child, ["VGPU": ["total": 1]])
            }
            let answer = try await bench.call("GET", "/allocation_candidates?resources=VCPU:1,VGPU:1").json
            let requests = answer["allocation_requests"]?.arrayValue ?? []
            #expect(requests.count == 2)
            #expect(requests.allSatisfy { $0["allocations"]?.objectValue?.count == 2 })
            #expect(answer["provider_summaries"]?.objectValue?.count == 3)
        }
    }

    @Test func everyRouteMakesItsDecision() async throws {
        try await PlacementBench.with { bench in
            let id = SystemRandom().uuid().description
            for route in bench.api.resources.flatMap(\.routes) where route.action != nil {
                let path = route.path.replacing("{uuid}", with: id).replacing("{consumer}", with: id)
                    .replacing("{name}", with: "CUSTOM_X").replacing("{class}", with: "VCPU")
                let version = (route.versions.through ?? Microversion(1, 39)).description
                for token in ["member", "reader", "unscoped"] {
                    let answer = try await bench.call(route.method.rawValue, path, version: version, token: token, body: [:])
                    #expect([400, 403].contains(answer.status), "\(route.method) \(path) \(answer.status)")
                }
                #expect(try await bench.call(route.method.rawValue, path, version: version, token: nil, body: [:]).status == 401)
            }
        }
    }
}

extension Dictionary where Key == String, Value == JSONValue {
    fileprivate var value: JSONValue { .object(JSONObject(map { ($0.key, $0.value) })) }
}
