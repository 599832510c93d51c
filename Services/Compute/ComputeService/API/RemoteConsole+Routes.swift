import Authorization
import Contracts
import Database
import JSON
import Kernel
import Telemetry
import WebAPI

/// Interactive consoles: the display (VNC, by noVNC in the browser) and the serial port. `wolke-console` serves them.
///
/// The URL of a console contains a token. The token is valid for one connection within `compute.console_token_lifetime`, and only while the
/// server stays on its host.
struct RemoteConsoleRoutes: Sendable {
    let compute: Compute

    private static let consoles = "/v2.1/servers/{server_id}/remote-consoles"
    private static let tokens = "/v2.1/os-console-auth-tokens/{console_token}"
    private static let showAction = "os_compute_api:os-console-auth-tokens"

    private static func shape(_ key: String, _ names: [String]) -> RouteAnswer {
        .form(.wrapped(key, .object(names.map { .required($0, .anyText) })))
    }

    private func legacy(_ key: String, _ type: BodySchema, kinds: [String: ConsoleKind], _ summary: String) -> Route {
        .action(
            ServerActionRoutes.path, key: key, action: ConsoleTokenStore.createAction, rule: Rule.member, versions: .through(5),
            schema: .object([.init("type", type, required: true)]), status: 200,
            answer: RemoteConsoleRoutes.shape("console", ["type", "url"]), summary, isUnavailable: kinds.isEmpty
        ) { context in
            let type = context.body[key]?["type"]?.stringValue ?? ""
            return try await create(context, kind: kinds[type], type: type) { ["console": ["type": .string(type), "url": .string($0)]] }
        }
    }

    var resource: Resource {
        Resource(
            "remote-console",
            routes: [
                legacy(
                    "os-getVNCConsole", .enumeration(["novnc", "xvpvnc"]), kinds: ["novnc": .vnc],
                    "Create a URL of a server's display"),
                legacy(
                    "os-getSerialConsole", .enumeration(["serial"]), kinds: ["serial": .serial],
                    "Create a URL of a server's serial port"),
                legacy("os-getSPICEConsole", .enumeration(["spice-html5"]), kinds: [:], "Create a URL of a SPICE display"),
                legacy("os-getRDPConsole", .enumeration(["rdp-html5"]), kinds: [:], "Create a URL of an RDP display"),
                create(.between(6, 7), protocols: ["vnc", "spice", "rdp", "serial"], mks: false),
                create(.from(8), protocols: ["vnc", "spice", "rdp", "serial", "mks"], mks: true),
                Route(
                    .get, RemoteConsoleRoutes.tokens, action: RemoteConsoleRoutes.showAction, rule: Rule.admin, versions: .from(31),
                    answer: .form(
                        .wrapped(
                            "console",
                            .object([
                                .required("instance_uuid", .anyText), .required("host", .anyText), .required("port", .count),
                                .required("internal_access_path", .nullable(.anyText)), .init("tls_port", .nullable(.count)),
                            ]))), "Show what a console's token gives access to", handler: show),
            ])
    }

    private func create(_ versions: VersionRange, protocols: [String], mks: Bool) -> Route {
        let types = ["novnc", "xvpvnc", "rdp-html5", "spice-html5", "serial"] + (mks ? ["webmks"] : [])
        return Route(
            .post, RemoteConsoleRoutes.consoles, action: ConsoleTokenStore.createAction, rule: Rule.member, versions: versions,
            body: .json(
                .wrapped(
                    "remote_console",
                    .object([
                        .init("protocol", .enumeration(protocols), required: true), .init("type", .enumeration(types), required: true),
                    ]))),
            status: 200, answer: RemoteConsoleRoutes.shape("remote_console", ["protocol", "type", "url"]),
            "Create a URL of a server's console"
        ) { context in
            let form = context.body["remote_console"]
            let (name, type) = (form?["protocol"]?.stringValue ?? "", form?["type"]?.stringValue ?? "")
            let kind: ConsoleKind? =
                switch (name, type) {
                case ("vnc", "novnc"): .vnc
                case ("serial", "serial"): .serial
                default: nil
                }
            return try await create(context, kind: kind, type: type) {
                ["remote_console": ["protocol": .string(name), "type": .string(type), "url": .string($0)]]
            }
        }
    }

    /// - Parameter kind: nil for a type that this cloud does not have.
    private func create(
        _ context: RequestContext, kind: ConsoleKind?, type: String, answer: @escaping @Sendable (String) -> JSONValue
    ) async throws -> Response {
        let server = try await compute.authorizedServer(context)
        guard let kind else {
            throw ResourceError.badRequest("Unavailable console type \(type). This cloud has novnc (protocol vnc) and serial.")
        }
        let token = RemoteConsoleRoutes.token(compute.ambient)
        let (ambient, settings) = (compute.ambient, compute.settings)
        return try await context.write(compute.database) { connection in
            let current = try ServerRecord.find(connection, server.value.id)
            let states = ["active", "paused", "rescued", "resized", "error"]
            guard let host = current.host, states.contains(current.vmState), current.powerState != 4 else {
                throw ResourceError.conflict("Instance \(current.id) is not running: its console cannot be opened.")
            }
            let now = ambient.now
            try ConsoleTokenStore.insert(
                connection, server, on: host, kind, token: token, at: now, expiry: now + settings.consoleTokenLifetime)
            let page = kind == .vnc ? "/vnc_lite.html?path=%3Ftoken%3D\(token)" : "/?token=\(token)"
            return Change(
                .json(200, answer(settings.consoleURL + page)), "server", current.id, content: ["console": .string(kind.rawValue)],
                holdsSecret: true)
        }
    }

    /// 256 random bits, in hexadecimal digits.
    private static func token(_ ambient: Ambient) -> String {
        (0..<4).map { _ in
            let digits = String(ambient.random.next(), radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }

    private func show(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let (token, now) = (context.parameter("console_token"), compute.ambient.now)
        let found = try await compute.database.read { try ConsoleTokenStore.find($0, token: token, at: now) }
        guard let found else { throw ResourceError.notFound("Token not found") }
        // Consoles do not listen on the host's network; connections go through the console service.
        var console: JSONObject = [
            "instance_uuid": .string(found.server), "host": .string(found.host), "port": JSONValue(compute.settings.consolePort),
            "internal_access_path": .null,
        ]
        if context.version(atLeast: 2, 99) { console["tls_port"] = .null }
        return .json(200, ["console": .object(console)])
    }
}
