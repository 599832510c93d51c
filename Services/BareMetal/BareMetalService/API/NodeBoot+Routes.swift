import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// How a node starts: boot mode, secure boot, and the images that its controller presents as drives.
struct NodeBootRoutes: Sendable {
    let bareMetal: BareMetal
    private var database: Database { bareMetal.database }

    var resource: Resource {
        let (states, media) = (NodeRoutes.one + "/states", NodeRoutes.one + "/vmedia")
        return Resource(
            "node-boot",
            routes: [
                Route(
                    .put, states + "/boot_mode", action: "baremetal:node:set_boot_mode", rule: NodePolicy.nodeMember,
                    versions: .minor(76),
                    body: .json(.object([.init("target", .enumeration(BootMode.allCases.map(\.rawValue)), required: true)])), status: 202,
                    "Set the boot mode"
                ) { context in
                    let mode = BootMode(rawValue: context.body["target"]?.stringValue ?? "")
                    return try await set(context, "baremetal:node:set_boot_mode", .bootMode) { .init(mode: mode, user: $0) }
                },
                Route(
                    .put, states + "/secure_boot", action: "baremetal:node:set_secure_boot", rule: NodePolicy.nodeMember,
                    versions: .minor(76), body: .json(.object([.init("target", .boolean, required: true)])), status: 202,
                    "Switch secure boot"
                ) { context in
                    let isOn = context.body["target"]?.boolValue
                    return try await set(context, "baremetal:node:set_secure_boot", .secureBoot) { .init(isSecure: isOn, user: $0) }
                },
                Route(
                    .get, media, action: "baremetal:node:vmedia:get", rule: NodePolicy.nodeReader, versions: .minor(93),
                    answer: .form(.many(NodeBootRoutes.drive)), "List the drives for virtual media", handler: listDrives),
                Route(
                    .post, media, action: "baremetal:node:vmedia:attach", rule: NodePolicy.nodeMember, versions: .minor(89),
                    body: .json(NodeBootRoutes.image), status: 204, "Insert an image into a drive", handler: insertImage),
                Route(
                    .delete, media, action: "baremetal:node:vmedia:detach", rule: NodePolicy.nodeMember, versions: .minor(89), status: 204,
                    "Empty drives", handler: ejectImages),
            ])
    }

    private static let drive = BodySchema.object([
        .required("media_types", .many(.anyText)), .required("inserted", .boolean), .required("image", .nullable(.anyText)),
    ])

    private static let image = BodySchema.object([
        .init("device_type", .enumeration(MediaDevice.allCases.map(\.rawValue)), required: true),
        .init("image_url", .string(min: 1, max: 1024, format: nil), required: true),
        .init("image_download_source", .nullable(.string(min: 1, max: 64, format: nil))),
    ])

    // MARK: settings

    private func set(
        _ context: RequestContext, _ action: String, _ ability: HardwareAbility, _ settings: (_ user: String) -> NodeWorkflows.BootSettings
    ) async throws -> Response {
        let frame = settings(try context.caller.userID)
        return try await context.write(database) { connection in
            let node = try changeable(connection, context, ability)
            let id = try node.value(for: action).id.description
            try Workflows.start(
                connection, bareMetal.workflows.bootSettings, subject: id, frame: frame, requestID: context.requestID,
                ambient: context.ambient)
            return Change(
                .empty(202, headers: ["location": "\(context.publicURL)/v1/nodes/\(context.parameter("node"))/states"]), "node", id,
                content: ["boot_mode": JSONValue(frame.mode?.rawValue), "secure_boot": frame.isSecure.map { .bool($0) } ?? .null])
        }
    }

    /// The node, if nothing works on it and its hardware has this function.
    ///
    /// - Throws: 409 while work is in progress, 400 for other hardware.
    private func changeable(_ connection: Connection, _ context: RequestContext, _ ability: HardwareAbility) throws -> Authorized<Node> {
        let node = try bareMetal.node(connection, context, isLocked: true)
        try bareMetal.hardware.require(ability, of: node.value)
        try bareMetal.requireIdle(connection, node.value)
        guard !node.value.state.isWorking, !node.value.state.isHeld else {
            throw ResourceError.conflict(
                "The machine of node \(node.value.id) cannot be changed while the node is in state \(node.value.state.rawValue).")
        }
        return node
    }

    // MARK: virtual media

    private func listDrives(_ context: RequestContext) async throws -> Response {
        let node = try await database.read { try bareMetal.node($0, context).value }
        try bareMetal.hardware.require(.virtualMedia, of: node)
        let drives = try await bareMetal.hardware.asked(node) { try await $0.media(of: node) }
        return .json(
            200,
            .array(
                drives.map {
                    [
                        "media_types": JSONValue($0.types), "inserted": .bool($0.image != nil),
                        "image": JSONValue($0.image.flatMap { $0.isEmpty ? nil : $0 }),
                    ]
                }))
    }

    private func insertImage(_ context: RequestContext) async throws -> Response {
        guard let device = MediaDevice(rawValue: context.body["device_type"]?.stringValue ?? "") else {
            throw ResourceError.badRequest("The request needs a device_type.")
        }
        let url = context.body["image_url"]?.stringValue ?? ""
        try NodeRules.requireImageURL(url, "image_url")
        if let source = context.body["image_download_source"]?.stringValue, source != "http" {
            throw ResourceError.badRequest(
                """
                Invalid input for image_download_source. Value: '\(source.prefix(64))'. It must be http: controllers fetch images by \
                themselves.
                """)
        }
        let content: JSONValue = ["device_type": .string(device.rawValue), "image_url": .string(url)]
        let (database, hardware) = (database, bareMetal.hardware)
        // The only effect is a call to the controller, which a repeated request with the same key can safely make again.
        return try await context.write(database) { connection in
            let node = try changeable(connection, context, .virtualMedia)
            return BegunWork(content, "node", try node.value(for: "baremetal:node:vmedia:attach").id.description, content: content)
        } finish: { _ in
            let node = try await database.read { try bareMetal.node($0, context).value }
            try await hardware.asked(node) { try await $0.insertMedia(of: node, device, url: url) }
            return .empty(204)
        }
    }

    private func ejectImages(_ context: RequestContext) async throws -> Response {
        if let unknown = context.query.items.first(where: { $0.name != "device_types" }) {
            throw ResourceError.badRequest("There is no query parameter \(unknown.name.prefix(64)), only device_types.")
        }
        let names = (context.query["device_types"] ?? "").split(separator: ",").map { String($0) }
        let devices = try names.map { name in
            guard let device = MediaDevice(rawValue: name) else {
                let known = MediaDevice.allCases.map(\.rawValue).joined(separator: ", ")
                throw ResourceError.badRequest(
                    "Invalid input for query parameter device_types. Value: '\(name.prefix(64))'. There are \(known).")
            }
            return device
        }
        let chosen = Set(devices.isEmpty ? MediaDevice.allCases : devices)
        let content: JSONValue = ["device_types": JSONValue(chosen.map(\.rawValue).sorted())]
        let (database, hardware) = (database, bareMetal.hardware)
        return try await context.write(database) { connection in
            let node = try changeable(connection, context, .virtualMedia)
            return BegunWork(content, "node", try node.value(for: "baremetal:node:vmedia:detach").id.description, content: content)
        } finish: { _ in
            let node = try await database.read { try bareMetal.node($0, context).value }
            try await hardware.asked(node) { try await $0.ejectMedia(of: node, chosen) }
            return .empty(204)
        }
    }
}
