import JSON
import Kernel
import TestKit
import Testing
import WebAPI

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
                    description, .init("secret", "s3cret-of-test", isSecret: true), .init("unrestricted", true),
                    .init("expires_at", "2099-01-31T00:00:00.000000Z", showing: "2099-01-31T00:00:00.000000"),
                ],
                refused: [.init("roles", [["name": "absent"]]), .init("project_id", "absent")],
                elsewhere: ["access_rules": "DelegationTests"], refusals: ["absent", "ole"]),
        ]
    }

    /// The members with which a resource is changed.
    private static func changes(project: String, user: String, service: String, region: String) -> [RequestMembers] {
        let common: [RequestMembers.Member] = [.init("description", "d"), .init("colour", "red")]
        let elsewhere = JSONValue.string("0123456789abcdef0123456789abcdef")
        return [
            RequestMembers(
                "/v3/projects", "project", change: .patch, base: ["name": "cp#"],
                seen: common + [
                    .init("name", "cq#"), .init("enabled", false), .init("tags", ["t"]), .init("options", ["immutable": true]),
                    .init("cloud_project", true),
                ],
                refused: [
                    .init("options", ["other": true]), .init("parent_id", elsewhere), .init("domain_id", elsewhere),
                    .init("is_domain", true), .init("id", elsewhere),
                ]),
            RequestMembers(
                "/v3/domains", "domain", change: .patch, base: ["name": "cd#", "enabled": false],
                seen: common + [.init("name", "ce#"), .init("enabled", false), .init("tags", ["t"])],
                refused: [.init("options", ["other": true]), .init("id", elsewhere), .init("explicit_domain_id", elsewhere)],
                elsewhere: ["options": "ResourceTests"]),
            RequestMembers(
                "/v3/users", "user", change: .patch, base: ["name": "cu#"],
                seen: common + [
                    .init("name", "cv#"), .init("enabled", false), .init("default_project_id", .string(project)),
                    .init("options", ["lock_password": true]),
                ], refused: [.init("options", ["other": true]), .init("domain_id", elsewhere), .init("id", elsewhere)],
                elsewhere: ["password": "TokenTests"]),
            RequestMembers(
                "/v3/groups", "group", change: .patch, base: ["name": "cg#"], seen: common + [.init("name", "ch#")],
                refused: [.init("domain_id", elsewhere), .init("id", elsewhere)]),
            RequestMembers(
                "/v3/roles", "role", change: .patch, base: ["name": "cr#"], seen: common + [.init("name", "cs#")],
                refused: [.init("options", ["other": true]), .init("domain_id", elsewhere), .init("id", elsewhere)],
                elsewhere: ["options": "ResourceTests"]),
            RequestMembers(
                "/v3/regions", "region", change: .patch,
                seen: [.init("description", "d"), .init("parent_region_id", .string(region))],
                refused: [.init("id", "x"), .init("parent_region_id", "absent")]),
            RequestMembers(
                "/v3/services", "service", change: .patch, base: ["type": "ct#"],
                seen: [.init("type", "cu#"), .init("name", "n"), .init("description", "d"), .init("enabled", false)]),
            RequestMembers(
                "/v3/endpoints", "endpoint", change: .patch,
                base: ["service_id": .string(service), "url": "http://e.example", "interface": "public"],
                seen: [
                    .init("enabled", false), .init("url", "http://f.example"), .init("interface", "internal"),
                    .init("region", .string(region)), .init("region_id", .string(region)), .init("service_id", .string(service)),
                ],
                refused: [.init("region_id", "absent")], refusals: ["find region: absent"]),
            RequestMembers(
                "/v3/credentials", "credential", change: .patch, base: ["type": "t", "blob": "c#", "user_id": .string(user)],
                seen: [
                    .init("project_id", .string(project)), .init("blob", "s3cret-blob-#", isSecret: true), .init("type", "t2"),
                    .init("user_id", .string(user)),
                ],
                refused: [.init("user_id", elsewhere), .init("id", elsewhere)]),
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
            let changes = IdentityRequestMemberTests.changes(project: project, user: user, service: service, region: region)
            for kind in kinds + changes {
                let findings = try await kind.findings(cloud.api, cloud.database) { method, path, body in
                    let answer = try await cloud.call(method, path, token: admin, body: body)
                    return (answer.status, answer.json)
                }
                #expect(findings == [])
            }
        }
    }
}
