import JSON
import Kernel
import TestKit
import Testing

/// Every member of a request has a visible effect or is refused by name.
@Suite struct IdentityRequestMemberTests {
    private static func kinds(domain: String, project: String, user: String, service: String, region: String) -> [RequestMembers] {
        let domain = JSONValue.string(domain)
        let description = RequestMembers.Member("description", "d")
        // As in Keystone, other members are kept with the resource.
        let additional = RequestMembers.Member("colour", "red")
        return [
            RequestMembers(
                "/v3/projects", "project", base: ["name": "p#"],
                seen: [
                    .init("domain_id", domain), .init("enabled", false), description, additional, .init("tags", ["t"]),
                    .init("options", ["immutable": true]), .init("parent_id", .string(project)), .init("is_domain", true),
                    .init("cloud_project", true),
                ], refused: [.init("options", ["other": true]), .init("parent_id", "absent"), .init("enabled", "x")], refusals: ["parent"]),
            RequestMembers(
                "/v3/domains", "domain", base: ["name": "d#"],
                seen: [
                    .init("enabled", false), description, additional, .init("tags", ["t"]), .init("options", ["immutable": true]),
                    .init("explicit_domain_id", "0123456789abcdef0123456789abcdef", shownAs: "id"),
                ], refused: [.init("options", ["other": true])]),
            RequestMembers(
                "/v3/users", "user", base: ["name": "u#"],
                seen: [
                    .init("domain_id", domain), .init("enabled", false), description, additional,
                    .init("default_project_id", .string(project)), .init("options", ["lock_password": true]),
                ], refused: [.init("options", ["other": true])], elsewhere: ["password": "TokenTests"]),
            RequestMembers("/v3/groups", "group", base: ["name": "g#"], seen: [.init("domain_id", domain), description, additional]),
            RequestMembers(
                "/v3/roles", "role", base: ["name": "r#"],
                seen: [.init("domain_id", domain), description, additional, .init("options", ["immutable": true])],
                refused: [.init("options", ["other": true])]),
            RequestMembers(
                "/v3/regions", "region", seen: [.init("id", "r1"), description, .init("parent_region_id", .string(region))],
                refused: [.init("parent_region_id", "absent")]),
            RequestMembers(
                "/v3/services", "service", base: ["type": "t#"], seen: [.init("name", "n"), description, .init("enabled", false)]),
            RequestMembers(
                "/v3/endpoints", "endpoint", base: ["service_id": .string(service), "url": "http://e.example", "interface": "public"],
                seen: [.init("enabled", false), .init("region", .string(region)), .init("region_id", .string(region))],
                refused: [.init("region_id", "absent"), .init("service_id", "absent")],
                refusals: ["find region: absent", "find service: absent"]),
            RequestMembers(
                "/v3/credentials", "credential", base: ["type": "t", "blob": "b#", "user_id": .string(user)],
                seen: [.init("project_id", .string(project))]),
            RequestMembers(
                "/v3/users/\(user)/application_credentials", "application_credential",
                template: "/v3/users/{user_id}/application_credentials", base: ["name": "a#"],
                seen: [
                    description, .init("secret", "s3cret-of-test"), .init("unrestricted", true),
                    .init("expires_at", "2099-01-31T00:00:00.000000Z", showing: "2099-01-31T00:00:00.000000"),
                ],
                refused: [.init("roles", [["name": "absent"]]), .init("project_id", "absent")],
                elsewhere: ["access_rules": "DelegationTests"], refusals: ["absent", "ole"]),
        ]
    }

    @Test func membersAreSeenOrRefused() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let me = try await cloud.call("GET", "/v3/auth/tokens", token: admin, headers: [("x-subject-token", admin)])
            let user = try #require(me.json["token"]?["user"]?["id"]?.stringValue, "\(me.json)")
            let project = try #require(me.json["token"]?["project"]?["id"]?.stringValue, "\(me.json)")
            let domain = try await cloud.make("domains", "domain", ["name": "members"])["id"]?.stringValue ?? ""
            let service = try await cloud.make("services", "service", ["type": "members"])["id"]?.stringValue ?? ""
            let region = try await cloud.make("regions", "region", ["id": "members"])["id"]?.stringValue ?? ""
            let kinds = IdentityRequestMemberTests.kinds(domain: domain, project: project, user: user, service: service, region: region)
            for kind in kinds {
                let findings = try await kind.findings(cloud.api) { method, path, body in
                    let answer = try await cloud.call(method, path, token: admin, body: body)
                    return (answer.status, answer.json)
                }
                #expect(findings == [])
            }
        }
    }
}
