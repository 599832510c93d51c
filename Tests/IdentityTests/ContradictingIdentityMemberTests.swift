import JSON
import TestKit
import Testing

/// Members that contradict the path or each other, and parameters that Keystone has and this cloud does not.
@Suite struct ContradictingIdentityMemberTests {
    @Test func theyAreRefused() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let service = try await cloud.make("services", "service", ["type": "members"])["id"]?.stringValue ?? ""
            for region in ["one", "two"] { _ = try await cloud.make("regions", "region", ["id": .string(region)]) }
            let me = try await cloud.call("GET", "/v3/auth/tokens", token: admin, headers: [("x-subject-token", admin)])
            let user = me.json["token"]?["user"]?["id"]?.stringValue ?? ""
            let project = me.json["token"]?["project"]?["id"]?.stringValue ?? ""
            let requests: [(String, String, JSONValue?, String)] = [
                ("PUT", "/v3/regions/three", ["region": ["id": "four"]], "region.id"),
                ("PATCH", "/v3/regions/one", ["region": ["id": "two"]], "region.id"),
                ("PATCH", "/v3/services/\(service)", ["service": ["id": "two"]], "service.id"),
                (
                    "POST", "/v3/endpoints",
                    [
                        "endpoint": [
                            "service_id": .string(service), "url": "http://e.example", "interface": "public", "region_id": "one",
                            "region": "two",
                        ]
                    ], "endpoint.region"
                ),
                (
                    "POST", "/v3/users/\(user)/password", ["user": ["password": "a", "original_password": "b", "colour": "red"]], "colour"
                ),
                (
                    "POST", "/v3/users/\(user)/application_credentials",
                    ["application_credential": ["name": "n", "roles": [["name": "member", "domain": ["id": "default"]]]]], "domain"
                ),
                ("GET", "/v3/projects/\(project)?parents_as_list", nil, "parents_as_list"),
                ("GET", "/v3/projects/\(project)?include_limits", nil, "include_limits"),
            ]
            for (method, path, body, name) in requests {
                let answer = try await cloud.call(method, path, token: admin, body: body)
                #expect(
                    answer.status == 400 && answer.json.description.contains(name), "\(method) \(path): \(answer.status) \(answer.json)")
            }
            #expect(try await cloud.call("GET", "/v3/regions/three", token: admin).status == 404)
            let same = try await cloud.call("PATCH", "/v3/regions/one", token: admin, body: ["region": ["id": "one", "description": "d"]])
            #expect(same.status == 200, "\(same.json)")
        }
    }
}
