import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import IdentityService

extension IdentityCloud {
    /// Creates something as admin and returns it.
    func make(_ path: String, _ kind: String, _ value: JSONValue, token: String? = nil) async throws -> JSONValue {
        var admin = token
        if admin == nil { admin = try await self.admin() }
        let answer = try await call("POST", "/v3/\(path)", token: admin, body: [kind: value])
        try #require(answer.status == 201, "\(answer.json)")
        return try #require(answer.json[kind])
    }
}

extension JSONValue {
    var id: String { self["id"]?.stringValue ?? "" }

    func names(_ list: String) -> [String] { (self[list]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue } }
}

@Suite struct UserTests {
    @Test func lifeOfAUser() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let user = try await cloud.make(
                "users", "user",
                ["name": "u", "password": "p", "email": "u@x", "default_project_id": nil, "options": ["lock_password": nil]])
            #expect(user["email"] == "u@x")
            #expect(user["enabled"] == true)
            #expect(user["domain_id"] == "default")
            #expect(user["password"] == nil)
            #expect(user["password_expires_at"] == .null)
            #expect(user["links"]?["self"]?.stringValue == "http://cloud.example:5000/v3/users/\(user.id)")
            let changed = try await cloud.call(
                "PATCH", "/v3/users/\(user.id)", token: admin, body: ["user": ["email": nil, "phone": "1", "name": "u2"]])
            #expect(changed.status == 200)
            #expect(changed.json["user"]?["phone"] == "1")
            #expect(changed.json["user"]?["email"] == .null)
            let own = try await cloud.token("u2", scope: "unscoped", password: "p")
            #expect(try await cloud.call("GET", "/v3/users/\(user.id)", token: own).status == 200)
            #expect(try await cloud.call("PATCH", "/v3/users/\(user.id)", token: own, body: ["user": ["name": "x"]]).status == 403)
            #expect(try await cloud.call("DELETE", "/v3/users/\(user.id)", token: admin).status == 204)
            #expect(try await cloud.call("GET", "/v3/users/\(user.id)", token: admin).status == 404)
            let secrets = try await cloud.database.read {
                try $0.query("SELECT count(*) AS n FROM audit_records WHERE content::text LIKE '%$y$%'")[0].int("n")
            }
            #expect(secrets == 0)
        }
    }

    @Test func membersOfTheClientsAreShownUnderAnyName() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let user = try await cloud.make("users", "user", ["name": "u", "extra": ["a": 1]])
            #expect(user["extra"] == ["a": 1])
            #expect(try await cloud.call("GET", "/v3/users/\(user.id)", token: admin).json["user"]?["extra"] == ["a": 1])
            // Keystone has no selection of fields.
            let list = try await cloud.call("GET", "/v3/users?name=u&fields=name", token: admin).json["users"]
            #expect(list?.arrayValue?.first?.id == user.id)
            #expect(list?.arrayValue?.first?["extra"] == ["a": 1])
        }
    }

    @Test func usersHaveADescription() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let user = try await cloud.make("users", "user", ["name": "u", "description": "night shift"])
            #expect(user["description"] == "night shift")
            func patch(_ value: JSONValue) async throws -> JSONValue? {
                try await cloud.call("PATCH", "/v3/users/\(user.id)", token: admin, body: ["user": ["description": value]]).json["user"]
            }
            #expect(try await patch("day shift")?["description"] == "day shift")
            #expect(try await patch(nil)?["description"] == nil)
            let stored = try await cloud.database.read {
                try $0.query("SELECT extra::text AS extra FROM users WHERE id = \(user.id)")[0].string("extra")
            }
            #expect(stored == "{}")
        }
    }

    @Test func usersAreFilteredByPasswordExpiry() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let group = try await cloud.make("groups", "group", ["name": "g"])
            let users: [(String, String?)] = [("early", "2026-01-01T00:00:00Z"), ("late", "2026-03-01T12:30:00Z"), ("never", nil)]
            for (name, expiry) in users {
                let user = try await cloud.make("users", "user", ["name": .string(name)])
                try await cloud.database.write {
                    try $0.execute("UPDATE users SET password_expires_at = \(expiry)::timestamptz WHERE id = \(user.id)")
                }
                #expect(try await cloud.call("PUT", "/v3/groups/\(group.id)/users/\(user.id)", token: admin).status == 204)
            }
            let cases: [(String, [String])] = [
                ("lt:2026-03-01T12:30:00Z", ["early"]), ("lte:2026-03-01T12:30:00Z", ["early", "late"]),
                ("gt:2026-01-01T00:00:00Z", ["late"]), ("gte:2026-01-01T00:00:00Z", ["early", "late"]),
                ("eq:2026-03-01T12:30:00Z", ["late"]), ("neq:2026-03-01T12:30:00Z", ["early"]), ("2026-01-01T00:00:00Z", ["early"]),
                ("gt:2026-01-01T00:00:00Z&password_expires_at=lt:2026-02-01T00:00:00Z", []),
            ]
            for path in ["/v3/users", "/v3/groups/\(group.id)/users"] {
                for (value, names) in cases {
                    let list = try await cloud.call("GET", "\(path)?password_expires_at=\(value)", token: admin).json
                    #expect(list.names("users").sorted() == names, "\(path) \(value)")
                }
                for value in ["like:2026-01-01T00:00:00Z", "lt:soon", "soon", "lt:", ":2026-01-01T00:00:00Z", ""] {
                    let answer = try await cloud.call("GET", "\(path)?password_expires_at=\(value)", token: admin)
                    #expect(answer.status == 400, "\(path) \(value)")
                    #expect(answer.json["error"]?["message"]?.stringValue?.contains("password_expires_at") == true)
                }
            }
        }
    }

    @Test func theDocumentNamesTheFiltersOfLists() async throws {
        try await IdentityCloud.with { cloud in
            let paths = OpenAPI.document(cloud.api)["paths"]
            func parameters(_ path: String) -> [String] {
                (paths?[path]?["get"]?["parameters"]?.arrayValue ?? []).filter { $0["in"] == "query" }
                    .compactMap { $0["name"]?.stringValue }
            }
            for path in ["/v3/users", "/v3/groups/{group_id}/users"] {
                for name in ["password_expires_at", "name", "name__contains", "enabled", "limit", "marker", "sort_key"] {
                    #expect(parameters(path).contains(name), "\(path) \(name)")
                }
            }
            #expect(parameters("/v3/users/{user_id}") == [])
        }
    }

    /// Filters separate tags by commas, and a tag is a segment of a path.
    @Test func tagsThatFiltersCannotNameAreRefused() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let project = try await cloud.make("projects", "project", ["name": "p", "tags": ["b", "a"]])
            let path = "/v3/projects/\(project.id)"
            for tag in ["x,y", "x/y"] {
                let body: JSONValue = ["project": ["name": "q", "tags": [.string(tag)]]]
                #expect(try await cloud.call("POST", "/v3/projects", token: admin, body: body).status == 400)
                #expect(try await cloud.call("PATCH", path, token: admin, body: ["project": ["tags": [.string(tag)]]]).status == 400)
                #expect(try await cloud.call("PUT", path + "/tags", token: admin, body: ["tags": [.string(tag)]]).status == 400)
            }
            #expect(try await cloud.call("PUT", path + "/tags/x,y", token: admin).status == 400)
            #expect(try await cloud.call("GET", path + "/tags", token: admin).json["tags"] == ["a", "b"])
        }
    }

    @Test func tagsAreASortedSet() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let project = try await cloud.make("projects", "project", ["name": "p"])
            let path = "/v3/projects/\(project.id)/tags"
            func tags() async throws -> JSONValue? { try await cloud.call("GET", path, token: admin).json["tags"] }
            let put = try await cloud.call("PUT", path, token: admin, body: ["tags": ["é", "b", "Z", "b"]])
            #expect(put.status == 200)
            #expect(put.json["tags"] == ["Z", "b", "é"])
            #expect(put.json["links"]?["self"] != nil)
            #expect(try await tags() == ["Z", "b", "é"])
            for _ in 1...2 { #expect(try await cloud.call("PUT", path + "/a", token: admin).status == 201) }
            #expect(try await tags() == ["Z", "a", "b", "é"])
            #expect(try await cloud.call("GET", path + "/a", token: admin).status == 204)
            #expect(try await cloud.call("DELETE", path + "/a", token: admin).status == 204)
            for method in ["GET", "DELETE"] { #expect(try await cloud.call(method, path + "/a", token: admin).status == 404) }
            let most = JSONValue((1...80).map { "t\($0)" })
            #expect(try await cloud.call("PUT", path, token: admin, body: ["tags": most]).status == 200)
            #expect(try await cloud.call("PUT", path + "/t1", token: admin).status == 201)
            #expect(try await cloud.call("PUT", path + "/t81", token: admin).status == 400)
            #expect(try await cloud.call("DELETE", path, token: admin).status == 204)
            #expect(try await tags() == [])
        }
    }

    @Test func filtersAndPages() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            func names(_ query: String) async throws -> [String] {
                try await cloud.call("GET", "/v3/users?\(query)", token: admin).json.names("users").sorted()
            }
            #expect(try await names("name=demo") == ["demo"])
            #expect(try await names("name__contains=EM") == [])
            #expect(try await names("name__icontains=EM") == ["demo"])
            #expect(try await names("name__startswith=d") == ["demo", "domainer"])
            #expect(try await names("name__endswith=er") == ["domainer", "other", "viewer"])
            #expect(try await names("name__contains=%25") == [])
            #expect(try await names("enabled=false") == [])
            #expect(try await names("enabled=True").count == 6)
            #expect(try await names("domain_id=nowhere") == [])
            #expect(try await cloud.call("GET", "/v3/users?enabled=perhaps", token: admin).status == 400)
            #expect(try await cloud.call("GET", "/v3/users?limit=x", token: admin).status == 400)
            #expect(try await cloud.call("GET", "/v3/users?marker=nobody", token: admin).status == 400)
            var seen: [String] = []
            var next: String? = "/v3/users?limit=4"
            while let target = next {
                let page = try await cloud.call("GET", target, token: admin).json
                seen += page.names("users")
                next = page["links"]?["next"]?.stringValue.map { $0.replacing("http://cloud.example:5000", with: "") }
            }
            #expect(seen.count == 6 && Set(seen).count == 6)
        }
    }

    @Test(arguments: [
        ("POST", "users", "{\"user\": {}}", "name"), ("POST", "users", "{\"user\": {\"name\": \"\"}}", "name"),
        ("POST", "users", "{\"user\": {\"name\": 5}}", "name"), ("POST", "users", "{}", "user"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"enabled\": \"perhaps\"}}", "enabled"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"enabled\": \"True\"}}", "enabled"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"default_project_id\": \"nowhere\"}}", "user"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"options\": {\"fly\": true}}}", "fly"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"password\": 5}}", "password"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"description\": 5}}", "description"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"federated\": [{\"idp_id\": \"i\", \"protocols\": []}]}}", "federated"),
        ("POST", "users", "{\"user\": {\"name\": \"a\\u0000b\"}}", "name"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"password\": \"a\\u0000b\"}}", "password"),
        ("POST", "users", "{\"user\": {\"name\": \"x\", \"email\": \"a\\u0000b\"}}", "NUL"),
        ("POST", "projects", "{\"project\": {\"name\": \"x\", \"parent_id\": \"nowhere\"}}", "parent"),
        ("POST", "projects", "{\"project\": {\"name\": \"x\", \"tags\": \"t\"}}", "tags"),
        ("POST", "projects", "{\"project\": {\"name\": \"x\", \"is_domain\": true, \"domain_id\": \"default\"}}", "domain"),
        ("POST", "domains", "{\"domain\": {\"name\": \"x\", \"explicit_domain_id\": \"short\"}}", "explicit_domain_id"),
        ("POST", "groups", "{\"group\": {\"name\": \"x\", \"description\": 5}}", "description"),
        ("POST", "roles", "{\"role\": {\"name\": \"x\", \"domain_id\": \"nowhere\"}}", "domain"),
        ("POST", "services", "{\"service\": {\"name\": \"x\"}}", "type"),
        ("POST", "endpoints", "{\"endpoint\": {\"interface\": \"sideways\", \"service_id\": \"s\", \"url\": \"http://x\"}}", "interface"),
        ("POST", "endpoints", "{\"endpoint\": {\"interface\": \"public\", \"service_id\": \"s\", \"url\": \"http://x\"}}", "service"),
        ("POST", "endpoints", "{\"endpoint\": {\"interface\": \"public\", \"service_id\": \"s\", \"url\": \"ftp://x\"}}", "url"),
        ("POST", "endpoints", "{\"endpoint\": {\"interface\": \"public\", \"service_id\": \"s\", \"url\": \"http://x/$(rm)s\"}}", "url"),
        ("POST", "regions", "{\"region\": {\"id\": \"x\", \"parent_region_id\": \"nowhere\"}}", "region"),
        ("POST", "regions", "{\"region\": {\"id\": \"x\", \"parent_region_id\": \"x\"}}", "parent_region_id"),
        ("PATCH", "regions/RegionOne", "{\"region\": {\"parent_region_id\": \"RegionOne\"}}", "parent_region_id"),
        ("GET", "role_assignments?effective&group.id=x", "", "group"),
        ("GET", "projects?is_domain=x", "", "is_domain"),
    ])
    func badInputIsNamed(method: String, path: String, body: String, word: String) async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let response = await cloud.api.respond(
                to: try IncomingRequest(method, "/v3/\(path)", headers: ["x-auth-token": admin], body: Array(body.utf8)))
            #expect(response.status == 400)
            let message = try JSONValue.parse(response.bytes ?? [])["error"]?["message"]?.stringValue ?? ""
            #expect(message.contains(word), "\(message)")
        }
    }

    @Test(arguments: ["user", "group"])
    func aDomainThatIsNotThere(kind: String) async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let body: JSONValue = [kind: ["name": "x", "domain_id": "nowhere"]]
            #expect(try await cloud.call("POST", "/v3/\(kind)s", token: admin, body: body).status == 404)
        }
    }

    @Test func namesAreLimitedAndUnique() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            for (path, kind, limit) in [
                ("users", "user", 255), ("projects", "project", 64), ("domains", "domain", 64), ("groups", "group", 64),
                ("roles", "role", 255),
            ] {
                func create(_ name: String) async throws -> IdentityCloud.Answer {
                    try await cloud.call("POST", "/v3/\(path)", token: admin, body: [kind: ["name": .string(name)]])
                }
                let longest = String(repeating: "ü", count: limit)
                #expect(try await create(longest).status == 201)
                let second = try await create(longest)
                #expect(second.status == 409)
                #expect(second.message.contains("Duplicate"))
                #expect(try await create(longest + "x").status == 400)
            }
        }
    }
}

@Suite struct ProjectTests {
    @Test func hierarchy() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let top = try await cloud.make("projects", "project", ["name": "top", "tags": ["a", "b"]])
            #expect(top["tags"] == ["a", "b"])
            #expect(top["parent_id"] == "default")
            var parent = top.id
            for level in 2...5 {
                parent = try await cloud.make("projects", "project", ["name": .string("l\(level)"), "parent_id": .string(parent)]).id
            }
            let tooDeep = try await cloud.call(
                "POST", "/v3/projects", token: admin, body: ["project": ["name": "l6", "parent_id": .string(parent)]])
            #expect(tooDeep.status == 403)
            #expect(try await cloud.call("DELETE", "/v3/projects/\(top.id)", token: admin).status == 403)
            #expect(
                try await cloud.call("PATCH", "/v3/projects/\(top.id)", token: admin, body: ["project": ["enabled": false]]).status == 403)
            #expect(
                try await cloud.call("PATCH", "/v3/projects/\(parent)", token: admin, body: ["project": ["parent_id": "default"]]).status
                    == 403)
            #expect(
                try await cloud.call("PATCH", "/v3/projects/\(parent)", token: admin, body: ["project": ["enabled": false]]).status == 200)
            let below = try await cloud.call(
                "POST", "/v3/projects", token: admin, body: ["project": ["name": "x", "parent_id": .string(parent)]])
            #expect(below.status == 403)
            let children = try await cloud.call("GET", "/v3/projects?parent_id=\(top.id)", token: admin)
            #expect(children.json.names("projects") == ["l2"])
            #expect(try await cloud.call("GET", "/v3/projects?tags=a,b", token: admin).json.names("projects") == ["top"])
            #expect(try await cloud.call("GET", "/v3/projects?tags-any=b,c", token: admin).json.names("projects") == ["top"])
            #expect(try await cloud.call("GET", "/v3/projects?tags=a,c", token: admin).json.names("projects") == [])
        }
    }

    @Test func immutableResourcesCannotBeChanged() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let project = try await cloud.make("projects", "project", ["name": "fixed", "options": ["immutable": true]])
            let path = "/v3/projects/\(project.id)"
            #expect(try await cloud.call("PATCH", path, token: admin, body: ["project": ["name": "x"]]).status == 403)
            #expect(try await cloud.call("DELETE", path, token: admin).status == 403)
            #expect(try await cloud.call("PATCH", path, token: admin, body: ["project": ["options": ["immutable": nil]]]).status == 200)
            #expect(try await cloud.call("DELETE", path, token: admin).status == 204)
        }
    }

    @Test func aDomainIsAProjectToo() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let domain = try await cloud.make("domains", "domain", ["name": "d2", "description": "two"])
            let seen = try await cloud.call("GET", "/v3/projects/\(domain.id)", token: admin).json["project"]
            #expect(seen?["is_domain"] == true)
            #expect(seen?["domain_id"] == .null)
            #expect(!(try await cloud.call("GET", "/v3/projects", token: admin).json.names("projects").contains("d2")))
            #expect(try await cloud.call("GET", "/v3/projects?is_domain=1", token: admin).json.names("projects").contains("d2"))
            let inside = try await cloud.make("projects", "project", ["name": "in", "domain_id": .string(domain.id)])
            #expect(inside["parent_id"]?.stringValue == domain.id)
            // A domain's manager cannot change the domain itself, also not through its path as a project.
            let manager = try await cloud.token("domainer", scope: ["domain": ["id": "default"]])
            #expect(try await cloud.call("PATCH", "/v3/projects/default", token: manager, body: ["project": ["name": "x"]]).status == 403)
            #expect(try await cloud.call("DELETE", "/v3/projects/default", token: manager).status == 403)
            #expect(try await cloud.call("GET", "/v3/users?domain_id=\(domain.id)", token: manager).status == 403)
        }
    }

    /// After a deletion, nothing refers to the deleted resource any more.
    @Test func deletionsRemoveAllReferences() async throws {
        try await IdentityCloud.with { cloud in
            let admin = try await cloud.admin()
            let domain = try await cloud.make("domains", "domain", ["name": "gone"])
            let project = try await cloud.make("projects", "project", ["name": "p", "domain_id": .string(domain.id)])
            _ = try await cloud.make("projects", "project", ["name": "q", "parent_id": .string(project.id), "tags": ["t"]])
            let user = try await cloud.make(
                "users", "user", ["name": "u", "domain_id": .string(domain.id), "default_project_id": .string(project.id), "password": "p"])
            let group = try await cloud.make("groups", "group", ["name": "g", "domain_id": .string(domain.id)])
            let role = try await cloud.make("roles", "role", ["name": "r", "domain_id": .string(domain.id)])
            let member = try await cloud.id("roles", "member")
            for path in [
                "groups/\(group.id)/users/\(user.id)", "projects/\(project.id)/users/\(user.id)/roles/\(member)",
                "domains/\(domain.id)/groups/\(group.id)/roles/\(member)", "system/users/\(user.id)/roles/\(member)",
                "OS-INHERIT/domains/\(domain.id)/users/\(user.id)/roles/\(role.id)/inherited_to_projects",
            ] {
                #expect(try await cloud.call("PUT", "/v3/\(path)", token: admin).status == 204, "\(path)")
            }
            #expect(
                try await cloud.call("PATCH", "/v3/domains/\(domain.id)", token: admin, body: ["domain": ["enabled": false]]).status == 200)
            #expect(try await cloud.call("DELETE", "/v3/domains/\(domain.id)", token: admin).status == 204)
            let left = try await cloud.database.read { connection in
                try [
                    "SELECT count(*) AS n FROM users WHERE name = 'u'", "SELECT count(*) AS n FROM groups WHERE name = 'g'",
                    "SELECT count(*) AS n FROM projects WHERE name IN ('p', 'q', 'gone')", "SELECT count(*) AS n FROM project_tags",
                    "SELECT count(*) AS n FROM group_members", "SELECT count(*) AS n FROM roles WHERE name = 'r'",
                    "SELECT count(*) - 7 AS n FROM role_assignments",
                ].map { try connection.query(SQL(stringLiteral: $0))[0].int("n") }
            }
            #expect(left == [0, 0, 0, 0, 0, 0, 0])
        }
    }
}
