import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// `POST /os-server-external-events`: other services' notifications about servers.
///
/// Services of this cloud use messages; these are for others, such as a foreign network service.
struct ExternalEventRoutes: Sendable {
    let compute: Compute

    private static let action = "os_compute_api:os-server-external-events:create"

    /// The size of the volume that the tag names is sent to the server's host again.
    private static let extended = "volume-extended"
    /// Network events. They have an effect here: the server's ports are read again.
    private static let ofNetworks = ["network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted"]
    /// Events without an effect in this cloud, with the versions that added them.
    private static let ofOthers: [(name: String, minor: Int)] = [
        ("power-update", 76), ("accelerator-request-bound", 82), ("volume-reimaged", 93),
    ]

    private static func names(minor: Int) -> [String] {
        ofNetworks + (minor >= 51 ? [extended] : []) + ofOthers.filter { $0.minor <= minor }.map(\.name)
    }

    private static func event(_ names: [String]) -> BodySchema {
        .object([
            .init("name", .enumeration(names), required: true), .init("server_uuid", .uuid, required: true),
            .init("status", .enumeration(["failed", "completed", "in-progress"])), .init("tag", .text),
        ])
    }

    private static func list(_ from: Int, _ through: Int?) -> BodySchema.Property {
        let versions = through.map { from == 1 ? VersionRange.through($0) : .between(from, $0) } ?? .from(from)
        return .init("events", .array(event(names(minor: from)), min: 1, max: 1000), required: true, versions: versions)
    }

    private static let schema = BodySchema.object([list(1, 50), list(51, 75), list(76, 81), list(82, 92), list(93, nil)])

    private static let answer = BodySchema.object([
        .required(
            "events",
            .many(
                .object([
                    .required("name", .anyText), .required("server_uuid", .anyText), .required("status", .anyText),
                    .required("code", .count), .init("tag", .anyText),
                ])))
    ])

    var resource: Resource {
        Resource(
            "server-external-event",
            routes: [
                Route(
                    .post, "/v2.1/os-server-external-events", action: ExternalEventRoutes.action, rule: Rule.admin,
                    body: .json(ExternalEventRoutes.schema), answer: .form(ExternalEventRoutes.answer), "Report events of servers",
                    handler: create)
            ])
    }

    private func create(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let events = context.body["events"]?.arrayValue ?? []
        let ids = events.compactMap { $0["server_uuid"]?.stringValue.flatMap { UUID128($0)?.description } }.uniqued
        let servers = try context.authorize(ids, target: .none)
        try servers.value(for: ExternalEventRoutes.action)
        let ambient = compute.ambient
        return try await context.write(compute.database) { connection in
            let hosts = try ServerStore.hosts(connection, of: ids)
            var affected: Set<String> = []
            var extensions: [(server: String, volume: String)] = []
            let answers = events.map { event -> JSONValue in
                let id = event["server_uuid"]?.stringValue.flatMap { UUID128($0)?.description } ?? ""
                let code = ExternalEventRoutes.code(event, host: hosts[id])
                if code == 200, event["name"]?.stringValue == ExternalEventRoutes.extended {
                    if let volume = event["tag"]?.stringValue.flatMap({ UUID128($0)?.description }) {
                        extensions.append((id, volume))
                    }
                } else if code == 200 {
                    affected.insert(id)
                }
                var answer = event.objectValue ?? [:]
                answer["code"] = JSONValue(code)
                answer["status"] = code == 200 ? "completed" : "failed"
                return .object(answer)
            }
            compute.report(
                unreadable: try DesiredState.portsChanged(connection, of: servers, affected: affected, ambient: ambient))
            try VolumeExtension.send(connection, extensions, of: servers)
            for id in affected.sorted() { Workflows.wake(connection, service: Compute.service, subject: id) }
            let isComplete = answers.allSatisfy { $0["code"] == 200 }
            return Change(answer: .json(isComplete ? 200 : 207, ["events": .array(answers)]), "server-external-event", nil)
        }
    }

    /// The status of one event: 404 for an unknown server, 400 if a required tag is missing, 422 for an event without an effect here.
    ///
    /// - Parameter host: of the server; nil for an unknown server.
    private static func code(_ event: JSONValue, host: String??) -> Int {
        guard let host else { return 404 }
        let name = event["name"]?.stringValue ?? ""
        if event["tag"] == nil, [extended, "power-update", "accelerator-request-bound"].contains(name) { return 400 }
        return host != nil && (ofNetworks + [extended]).contains(name) ? 200 : 422
    }
}
