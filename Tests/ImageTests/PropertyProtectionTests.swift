import ImageAccess
import ImageCore
import ImageService
import JSON
import Kernel
import Testing
import WebAPI

/// Properties that only some roles may see and change.
@Suite struct ImagePropertyProtectionTests {
    private static let file = """
        # Billing is for administrators.
        [^x_billing_]
        create = admin
        read = admin, member
        update = admin
        delete = !

        [^x_secret$]
        create = @
        read = admin
        update = @
        delete = @
        ; All others.
        [^(?!x_nobody)]
        create = @
        read = @
        update = @
        delete = @
        """

    @Test func sectionsDecideInTheirOrder() throws {
        let rules = try PropertyProtections(ImagePropertyProtectionTests.file)
        func allows(_ operation: PropertyProtections.Operation, _ name: String, _ role: String) -> Bool {
            rules.allow(operation, name) { $0 == role }
        }
        for (operation, name, role, isAllowed) in [
            (.create, "x_billing_code", "admin", true), (.create, "x_billing_code", "member", false),
            (.read, "x_billing_code", "member", true), (.read, "x_billing_code", "reader", false),
            (.delete, "x_billing_code", "admin", false), (.read, "x_secret", "member", false), (.create, "x_secret", "member", true),
            (.create, "my_x_billing_", "member", true), (.read, "x_nobody", "admin", false), (.create, "x_nobody", "admin", false),
            (.read, "os_glance_importing_to_stores", "reader", true),
        ] as [(PropertyProtections.Operation, String, String, Bool)] {
            #expect(allows(operation, name, role) == isAllowed, "\(operation) \(name) \(role)")
        }
    }

    @Test func filesWithErrorsAreRefused() {
        for (text, reason) in [
            ("[(]\ncreate = @", "line 1"), ("create = @", "line 1"), ("[a]\nwrite = @", "line 2"), ("[a]\ncreate", "line 2"),
            ("[a]\ncreate = @, !", "line 2"), ("[a]\ncreate = @\nread = @\nupdate = @", "delete"),
        ] {
            #expect(throws: PropertyProtections.Malformed.self, "\(text)") { try PropertyProtections(text) }
            do { _ = try PropertyProtections(text) } catch { #expect("\(error)".contains(reason), "\(error)") }
        }
    }

    private static func with(_ body: (ImageFixture) async throws -> Void) async throws {
        try await ImageFixture.with(limits: ImageServiceLimits(protections: try PropertyProtections(file)), body)
    }

    @Test("S11: protected properties are created, changed and removed only by their roles") func s11Changes() async throws {
        try await ImagePropertyProtectionTests.with { cloud in
            let body: JSONValue = ["name": "i", "disk_format": "raw", "container_format": "bare", "x_billing_code": "1"]
            #expect(try await cloud.call("POST", "/v2/images", json: body).status == 403)
            let id = try await cloud.create()
            func add(_ name: String, _ token: String) async throws -> Int {
                try await cloud.patch(id, [["op": "add", "path": .string("/" + name), "value": "1"]], token: token).status
            }
            #expect(try await add("x_billing_code", "member") == 403)
            #expect(try await add("x_nobody", "admin") == 403)
            #expect(try await add("other", "member") == 200)
            #expect(try await add("x_billing_code", "admin") == 200)
            let replace: JSONValue = [["op": "replace", "path": "/x_billing_code", "value": "2"]]
            #expect(try await cloud.patch(id, replace).status == 403)
            // Removing and adding in one request is a change.
            let swap: JSONValue = [["op": "remove", "path": "/x_billing_code"], ["op": "add", "path": "/x_billing_code", "value": "3"]]
            #expect(try await cloud.patch(id, swap).status == 403)
            #expect(try await cloud.patch(id, replace, token: "admin").status == 200)
            #expect(try await cloud.patch(id, [["op": "remove", "path": "/x_billing_code"]], token: "admin").status == 403)
            #expect(try await cloud.patch(id, [["op": "replace", "path": "/name", "value": "n"]]).status == 200)
            #expect(try await cloud.call("GET", "/v2/images/\(id)")["x_billing_code"] == "2")
        }
    }

    @Test("S11: protected properties are neither shown nor found by those who may not read them") func s11Reads() async throws {
        try await ImagePropertyProtectionTests.with { cloud in
            let creation = try await cloud.call("POST", "/v2/images", json: ["name": "i", "x_secret": "hidden", "other": "seen"])
            let id = creation["id"]?.stringValue ?? ""
            #expect(creation.status == 201 && creation["x_secret"] == nil && creation["other"] == "seen")
            for (token, isShown) in [("member", false), ("admin", true)] {
                let image = try await cloud.call("GET", "/v2/images/\(id)", token: token)
                #expect(image["x_secret"] == (isShown ? "hidden" : nil) && image["other"] == "seen" && image["name"] == "i")
                let list = try await cloud.call("GET", "/v2/images?visibility=all", token: token)
                #expect(list["images"]?.arrayValue?.first?["x_secret"] == (isShown ? "hidden" : nil) && list["first"] != nil)
                let filtered = try await cloud.call("GET", "/v2/images?visibility=all&x_secret=hidden", token: token)
                #expect(filtered.status == (isShown ? 200 : 403))
            }
            let patched = try await cloud.patch(id, [["op": "add", "path": "/more", "value": "1"]])
            #expect(patched.status == 200 && patched["x_secret"] == nil && patched["more"] == "1")
            for query in ["limit=1&sort=name:asc", "other=seen", "tag=x", "size_min=0", "os_hidden=false&status=queued&member_status=all"] {
                #expect(try await cloud.call("GET", "/v2/images?\(query)").status == 200, "\(query)")
            }
        }
    }
}
