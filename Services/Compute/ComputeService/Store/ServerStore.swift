import Authorization
import ComputeCore
import Contracts
import Database
import GuestKeys
import JSON
import Kernel
import WebAPI

extension GuestHardware {
    /// The hardware of a server with this flavor, whose image has these properties.
    init(_ flavor: ServerFlavor, _ properties: TextMap) {
        self.init(
            specs: flavor.extraSpecs?.texts ?? [:], properties: properties.texts, isChecked: flavor.isHardwareChecked ?? false)
    }
}

/// The statements about the settings that owners change.
enum ServerStore {
    /// The flavor of a server, and the properties of its image.
    static func hardware(_ connection: Connection, of server: String) throws -> (flavor: ServerFlavor, properties: TextMap) {
        let row = try connection.query(
            "SELECT s.flavor, \(ServerProperties.ofImage) AS properties FROM servers s WHERE s.id = \(server)")[0]
        return (try row.value("flavor"), try row.value("properties"))
    }

    /// The project of a server, also of one that has been deleted; nil if there never was one with this id.
    static func project(_ connection: Connection, of id: String) throws -> String? {
        try connection.query("SELECT project_id FROM servers WHERE id = \(id)").first?.string("project_id")
    }

    /// The hosts of servers by id. Servers without a host have nil, and unknown ones are missing.
    static func hosts(_ connection: Connection, of ids: [String]) throws -> [String: String?] {
        try connection.query("SELECT id, host FROM servers WHERE id = ANY(\(ids)::uuid[]) AND NOT deleted")
            .reduce(into: [:]) { $0[try $1.string("id")] = try $1.optionalString("host") }
    }

    /// When the server first ran; nil if it has not yet.
    static func launchedAt(_ connection: Connection, _ id: String) throws -> Timestamp? {
        try connection.query("SELECT launched_at FROM servers WHERE id = \(id)").first?.optionalTimestamp("launched_at")
    }

    /// The id that servers from one request have in common.
    static func reservation(_ connection: Connection, of id: String) throws -> String {
        try connection.query("SELECT reservation_id FROM servers WHERE id = \(id)")[0].string("reservation_id")
    }

    /// The zone to which a server is pinned, and the one that it is in, which is empty before it has a host.
    static func zones(_ connection: Connection, of id: String) throws -> (pinned: String?, current: String) {
        let row = try connection.query("SELECT pinned_zone, availability_zone FROM servers WHERE id = \(id)")[0]
        return (try row.optionalString("pinned_zone"), try row.optionalString("availability_zone") ?? "")
    }

    static func update(
        _ connection: Connection, _ server: Authorized<ServerRecord>, _ changes: Changes, at now: Timestamp
    ) throws {
        let id = try server.value(for: "os_compute_api:servers:update").id
        try changes.apply(connection, "servers", id, at: now, touching: true)
    }

    // MARK: metadata and tags

    static func metadata(_ connection: Connection, of id: String) throws -> JSONObject {
        try connection.query("SELECT metadata FROM servers WHERE id = \(id)")[0].object("metadata")
    }

    /// Changes the metadata with `change`, and tells the host.
    ///
    /// - Returns: the new metadata.
    /// - Throws: 403 if there are more items than the quota allows, and what `change` throws.
    static func changeMetadata(
        _ connection: Connection, of decision: Authorized<ServerRecord>, for action: String, _ compute: Compute,
        _ change: (inout JSONObject) throws -> Void
    ) throws -> JSONObject {
        let server = try decision.value(for: action)
        var metadata = try metadata(connection, of: server.id)
        try change(&metadata)
        let limit = try compute.quota.state(connection, project: server.project, ComputeQuotas.metadataItems).limit
        if limit >= 0, metadata.count > limit {
            throw ResourceError.forbidden("Maximum number of metadata items exceeds \(limit)")
        }
        try connection.execute(
            "UPDATE servers SET metadata = \(metadata)::jsonb, updated_at = \(compute.ambient.now) WHERE id = \(server.id)")
        try DesiredState.change(connection, server: server.id)
        try DesiredState.publish(connection, server: server.id, ambient: compute.ambient)
        return metadata
    }

    static func tags(_ connection: Connection, of id: String) throws -> [String] {
        try connection.query("SELECT to_json(tags) AS tags FROM servers WHERE id = \(id)")[0].strings("tags")
    }

    static func setTags(
        _ connection: Connection, of decision: Authorized<ServerRecord>, _ tags: [String], for action: String, at now: Timestamp
    ) throws {
        let id = try decision.value(for: action).id
        try connection.execute("UPDATE servers SET tags = \(tags)::text[], updated_at = \(now) WHERE id = \(id)")
    }
}
