import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// Bindings of a port to several hosts, while its server moves between them: one is active, the others are not.
extension NetworkAPI {
    private static let path = "/v2.0/ports/{id}/bindings"
    private static let schema = BodySchema.wrapped(
        "binding",
        .object([
            .init("host", .string(min: 1, max: 255, format: nil), required: true),
            .init("vnic_type", .nullable(.enumeration(["normal"]))), .init("profile", .nullable(.object([]))),
        ]))
    private static let shape = BodySchema.object([
        .init("host", .text, required: true), .init("status", .text, required: true), .init("vif_type", .text, required: true),
        .init("vnic_type", .text, required: true), .init("profile", .object([], additional: .allowed), required: true),
        .init("vif_details", .object([], additional: .allowed), required: true),
    ])

    var portBindings: Resource {
        let rule = NetworkPolicy.service
        return Resource(
            "binding",
            routes: [
                Route(
                    .get, NetworkAPI.path, action: "get_port_binding", rule: rule,
                    answer: .form(.wrapped("bindings", .array(NetworkAPI.shape, min: 0, max: Int.max))), "List the bindings of a port",
                    handler: listBindings),
                Route(
                    .post, NetworkAPI.path, action: "create_port_binding", rule: rule, body: .json(NetworkAPI.schema), status: 201,
                    answer: .form(.wrapped("binding", NetworkAPI.shape)), "Create an inactive binding of a port", handler: createBinding),
                Route(
                    .put, NetworkAPI.path + "/{host}/activate", action: "activate_port_binding", rule: rule,
                    answer: .form(.wrapped("binding", NetworkAPI.shape)), "Make a binding of a port the active one",
                    handler: activateBinding),
                Route(
                    .delete, NetworkAPI.path + "/{host}", action: "delete_port_binding", rule: rule, status: 204,
                    "Delete a binding of a port", handler: deleteBinding),
            ])
    }

    private static func document(_ host: String, isActive: Bool) -> JSONValue {
        [
            "host": .string(host), "status": isActive ? "ACTIVE" : "INACTIVE", "vif_type": "ovs", "vnic_type": "normal", "profile": [:],
            "vif_details": ["port_filter": true, "connectivity": "l2"],
        ]
    }

    private func listBindings(_ context: RequestContext) async throws -> Response {
        let id = try await ResourceKind.ports.find(database, context).value.id
        let bindings = try await database.read { try PortBindingStore.all($0, of: id) }
        return .json(200, ["bindings": .array(bindings.map { NetworkAPI.document($0.host, isActive: $0.isActive) })])
    }

    private func createBinding(_ context: RequestContext) async throws -> Response {
        let port = try await ResourceKind.ports.find(database, context)
        let host = context.body["binding"]?["host"]?.stringValue ?? ""
        let now = ambient.now
        return try await context.write(database) { connection in
            let id = port.value.id
            let active = try PortBindingStore.lock(connection, id)
            guard !active.isEmpty else {
                throw ResourceError.conflict("Port \(id) is not bound to a host: set binding:host_id first.", type: "PortBindingError")
            }
            guard try active != host && PortBindingStore.expect(connection, port, on: host, at: now) else {
                throw ResourceError.conflict("Binding for port \(id) on host \(host) already exists.", type: "PortBindingAlreadyExists")
            }
            let document = NetworkAPI.document(host, isActive: false)
            return Change(.json(201, ["binding": document]), "port", id.description, content: ["binding": document])
        }
    }

    private static func missing(_ host: String, _ id: UUID128) -> ResourceError {
        .notFound("Binding for port \(id) for host \(host.prefix(255)) could not be found.", type: "PortBindingNotFound")
    }

    private func activateBinding(_ context: RequestContext) async throws -> Response {
        let port = try await ResourceKind.ports.find(database, context)
        let host = context.parameter("host")
        let now = ambient.now
        return try await context.write(database) { connection in
            let id = port.value.id
            let active = try PortBindingStore.lock(connection, id)
            guard active != host else {
                throw ResourceError.conflict("Binding for port \(id) on host \(host) is already active.", type: "PortBindingAlreadyActive")
            }
            guard try PortBindingStore.activate(connection, port, on: host, insteadOf: active, at: now) else {
                throw NetworkAPI.missing(host, id)
            }
            let document = NetworkAPI.document(host, isActive: true)
            return Change(.json(200, ["binding": document]), "port", id.description, content: ["binding": document])
        }
    }

    private func deleteBinding(_ context: RequestContext) async throws -> Response {
        let port = try await ResourceKind.ports.find(database, context)
        let host = context.parameter("host")
        return try await context.write(database) { connection in
            let id = port.value.id
            guard try PortBindingStore.lock(connection, id) != host else {
                throw ResourceError.conflict("Binding for port \(id) on host \(host) is active.", type: "PortBindingError")
            }
            guard try PortBindingStore.delete(connection, port, on: host) else {
                throw NetworkAPI.missing(host, id)
            }
            return Change(.empty(204), "port", id.description, content: ["binding": ["host": .string(host)]])
        }
    }
}
