import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

/// A validated create request for a rule.
struct RuleDraft: Sendable {
    let rule: SecurityGroupRule
    let group: Authorized<Subject>
    let prefix: String?
    let description: String
    var id: UUID128 { rule.id }

    /// - Throws: 400 with Networking's error type.
    init(_ body: JSONObject, id: UUID128, group: Authorized<Subject>, remote: UUID128?) throws {
        self.group = group
        description = body.text("description") ?? ""
        let ethertype = body.text("ethertype") ?? "IPv4"
        guard let type = SecurityGroupRule.EtherType.allCases.first(where: { $0.rawValue.lowercased() == ethertype.lowercased() })
        else {
            throw ResourceError.badRequest(
                "Invalid input for ethertype. Reason: '\(ethertype)' is not in ['IPv4', 'IPv6'].")
        }
        var network: IPNetwork?
        if let text = body.text("remote_ip_prefix") {
            let address = IPAddress(text)
            network = address.map { IPNetwork($0, prefixLength: $0.version.width) } ?? IPNetwork(text)
            guard let network else {
                throw ResourceError.badRequest("Invalid input for remote_ip_prefix. Reason: '\(text)' is not a valid CIDR.")
            }
            prefix = address == nil ? text : "\(network)"
        } else {
            prefix = nil
        }
        var name: String?
        switch body["protocol"] {
        case .string(let text)?: name = ["any", ""].contains(text.lowercased()) ? nil : text.lowercased()
        case .integer(let number)?: name = String(number)
        default: name = nil
        }
        rule = SecurityGroupRule(
            id: id, direction: body.text("direction") == "egress" ? .egress : .ingress, etherType: type,
            protocolName: name, portRangeMin: body.int("port_range_min"), portRangeMax: body.int("port_range_max"),
            remoteNetwork: network, remoteGroupID: remote)
        try rule.validate()
    }
}

extension NetworkAPI {
    /// The project's group `default`, created on first use.
    func defaultGroup(_ connection: Connection, project: String) throws -> UUID128 {
        let find: SQL = "SELECT id FROM security_groups WHERE project_id = \(project) AND name = 'default'"
        if let row = try connection.query(find).first { return try row.uuid("id") }
        let id = ambient.newUUID()
        let row: Changes = [
            "id": "\(id)", "project_id": "\(project)", "name": "'default'", "description": "'Default security group'",
        ]
        let inserted = try connection.query(
            """
            \(row.insertion("security_groups", at: ambient.now)) ON CONFLICT (project_id) WHERE name = 'default' DO NOTHING RETURNING id
            """)
        // Another transaction has just created it.
        if inserted.isEmpty { return try connection.query(find)[0].uuid("id") }
        try addEgress(connection, group: id, project: project)
        for type in SecurityGroupRule.EtherType.allCases {
            try insert(
                connection,
                SecurityGroupRule(id: ambient.newUUID(), direction: .ingress, etherType: type, remoteGroupID: id),
                group: id, project: project, prefix: nil, description: "")
        }
        // Counted but never refused, because the project could not have ports without it.
        try Quota.add(connection, project: project, [(NetworkQuotas.securityGroups, 1), (NetworkQuotas.securityGroupRules, 4)])
        return id
    }

    func hasDefaultGroup(_ connection: Connection, project: String) throws -> Bool {
        try !connection.query("SELECT id FROM security_groups WHERE project_id = \(project) AND name = 'default'").isEmpty
    }

    private func addEgress(_ connection: Connection, group: UUID128, project: String) throws {
        for type in SecurityGroupRule.EtherType.allCases {
            try insert(
                connection, SecurityGroupRule(id: ambient.newUUID(), direction: .egress, etherType: type), group: group,
                project: project, prefix: nil, description: "")
        }
    }

    private func insert(
        _ connection: Connection, _ rule: SecurityGroupRule, group: UUID128, project: String, prefix: String?,
        description: String
    ) throws {
        let row: Changes = [
            "id": "\(rule.id)", "security_group_id": "\(group)", "project_id": "\(project)", "description": "\(description)",
            "direction": "\(rule.direction.rawValue)", "ethertype": "\(rule.etherType.rawValue)", "protocol": "\(rule.protocolName)",
            "port_range_min": "\(rule.portRangeMin)", "port_range_max": "\(rule.portRangeMax)", "remote_ip_prefix": "\(prefix)",
            "remote_group_id": "\(rule.remoteGroupID)", "signature": "\(rule.signature)",
        ]
        do {
            let inserted = try connection.query(
                """
                \(row.insertion("security_group_rules", at: ambient.now))
                ON CONFLICT (security_group_id, signature) DO NOTHING RETURNING id
                """)
            guard inserted.isEmpty else { return }
        } catch let error as DatabaseError where error.isForeignKeyViolation {
            throw ResourceKind.securityGroups.notFound("\(rule.remoteGroupID ?? group)")
        }
        let existing = try connection.query(
            "SELECT id FROM security_group_rules WHERE security_group_id = \(group) AND signature = \(rule.signature)")
        throw NetworkFault.ruleExists(try existing.first?.string("id") ?? "")
    }

    func insertRule(_ connection: Connection, _ draft: RuleDraft) throws {
        let group = try draft.group.value(for: "create_security_group_rule")
        try reserve(connection, group.projectID, NetworkQuotas.securityGroupRules)
        try insert(
            connection, draft.rule, group: group.id, project: group.projectID, prefix: draft.prefix,
            description: draft.description)
        try connection.execute("UPDATE security_groups SET updated_at = \(ambient.now) WHERE id = \(group.id)")
    }

    func insertGroup(
        _ connection: Connection, id: UUID128, owner: Authorized<String>, _ body: JSONObject, tags: [String]
    ) throws {
        let project = try owner.value(for: "create_security_group")
        let name = body.text("name") ?? ""
        _ = try defaultGroup(connection, project: project)
        guard name != "default" else { throw NetworkFault.defaultGroupExists }
        try reserve(connection, project, NetworkQuotas.securityGroups)
        try reserve(connection, project, NetworkQuotas.securityGroupRules, 2)
        var row = ResourceKind.securityGroups.changes(body)
        row.set("id", id)
        row.set("project_id", project)
        row.set("stateful", body.bool("stateful") ?? true)
        row.set("tags", sql: "\(tags)::text[]")
        try connection.execute(row.insertion("security_groups", at: ambient.now))
        try addEgress(connection, group: id, project: project)
    }

    func updateGroup(_ connection: Connection, _ group: Authorized<Subject>, _ body: JSONObject) throws {
        let id = try group.value(for: "update_security_group").id
        guard let row = try connection.query("SELECT name, stateful FROM security_groups WHERE id = \(id) FOR UPDATE").first
        else { throw ResourceKind.securityGroups.notFound("\(id)") }
        var changes = ResourceKind.securityGroups.changes(body, except: ["name"])
        if let name = body.text("name"), try name != row.string("name") {
            guard try row.string("name") != "default" else { throw NetworkFault.defaultGroupKeepsName }
            guard name != "default" else { throw NetworkFault.defaultGroupExists }
            changes.set("name", name)
        }
        if let stateful = body.bool("stateful"), try stateful != row.bool("stateful") {
            let used = try connection.query("SELECT 1 AS one FROM port_security_groups WHERE security_group_id = \(id) LIMIT 1")
            guard used.isEmpty else { throw NetworkFault.groupInUse(id) }
            changes.set("stateful", stateful)
        }
        try changes.apply(connection, "security_groups", id, at: ambient.now)
        // Guests see the names of their groups in their metadata.
        if body["name"] != nil {
            try ServerPorts.announce(
                connection, where: "id IN (SELECT port_id FROM port_security_groups WHERE security_group_id = \(id))", ambient: ambient)
        }
    }

    /// - Throws: 409 for the default group, and for a group that ports use.
    func deleteGroup(_ connection: Connection, _ group: Authorized<Subject>) throws {
        let id = try group.value(for: "delete_security_group").id
        guard let row = try connection.query("SELECT name FROM security_groups WHERE id = \(id) FOR UPDATE").first else {
            throw ResourceKind.securityGroups.notFound("\(id)")
        }
        guard try row.string("name") != "default" || group.caller.isAdmin else { throw NetworkFault.defaultGroupStays }
        let used = try connection.query("SELECT 1 AS one FROM port_security_groups WHERE security_group_id = \(id) LIMIT 1")
        guard used.isEmpty else { throw NetworkFault.groupInUse(id) }
        // Rules of other groups that refer to this group are deleted with it.
        let rules = try connection.query(
            "DELETE FROM security_group_rules WHERE security_group_id = \(id) OR remote_group_id = \(id) RETURNING project_id")
        for rule in rules { try release(connection, rule.string("project_id"), NetworkQuotas.securityGroupRules) }
        try connection.execute("DELETE FROM security_groups WHERE id = \(id)")
        try release(connection, group.value.projectID, NetworkQuotas.securityGroups)
    }

    func deleteRule(_ connection: Connection, _ rule: Authorized<Subject>) throws {
        let id = try rule.value(for: "delete_security_group_rule").id
        guard try connection.execute("DELETE FROM security_group_rules WHERE id = \(id)") == 1 else {
            throw ResourceKind.securityGroupRules.notFound("\(id)")
        }
        try release(connection, rule.value.projectID, NetworkQuotas.securityGroupRules)
    }
}
