import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// Adds or removes a security group of several ports at once, for Compute's `addSecurityGroup` and `removeSecurityGroup`.
/// Neutron's API only has requests for single ports, so a failure could leave a server partly changed.
extension NetworkAPI {
    private static let portGroupsSchema = BodySchema.wrapped(
        "port_security_groups",
        .object([
            .init("ports", .array(.uuid, min: 1, max: NetworkLimits.bulkMax), required: true),
            .uuid("add", nullable: true), .uuid("remove", nullable: true),
        ]))

    var portGroups: Resource {
        Resource(
            "port_security_groups",
            routes: [
                Route(
                    .put, "/v2.0/wolke/port-security-groups", action: "update_port_security_groups",
                    rule: "(role:service and role:member) or rule:admin_required", body: .json(NetworkAPI.portGroupsSchema),
                    "Add a security group to ports or remove it from them, all or none; for services", handler: changePortGroups)
            ])
    }

    /// `update_port` decides about each port.
    private func changePortGroups(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .project(context.caller.projectID))
        let body = context.body["port_security_groups"]?.objectValue ?? [:]
        let ids = Array(Set(try (body.list("ports") ?? []).map { try JSONObject.uuid($0.stringValue ?? "", "ports") })).sorted()
        let added = try body.text("add").map { try JSONObject.uuid($0, "add") }
        let removed = try body.text("remove").map { try JSONObject.uuid($0, "remove") }
        guard (added == nil) != (removed == nil) else {
            throw NetworkFault.badRequest("port_security_groups", "the request must contain 'add' or 'remove'.")
        }
        let seesAll = context.allows("get_security_group")
        return try await context.write(database) { connection in
            let memberships = try lockGroups(connection, ofPorts: ids)
            let subjects = try ResourceKind.ports.subjects(connection, context, ids)
            var changed: [String] = []
            for id in ids {
                guard let subject = subjects[id] else { throw ResourceKind.ports.notFound("\(id)") }
                let port = try context.authorize(subject, target: subject.target, action: "update_port")
                var groups = memberships[id] ?? []
                let before = groups
                if let added { groups.insert(added) }
                if let removed { groups.remove(removed) }
                guard groups != before else { continue }
                guard groups.count <= NetworkLimits.securityGroupsPerPortMax else {
                    throw NetworkFault.badRequest(
                        "port_security_groups", "port \(id) would have more than \(NetworkLimits.securityGroupsPerPortMax) security groups."
                    )
                }
                let wanted = groups.sorted().map(\.description)
                try updatePort(connection, port, PortChange(["security_groups": JSONValue(wanted)], anyGroup: seesAll))
                changed.append(id.description)
            }
            let answer: JSONValue = ["port_security_groups": ["ports": JSONValue(changed)]]
            return Change(.json(200, answer), "port", nil, content: answer)
        }
    }
}
