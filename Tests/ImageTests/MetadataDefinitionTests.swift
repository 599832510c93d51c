import Database
import GuestKeys
import ImageCore
import ImageService
import JSON
import Kernel
import Telemetry
import TestKit
import Testing
import WebAPI

/// Metadata definitions, as Glance's clients use them.
@Suite struct MetadataDefinitionTests {
    private static let path = "/v2/metadefs/namespaces"

    private func create(
        _ cloud: ImageFixture, _ name: String = "N", _ more: JSONObject = [:], token: String = "admin"
    ) async throws -> ImageFixture.Answer {
        var body: JSONObject = ["namespace": .string(name)]
        for member in more.members { body[member.name] = member.value }
        return try await cloud.call("POST", MetadataDefinitionTests.path, token: token, json: .object(body))
    }

    private static let whole: JSONObject = [
        "display_name": "D", "description": "x", "visibility": "public",
        "resource_type_associations": [["name": "OS::Nova::Flavor", "prefix": "hw:"], ["name": "Own::Type"]],
        "objects": [["name": "o", "required": ["a"], "properties": ["a": ["title": "A", "type": "string"]]]],
        "properties": ["z": ["title": "Z", "type": "integer", "minimum": 1], "b": ["title": "B", "type": "string", "enum": ["x", "y"]]],
        "tags": [["name": "t2"], ["name": "t1"]],
    ]

    @Test func aNamespaceIsCreatedWithItsParts() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            let creation = try await create(cloud, "A::B", MetadataDefinitionTests.whole)
            #expect(creation.status == 201, "\(creation.json)")
            #expect(creation.headers["location"]?.hasSuffix("/v2/metadefs/namespaces/A%3A%3AB") == true)
            let shown = try await cloud.call("GET", "\(MetadataDefinitionTests.path)/A::B")
            #expect(shown.json == creation.json)
            #expect(shown["owner"] == "admin" && shown["protected"] == false && shown["visibility"] == "public")
            #expect(shown["self"] == "/v2/metadefs/namespaces/A::B" && shown["schema"] == "/v2/schemas/metadefs/namespace")
            #expect(shown["tags"] == [["name": "t2"], ["name": "t1"]])
            #expect(shown["properties"]?["z"] == ["type": "integer", "title": "Z", "minimum": 1])
            #expect(shown["objects"]?.arrayValue?.first?["self"] == "/v2/metadefs/namespaces/A::B/objects/o")
            #expect(shown["resource_type_associations"]?.arrayValue?.map { $0["name"] } == ["OS::Nova::Flavor", "Own::Type"])
            // The names of properties for a flavor.
            let prefixed = try await cloud.call("GET", "\(MetadataDefinitionTests.path)/A::B?resource_type=OS::Nova::Flavor")
            #expect(Set(prefixed["properties"]?.objectValue?.names ?? []) == ["hw:z", "hw:b"])
            #expect(prefixed["objects"]?.arrayValue?.first?["required"] == ["hw:a"])
            let property = try await cloud.call(
                "GET", "\(MetadataDefinitionTests.path)/A::B/properties/hw:z?resource_type=OS::Nova::Flavor")
            #expect(property.status == 200 && property["name"] == "z")
            for wrong in ["z?resource_type=OS::Nova::Flavor", "hw:z?resource_type=OS::Glance::Image", "hw:z"] {
                #expect(try await cloud.call("GET", "\(MetadataDefinitionTests.path)/A::B/properties/\(wrong)").status == 404, "\(wrong)")
            }
            // New resource types are known from now on.
            let types = try await cloud.call("GET", "/v2/metadefs/resource_types")["resource_types"]?.arrayValue ?? []
            #expect(types.contains { $0["name"] == "Own::Type" } && types.contains { $0["name"] == "OS::Glance::Image" })
            #expect(try await create(cloud, "A::B").status == 409)
        }
    }

    @Test func refusedNamespacesAreNotCreated() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            let twice = try await create(cloud, "N", ["tags": [["name": "t"], ["name": "t"]]])
            #expect(twice.status == 409)
            #expect(try await cloud.call("GET", "\(MetadataDefinitionTests.path)/N", token: "admin").status == 404)
            for (body, status) in [
                (["self": "x"], 403), (["created_at": "x"], 403), (["visibility": "shared"], 400), (["protected": "no"], 400),
                (["properties": ["a": ["type": "string"]]], 400), (["properties": ["a": ["type": "text", "title": "x"]]], 400),
                (["surprise": 1], 400), (["display_name": .string(String(repeating: "x", count: 81))], 400),
                (["properties": .object([String(repeating: "n", count: 81): ["type": "string", "title": "x"]])], 400),
            ] as [(JSONObject, Int)] {
                let answer = try await create(cloud, "N", body)
                #expect(answer.status == status, "\(body) \(answer.json)")
            }
            #expect(try await create(cloud, "").status == 400)
            #expect(try await cloud.call("GET", MetadataDefinitionTests.path, token: "admin")["namespaces"] == [])
        }
    }

    @Test("S10: private namespaces are their owner's, and only administrators write by default")
    func s10VisibilityOfNamespaces() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            #expect(try await create(cloud, "Public", ["visibility": "public"]).status == 201)
            #expect(try await create(cloud, "Own", ["owner": "p1", "properties": ["a": ["title": "A", "type": "string"]]]).status == 201)
            #expect(try await create(cloud, "Foreign", ["owner": "p2"]).status == 201)
            func names(_ token: String, _ query: String = "") async throws -> [String] {
                let list = try await cloud.call("GET", MetadataDefinitionTests.path + query, token: token)["namespaces"]?.arrayValue
                return (list ?? []).compactMap { $0["namespace"]?.stringValue }.sorted()
            }
            #expect(try await names("member") == ["Own", "Public"])
            #expect(try await names("other") == ["Foreign", "Public"])
            #expect(try await names("admin") == ["Foreign", "Own", "Public"])
            #expect(try await names("admin", "?visibility=public") == ["Public"])
            for part in ["", "/properties", "/properties/a", "/objects", "/tags", "/resource_types"] {
                #expect(try await cloud.call("GET", "\(MetadataDefinitionTests.path)/Own\(part)", token: "other").status == 404, "\(part)")
                #expect(try await cloud.call("GET", "\(MetadataDefinitionTests.path)/Own\(part)", token: "reader").status == 200, "\(part)")
            }
            // Callers that can see the namespace get 403; for others it does not exist.
            #expect(try await cloud.call("DELETE", "\(MetadataDefinitionTests.path)/Own", token: "member").status == 403)
            #expect(try await cloud.call("DELETE", "\(MetadataDefinitionTests.path)/Public", token: "other").status == 403)
            #expect(try await cloud.call("DELETE", "\(MetadataDefinitionTests.path)/Own", token: "other").status == 404)
            #expect(try await create(cloud, "Mine", token: "member").status == 403)
        }
    }

    @Test func anOperatorsPolicyAllowsTenantsTheirOwn() async throws {
        let policy = ["add_metadef_namespace": "rule:project_member", "add_metadef_object": "!"]
        try await ImageFixture.with(policy: policy) { (cloud: ImageFixture) async throws -> Void in
            #expect(try await create(cloud, "Mine", token: "member").status == 201)
            #expect(try await create(cloud, "Theirs", ["owner": "p2"], token: "member").status == 403)
            #expect(try await create(cloud, "More", ["objects": [["name": "o"]]], token: "member").status == 403)
        }
    }

    @Test func protectedNamespacesStay() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            var body = MetadataDefinitionTests.whole
            body["protected"] = true
            #expect(try await create(cloud, "N", body).status == 201)
            let one = "\(MetadataDefinitionTests.path)/N"
            for part in [
                "", "/objects", "/objects/o", "/properties", "/properties/z", "/tags", "/tags/t1", "/resource_types/OS::Nova::Flavor",
            ] {
                let answer = try await cloud.call("DELETE", one + part, token: "admin")
                #expect(answer.status == 403, "\(part) \(answer.json)")
            }
            let changed = try await cloud.call("PUT", one, token: "admin", json: ["namespace": "M", "protected": false])
            // Attributes missing in a replacement get their default.
            #expect(changed.status == 200 && changed["visibility"] == "private" && changed["display_name"] == nil)
            #expect(try await cloud.call("GET", one, token: "admin").status == 404)
            for part in [
                "/objects/o", "/objects", "/properties/z", "/properties", "/tags/t1", "/tags", "/resource_types/OS::Nova::Flavor", "",
            ] {
                let answer = try await cloud.call("DELETE", "\(MetadataDefinitionTests.path)/M" + part, token: "admin")
                #expect(answer.status == 204, "\(part) \(answer.json)")
            }
            for part in ["", "/objects/o", "/properties/z", "/tags/t1", "/resource_types/OS::Nova::Flavor"] {
                #expect(try await cloud.call("DELETE", "\(MetadataDefinitionTests.path)/M" + part, token: "admin").status == 404, "\(part)")
            }
        }
    }

    @Test func partsAreCreatedChangedAndDeleted() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            #expect(try await create(cloud, "N").status == 201)
            let one = "\(MetadataDefinitionTests.path)/N"
            func send(_ method: String, _ part: String, _ body: JSONValue = .null) async throws -> ImageFixture.Answer {
                body.isNull
                    ? try await cloud.call(method, one + part, token: "admin")
                    : try await cloud.call(method, one + part, token: "admin", json: body)
            }
            let property: JSONValue = ["name": "p", "title": "P", "type": "string", "default": "a"]
            #expect(try await send("POST", "/properties", property).json == property)
            #expect(try await send("POST", "/properties", property).status == 409)
            #expect(try await send("GET", "/properties").json == ["properties": ["p": ["title": "P", "type": "string", "default": "a"]]])
            let renamed = try await send("PUT", "/properties/p", ["name": "q", "title": "Q", "type": "boolean"])
            #expect(renamed.json == ["name": "q", "title": "Q", "type": "boolean"])
            #expect(try await send("PUT", "/properties/p", property).status == 404)
            let object = try await send("POST", "/objects", ["name": "o", "description": "d"])
            #expect(object.status == 201 && object["self"] == "/v2/metadefs/namespaces/N/objects/o")
            #expect(try await send("POST", "/objects", ["name": "o2"]).status == 201)
            #expect(try await send("PUT", "/objects/o", ["name": "o2"]).status == 409)
            #expect(try await send("PUT", "/objects/o", ["name": "o3"])["description"] == nil)
            #expect(try await send("GET", "/objects?limit=1&sort_key=name&sort_dir=asc")["objects"]?.arrayValue?.first?["name"] == "o2")
            #expect(
                try await send("POST", "/tags", ["tags": [["name": "a"], ["name": "b"]]]).json == ["tags": [["name": "a"], ["name": "b"]]])
            #expect(try await send("POST", "/tags/c").status == 201)
            #expect(try await send("POST", "/tags/c").status == 409)
            #expect(try await send("PUT", "/tags/c", ["name": "d"])["name"] == "d")
            #expect(
                try await send("GET", "/tags?sort_key=name&sort_dir=asc").json == ["tags": [["name": "a"], ["name": "b"], ["name": "d"]]])
            let appended = try await cloud.call(
                "POST", "\(one)/tags", token: "admin", headers: [("X-Openstack-Append", "True")], json: ["tags": [["name": "e"]]])
            #expect(appended.status == 201)
            #expect(try await send("GET", "/tags")["tags"]?.arrayValue?.count == 4)
            // Without the header all tags are replaced.
            #expect(try await send("POST", "/tags", ["tags": [["name": "f"]]]).status == 201)
            #expect(try await send("GET", "/tags").json == ["tags": [["name": "f"]]])
            let association = try await send("POST", "/resource_types", ["name": "OS::Nova::Flavor", "prefix": "hw:"])
            #expect(association.status == 201 && association["prefix"] == "hw:" && association["created_at"] != nil)
            #expect(try await send("POST", "/resource_types", ["name": "OS::Nova::Flavor"]).status == 409)
            #expect(try await send("GET", "/resource_types")["resource_type_associations"]?.arrayValue?.count == 1)
            // A client may send a namespace back with its parts, but not change them this way.
            var whole = try await send("GET", "").json.objectValue ?? [:]
            for name in ["self", "schema", "created_at", "updated_at"] { whole[name] = nil }
            #expect(try await send("PUT", "", .object(whole)).status == 200)
            whole["tags"] = []
            #expect(try await send("PUT", "", .object(whole)).status == 400)
            #expect(try await cloud.call("GET", "\(one)/tags?marker=zz", token: "admin").status == 404)
        }
    }

    @Test func namespacesAreListedInPages() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            for (index, name) in ["A", "B", "C"].enumerated() {
                let type: JSONValue = index == 1 ? ["name": "X", "properties_target": "image"] : ["name": "Y"]
                #expect(try await create(cloud, name, ["visibility": "public", "resource_type_associations": [type]]).status == 201)
            }
            let first = try await cloud.call("GET", "\(MetadataDefinitionTests.path)?limit=2&sort_key=namespace&sort_dir=asc")
            #expect(first["namespaces"]?.arrayValue?.map { $0["namespace"] } == ["A", "B"])
            let second = try await cloud.call("GET", first["next"]?.stringValue ?? "/")
            #expect(second["namespaces"]?.arrayValue?.map { $0["namespace"] } == ["C"] && second["next"] == nil)
            #expect(second["first"] == "/v2/metadefs/namespaces?limit=2&sort_key=namespace&sort_dir=asc")
            for (query, count) in [
                ("resource_types=X", 1), ("resource_types=X,Y", 3), ("resource_types=X&properties_target=image", 1),
                ("resource_types=X,Y&properties_target=user", 0), ("resource_types=Z", 0),
            ] {
                let list = try await cloud.call("GET", "\(MetadataDefinitionTests.path)?\(query)")
                #expect(list["namespaces"]?.arrayValue?.count == count, "\(query)")
            }
            #expect(try await cloud.call("GET", "\(MetadataDefinitionTests.path)?visibility=shared").status == 400)
        }
    }

    // MARK: definitions that come with the cloud

    @Test func definitionsFollowFromTheTableOfGuestKeys() {
        let namespaces = LoadedDefinitions.all
        #expect(Set(namespaces.map(\.name)).count == namespaces.count)
        for key in GuestKey.all where !key.name.contains("*") {
            let bare = String(key.name.dropFirst(3))
            let type = key.place == .flavor ? "OS::Nova::Flavor" : "OS::Glance::Image"
            let places = namespaces.filter { namespace in
                namespace.associations.contains { association in
                    association.resourceType == type
                        && namespace.properties.contains { (association.prefix ?? "") + $0.name == key.name }
                }
            }.filter { !["OS::OperatingSystem", "OS::Glance::CommonImageProperties"].contains($0.name) }
            switch key.effect {
            case .implemented: #expect(places.count == 1, "\(key.name): \(places.map(\.name))")
            case .refused, .metadata: #expect(places.isEmpty, "\(key.name) (\(bare)) is offered in \(places.map(\.name))")
            case .limited(let served, _):
                #expect(places.count == (served.filter { !$0.isEmpty }.count > 1 ? 1 : 0), "\(key.name)")
            }
        }
        let vif = namespaces.flatMap(\.properties).first { $0.name == "hw_vif_model" }
        #expect(vif?.definition["enum"]?.arrayValue?.contains("e1000") == true && vif?.definition["title"] == "VIF model")
    }

    @Test func definitionsAreLoadedOnceAndNotAfterAChange() async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            let task = DefinitionLoadTask(
                database: cloud.database, ambient: Ambient(random: SeededRandom(seed: 9)),
                log: Telemetry.logger(service: "test", level: "critical"))
            let names = LoadedDefinitions.all.map(\.name)
            #expect(try await task.runOnce() == names && names.count >= 3)
            #expect(try await task.runOnce() == [])
            let shown = try await cloud.call("GET", "\(MetadataDefinitionTests.path)/OS::Compute::LibvirtImage")
            #expect(shown["properties"]?["hw_firmware_type"]?["enum"] == ["bios", "uefi"] && shown["owner"] == nil, "\(shown.json)")
            #expect(shown["protected"] == true && shown["visibility"] == "public")
            // An earlier release's definition is replaced, one that the operator changed or deleted is not.
            try await cloud.database.write { try $0.execute("UPDATE metadef_loads SET digest = 'old'") }
            let one = "\(MetadataDefinitionTests.path)/OS::OperatingSystem"
            let body: JSONValue = ["namespace": "OS::OperatingSystem", "visibility": "public", "description": "Ours"]
            #expect(try await cloud.call("PUT", one, token: "admin", json: body).status == 200)
            let other = "\(MetadataDefinitionTests.path)/OS::Glance::CommonImageProperties"
            #expect(
                try await cloud.call("PUT", other, token: "admin", json: ["namespace": "OS::Glance::CommonImageProperties"]).status == 200)
            #expect(try await cloud.call("DELETE", other, token: "admin").status == 204)
            #expect(
                try await task.runOnce() == names.filter { !["OS::OperatingSystem", "OS::Glance::CommonImageProperties"].contains($0) })
            #expect(try await cloud.call("GET", one)["description"] == "Ours")
            #expect(try await cloud.call("GET", other, token: "admin").status == 404)
        }
    }
}
