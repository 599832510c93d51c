import BareMetalCore
import JSON
import Kernel
import WebAPI

/// The routes for agents in the nodes' ramdisks (ironic-python-agent). They need no token of Identity: a look-up is answered only while the
/// node waits for its agent, and hands out a token of the agent's own.
struct AgentRoutes: Sendable {
    let calls: AgentCalls

    var resource: Resource {
        Resource(
            "agent",
            routes: [
                Route(
                    .get, "/v1/lookup", action: nil, versions: .minor(22),
                    answer: .form(
                        .object([
                            .required("node", .object([], additional: .allowed)), .required("config", .object([], additional: .allowed)),
                        ])), "Find the node of an agent", handler: lookUp),
                Route(
                    .post, "/v1/heartbeat/{node}", action: nil, versions: .minor(22), body: .json(AgentRoutes.heartbeat), status: 202,
                    "Receive the call of an agent", handler: beat),
            ])
    }

    private static let heartbeat = BodySchema.object([
        .init("callback_url", .string(min: 1, max: 255, format: nil), required: true),
        .init("agent_version", .nullable(.string(min: 1, max: 64, format: nil)), versions: .minor(36)),
        .init("agent_token", .nullable(.string(min: 1, max: 255, format: nil)), versions: .minor(62)),
        .init("agent_verify_ca", .nullable(.string(min: 1, max: BareMetalLimits.certificateMax, format: nil)), versions: .minor(68)),
    ])

    private func lookUp(_ context: RequestContext) async throws -> Response {
        if let unknown = context.query.items.first(where: { !["addresses", "node_uuid"].contains($0.name) }) {
            throw ResourceError.badRequest("There is no query parameter \(unknown.name.prefix(64)), only addresses and node_uuid.")
        }
        let id = try context.query["node_uuid"].map { text in
            guard let id = UUID128(text) else {
                throw ResourceError.badRequest(
                    "Invalid input for query parameter node_uuid. Value: '\(text.prefix(64))'. It is not a UUID.")
            }
            return id
        }
        // Interfaces of other kinds have addresses of other forms, which agents send as well.
        let addresses = (context.query["addresses"] ?? "").split(separator: ",").prefix(BareMetalLimits.addressesMax)
            .compactMap { MACAddress(String($0))?.description }
        guard id != nil || !addresses.isEmpty else {
            throw ResourceError.badRequest("At least one of 'addresses' (with valid MAC addresses) or 'node_uuid' is required.")
        }
        let found = try await calls.lookUp(id: id, addresses: addresses)
        let path = "nodes/\(found.node.id)"
        var config: JSONObject = [
            "heartbeat_timeout": JSONValue(calls.rules.heartbeatTimeout), "agent_token_required": true, "agent_md5_checksum_enable": false,
            "disable_deep_image_inspection": false, "permitted_image_formats": ["raw", "qcow2"],
        ]
        if context.version(atLeast: 1, 62) { config["agent_token"] = .string(found.token) }
        return .json(
            200,
            [
                // Only what an agent needs: whoever sees the machine's network can ask.
                "node": [
                    "uuid": .string(found.node.id.description), "properties": .object(found.properties), "instance_info": [:],
                    "driver_internal_info": [:],
                    "links": [
                        ["rel": "self", "href": .string("\(context.publicURL)/v1/\(path)")],
                        ["rel": "bookmark", "href": .string("\(context.publicURL)/\(path)")],
                    ],
                ], "config": .object(config),
            ])
    }

    private func beat(_ context: RequestContext) async throws -> Response {
        let body = context.body
        try await calls.beat(
            context.parameter("node"),
            .init(
                url: body["callback_url"]?.stringValue ?? "", token: body["agent_token"]?.stringValue,
                version: body["agent_version"]?.stringValue, certificate: body["agent_verify_ca"]?.stringValue))
        return .empty(202)
    }
}
