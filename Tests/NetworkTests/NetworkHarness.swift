import Authorization
import ServiceCatalog
import ServiceKit
import Database
import JSON
import Kernel
import Telemetry
import TestKit
import Testing
import WebAPI

@testable import NetworkService

/// A fleet of one hypervisor.
struct FixedFleet: FleetView {
    let all: [FleetMember]
    func members() async -> [FleetMember] { all }
}

/// The service's API with a private database.
struct NetworkHarness: Sendable {
    let api: API
    let database: Database
    static let chassis = UUID128(high: 5, low: 5)

    static func with(
        _ options: NetworkOptions = NetworkOptions(), _ body: (NetworkHarness) async throws -> Void
    ) async throws {
        try await TestDatabase.with(connectionsMax: 8) { test in
            try await body(try NetworkHarness(test.database, options: options))
        }
    }

    init(_ database: Database, ambient: Ambient = Ambient(), options: NetworkOptions = NetworkOptions()) throws {
        self.database = database
        let fleet = FixedFleet(all: [
            FleetMember(
                id: NetworkHarness.chassis, chassis: "hv1", host: "hv1", isGateway: false, physicalNetworks: ["physnet1"],
                heardAt: ambient.now)
        ])
        var callers = NetworkHarness.callers
        callers["service"] = StaticAuthenticator.service
        api = try NetworkModule.make(
            options, NetworkBackend(fleet: fleet),
            .test(database, .network, ambient: ambient, authenticator: StaticAuthenticator(callers))
        ).api
    }

    private static let callers: [String: Caller] = [
        "admin": StaticAuthenticator.caller(user: "admin", project: "admin", roles: ["admin", "manager", "member", "reader"]),
        "member": StaticAuthenticator.caller(), "reader": StaticAuthenticator.caller(user: "u2", roles: ["reader"]),
        "other": StaticAuthenticator.caller(user: "u3", project: "p2"),
    ]

    struct Answer: Sendable {
        let status: Int
        let json: JSONValue
        let headers: Headers
        var type: String? { json["NeutronError"]?["type"]?.stringValue }
        var message: String? { json["NeutronError"]?["message"]?.stringValue }
    }

    func call(
        _ method: String, _ target: String, as token: String? = "member", _ body: JSONValue? = nil,
        headers: [(String, String)] = []
    ) async throws -> Answer {
        try await raw(method, "/v2.0" + target, as: token, body?.encoded ?? [], headers: headers)
    }

    func raw(
        _ method: String, _ target: String, as token: String? = "member", _ body: [UInt8], headers: [(String, String)] = []
    ) async throws -> Answer {
        var fields = Headers(headers)
        if let token { fields["x-auth-token"] = token }
        let response = await api.respond(to: try IncomingRequest(method, target, headers: fields, body: body))
        let bytes = response.bytes ?? []
        return Answer(
            status: response.status, json: bytes.isEmpty ? .null : try JSONValue.parse(bytes), headers: response.headers)
    }

    /// Creates a resource and returns it; a refusal fails the test with its message.
    @discardableResult
    func make(_ path: String, _ name: String, as token: String = "member", _ body: JSONValue) async throws -> JSONValue {
        let answer = try await call("POST", "/" + path, as: token, .object(JSONObject([(name, body)])))
        try #require(answer.status == 201, "\(answer.json)")
        return try #require(answer.json[name])
    }

    // MARK: set-up

    func network(_ name: String = "net", as token: String = "member", _ more: JSONObject = [:]) async throws -> String {
        var body = more
        body["name"] = .string(name)
        return try await make("networks", "network", as: token, .object(body)).id
    }

    func subnet(_ network: String, _ cidr: String = "10.0.0.0/24", as token: String = "member", _ more: JSONObject = [:])
        async throws -> JSONValue
    {
        var body = more
        body["network_id"] = .string(network)
        body["cidr"] = .string(cidr)
        body["ip_version"] = 4
        return try await make("subnets", "subnet", as: token, .object(body))
    }

    /// An external network with a subnet, created by the administrator.
    func external(_ cidr: String = "172.24.4.0/24") async throws -> String {
        let network = try await network(
            "public", as: "admin",
            [
                "router:external": true, "provider:network_type": "flat", "provider:physical_network": "physnet1",
            ])
        _ = try await subnet(network, cidr, as: "admin", ["enable_dhcp": false])
        return network
    }

    func used(_ resource: String, project: String = "p1") async throws -> Int {
        try await database.read { try NetworkQuota.make().all($0, project: project)[resource]?.used ?? 0 }
    }
}

extension JSONValue {
    var id: String { self["id"]?.stringValue ?? "" }
    func text(_ name: String) -> String { self[name]?.stringValue ?? "" }
    subscript(_ index: Int) -> JSONValue { arrayValue.flatMap { index < $0.count ? $0[index] : nil } ?? .null }
    var count: Int { arrayValue?.count ?? -1 }
}
