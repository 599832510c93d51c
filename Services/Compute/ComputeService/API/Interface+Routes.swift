import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// A server's interfaces: its ports, and attaching and detaching them.
struct InterfaceRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/servers/{server_id}/os-interface"

    private static let schema = BodySchema.wrapped(
        "interfaceAttachment",
        .object([
            .init("net_id", .nullable(.uuid)), .init("port_id", .nullable(.uuid)),
            .init(
                "fixed_ips",
                .nullable(
                    .array(
                        .object([.init("ip_address", .string(min: 1, max: 45, format: .ip), required: true)]), min: 0, max: 1))),
            .init("tag", .nullable(.text(60)), versions: .from(49)),
        ]))

    private static let shape = BodySchema.object([
        .required("port_id", .anyText), .required("net_id", .anyText), .required("mac_addr", .anyText), .required("port_state", .anyText),
        .required("fixed_ips", .many(.object([.required("subnet_id", .anyText), .required("ip_address", .anyText)]))),
        .required("tag", .nullable(.anyText), versions: .from(70)),
    ])

    var resource: Resource {
        let path = InterfaceRoutes.path
        return Resource(
            "server-interface",
            routes: [
                Route(
                    .get, path, action: "os_compute_api:os-attach-interfaces:list", rule: Rule.reader,
                    answer: .form(.wrapped("interfaceAttachments", .many(InterfaceRoutes.shape))), "List interfaces"
                ) { context in
                    let server = try await compute.authorizedServer(context).value
                    return try await compute.database.read { connection in
                        let list = try InterfaceStore.list(connection, of: server.id).map { InterfaceRoutes.json($0, context) }
                        let page = try context.listRequest(filters: []).page(of: list, key: "port_id")
                        return .json(200, ["interfaceAttachments": .array(page.items)])
                    }
                },
                Route(
                    .get, path + "/{port_id}", action: "os_compute_api:os-attach-interfaces:show", rule: Rule.reader,
                    answer: .form(.wrapped("interfaceAttachment", InterfaceRoutes.shape)), "Show an interface"
                ) { context in
                    let server = try await compute.authorizedServer(context).value
                    let port = try context.uuidParameter("port_id", of: "Port")
                    return try await compute.database.read { try InterfaceRoutes.response($0, context, server.id, port) }
                },
                Route(
                    .post, path, action: "os_compute_api:os-attach-interfaces:create", rule: Rule.member,
                    body: .optionalJSON(InterfaceRoutes.schema), answer: .form(.wrapped("interfaceAttachment", InterfaceRoutes.shape)),
                    "Attach an interface", handler: attach),
                Route(
                    .delete, path + "/{port_id}", action: "os_compute_api:os-attach-interfaces:delete", rule: Rule.member, status: 202,
                    "Detach an interface", handler: detach),
            ])
    }

    private static let states = ["active", "paused", "stopped", "suspended"]

    private static func json(_ interface: InterfaceStore.Interface, _ context: RequestContext) -> JSONValue {
        var object: JSONObject = [
            "port_id": .string(interface.portID), "net_id": .string(interface.networkID), "mac_addr": .string(interface.macAddress),
            "port_state": .string(interface.portStatus), "fixed_ips": interface.fixedIPs,
        ]
        if context.version(atLeast: 2, 70) { object["tag"] = JSONValue(interface.tag) }
        return .object(object)
    }

    private static func response(_ connection: Connection, _ context: RequestContext, _ server: String, _ port: String) throws -> Response {
        guard let interface = try InterfaceStore.list(connection, of: server, port: port).first else { throw missing(server, port) }
        return .json(200, ["interfaceAttachment": json(interface, context)])
    }

    private static func missing(_ server: String, _ port: String) -> ResourceError {
        .notFound("Port id \(port) is not attached to instance \(server).")
    }

    private func attach(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:os-attach-interfaces:create")
        let body = context.body["interfaceAttachment"] ?? [:]
        let port = body["port_id"]?.stringValue.flatMap { UUID128($0)?.description }
        let address = body["fixed_ips"]?.arrayValue?.first?["ip_address"]?.stringValue
        if port != nil, body["net_id"]?.stringValue != nil {
            throw ResourceError.badRequest("Must not input both network_id and port_id")
        }
        if address != nil, body["net_id"]?.stringValue == nil {
            throw ResourceError.badRequest("Must input network_id when request IP address")
        }
        let ask = InterfaceRequest(
            networkID: body["net_id"]?.stringValue.flatMap { UUID128($0)?.description }, portID: port, fixedIP: address,
            tag: body["tag"]?.stringValue)
        let owner = try ServerOwner(context, project: server.project)
        let ambient = compute.ambient
        let definition = InterfaceWorkflows(compute).attach
        let operation = ambient.newUUID().description
        return try await context.write(
            compute.database,
            begin: { connection in
                let current = try ServerRecord.find(connection, server.id, lock: true)
                try current.requireUnlocked(context)
                try current.require(states: InterfaceRoutes.states, for: "attach_interface")
                let frame = try InterfaceRoutes.frame(connection, current, ask, owner)
                if let port = frame.port {
                    try InterfaceStore.claim(connection, port: port, tag: ask.tag, of: decision, operation: operation)
                }
                try ServerActions.begin(
                    connection, context, of: decision, for: "os_compute_api:os-attach-interfaces:create", action: "attach_interface",
                    event: "compute_attach_interface", now: ambient.now)
                let workflow = try Workflows.start(
                    connection, definition, subject: operation, frame: frame,
                    requestID: context.requestID, ambient: ambient)
                return BegunWork(
                    .string(workflow.text), "server", server.id,
                    content: ["port": JSONValue(ask.portID), "network": JSONValue(ask.networkID), "tag": JSONValue(ask.tag)])
            },
            finish: { work in
                let workflow = WorkflowID(work.stringValue ?? "")
                try await compute.await(workflow: workflow, past: ["port", "plug"])
                return try await compute.database.read { connection in
                    let frame = try Workflows.frame(connection, workflow, of: definition)
                    return try InterfaceRoutes.response(connection, context, server.id, frame?.portID ?? "")
                }
            })
    }

    private static func frame(
        _ connection: Connection, _ server: ServerRecord, _ ask: InterfaceRequest, _ owner: ServerOwner
    ) throws -> InterfaceWorkflows.Attachment {
        let item = try ServerInterfaces.checked(connection, ask, owner)
        var frame = InterfaceWorkflows.Attachment(
            server: server.id, tag: ask.tag, administrator: item.administrator.map(RecordedSubject.init))
        if let port = ask.portID {
            frame.port = port
            return frame
        }
        if let network = ask.networkID {
            (frame.network, frame.fixedIP) = (network, ask.fixedIP)
            return frame
        }
        let ids = try InterfaceStore.usableNetworks(connection, project: server.project)
        guard ids.count == 1 else {
            throw ids.isEmpty
                ? ResourceError.badRequest("No network is available for the interface.")
                : ResourceError.conflict("Multiple possible networks found, use a Network ID to be more specific.")
        }
        frame.network = ids[0]
        return frame
    }

    private func detach(_ context: RequestContext) async throws -> Response {
        let decision = try await compute.authorizedServer(context)
        let server = try decision.value(for: "os_compute_api:os-attach-interfaces:delete")
        let port = try context.uuidParameter("port_id", of: "Port")
        let ambient = compute.ambient
        let definition = InterfaceWorkflows(compute).detach
        let operation = ambient.newUUID().description
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.id, lock: true)
            try current.requireUnlocked(context)
            try current.require(states: InterfaceRoutes.states, for: "detach_interface")
            guard let interface = try InterfaceStore.lock(connection, port: port, of: server.id) else {
                throw InterfaceRoutes.missing(server.id, port)
            }
            guard !interface.isDetaching else { return Change(.empty(202), "server", server.id) }
            try InterfaceStore.markDetaching(connection, port: port, of: decision, operation: operation)
            let policy = "os_compute_api:os-attach-interfaces:delete"
            let generation = try DesiredState.change(connection, of: decision, for: policy, ambient: ambient)
            try ServerActions.begin(
                connection, context, of: decision, for: policy, action: "detach_interface", event: "compute_detach_interface",
                now: ambient.now)
            try Workflows.start(
                connection, definition, subject: operation,
                frame: InterfaceWorkflows.Detachment(
                    server: server.id, port: port, created: interface.isOwn, generation: generation),
                requestID: context.requestID, ambient: ambient)
            return Change(.empty(202), "server", server.id, content: ["detach_port": .string(port)])
        }
    }
}
