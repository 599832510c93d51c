import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route with every kind of nonsense: an error of the client, never one of the service, and no endless work.
@Suite struct VolumeNonsenseTests {
    private static let values: [JSONValue] = [
        nil, true, 0, -1, 9_223_372_036_854_775_807, 1.5, "", "x", "\u{0}", "🐄", "'; DROP TABLE x; --", [], [:], [nil], [[:]],
        ["a": ["b": ["c": []]]], .string(String(repeating: "y", count: 70_000)),
    ]
    private static let texts = ["x", "%00", "%F0%9F%90%84", "..", "%27", "00000000-0000-0000-0000-000000000000", "-1", "%7B%7D"]

    /// The body with one member after the other replaced by nonsense, at every depth, and with one too many.
    private static func mutations(_ body: JSONValue) -> [JSONValue] {
        var result = values
        guard let object = body.objectValue else { return result }
        for member in object.members {
            for value in mutations(member.value) {
                var changed = object
                changed[member.name] = value
                result.append(.object(changed))
            }
        }
        for name in ["", "\u{0}", "id", "nonsense", String(repeating: "n", count: 300)] {
            var changed = object
            changed[name] = "x"
            result.append(.object(changed))
        }
        return result
    }

    private func check(_ cloud: VolumeFixture, _ method: Method, _ target: String, _ body: JSONValue?) async throws {
        var headers: Headers = ["x-auth-token": "admin", "openstack-api-version": "volume 3.70"]
        if method == .patch { headers["content-type"] = "application/openstack-images-v2.1-json-patch" }
        let request: IncomingRequest
        do {
            request = try IncomingRequest(method.rawValue, target, headers: headers, body: body?.encoded ?? [])
        } catch is ResourceError {
            return
        }
        let response = await cloud.api.respond(to: request)
        let shown = "\(method.rawValue) \(target.prefix(200)) \(body?.description.prefix(200) ?? "")"
        #expect(response.status < 500 || response.status == 501, "\(shown) → \(String(decoding: response.bytes ?? [], as: UTF8.self))")
    }

    @Test func nonsenseIsTheClientsError() async throws {
        try await VolumeFixture.with { cloud in
            let parameters = try await Self.parameters(cloud)
            for route in cloud.api.resources.flatMap(\.routes) where !route.path.hasPrefix("/v3/{project_id}") {
                let names = route.path.split(separator: "/").filter { $0.hasPrefix("{") }.map { String($0.dropFirst().dropLast()) }
                func target(_ replaced: String? = nil, by text: String = "") -> String {
                    let path = route.path.split(separator: "/").map { segment -> String in
                        guard segment.hasPrefix("{") else { return String(segment) }
                        let name = String(segment.dropFirst().dropLast())
                        return name == replaced ? text : parameters[name] ?? "k"
                    }
                    return "/" + path.joined(separator: "/")
                }
                var sample: JSONValue?
                if case .json(let schema) = route.body {
                    var whole = schema.sample(version: cloud.api.service.negotiation?.maximum ?? Microversion(0, 0))
                    if let extra = Self.bodies["\(route.method.rawValue) \(route.path)"] { whole = extra }
                    sample = whole
                }
                for name in names {
                    for text in Self.texts { try await check(cloud, route.method, target(name, by: text), sample) }
                }
                if route.method == .get {
                    for parameter in ["limit", "marker", "sort", "sort_key", "sort_dir", "name", "status", "metadata", "bootable", "all_tenants", "name~", "with_count", "volume_id", "is_public", "usage", "project_id", "created_at"] {
                        for text in Self.texts + ["", "in:%22", "gt:x", "99999999999999999999"] {
                            try await check(cloud, .get, target() + "?\(parameter)=\(text)", nil)
                        }
                    }
                }
                if let sample, route.method != .delete {
                    for body in Self.mutations(sample) { try await check(cloud, route.method, target(), body) }
                }
            }
        }
    }

    private static let bodies: [String: JSONValue] = [
        "POST /v3/volumes": [
            "volume": [
                "size": 1, "name": "n", "description": "d", "metadata": ["k": "v"], "imageRef": nil, "volume_type": nil,
                "availability_zone": "nova", "snapshot_id": nil, "source_volid": nil, "multiattach": false,
            ]
        ],
        "POST /v3/types": ["volume_type": ["name": "t", "description": "d", "extra_specs": ["a": "b"], "os-volume-type-access:is_public": true]],
        "PUT /v3/volumes/{volume_id}": ["volume": ["name": "n", "description": "d", "metadata": ["k": "v"]]],
        "PUT /v3/os-quota-sets/{target_id}": ["quota_set": ["volumes": 1000]],
    ]

    private static func parameters(_ cloud: VolumeFixture) async throws -> [String: String] {
        let volume = try await cloud.create()
        let other = try await cloud.create()
        let snapshot = try await cloud.call("POST", "/v3/snapshots", ["snapshot": ["volume_id": .string(volume)]])
        let attachment = try await cloud.call("POST", "/v3/attachments", ["attachment": ["volume_uuid": .string(other)]])
        try await cloud.settle()
        return [
            "volume_id": volume, "snapshot_id": snapshot["snapshot"]?["id"]?.stringValue ?? "",
            "attachment_id": attachment["attachment"]?["id"]?.stringValue ?? "", "type_id": "default", "target_id": "p1",
            "class": "default", "change": "enable",
        ]
    }
}
