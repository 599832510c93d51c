import Authorization
import BlockStorageCore
package import Database
import JSON
import Kernel
package import WebAPI
import Workflow

/// The handlers of the Block Storage API, with their dependencies.
package struct BlockStorageHandlers: Sendable {
    let database: Database
    let driver: any VolumeDriver
    let workflows: VolumeWorkflows
    let settings: BlockStorageSettings
    var quota: VolumeQuota { workflows.quota }

    package init(
        database: Database, driver: any VolumeDriver, workflows: VolumeWorkflows, settings: BlockStorageSettings
    ) {
        self.database = database
        self.driver = driver
        self.workflows = workflows
        self.settings = settings
    }

    static let read = "rule:project_reader_or_admin"
    static let write = "rule:project_member_or_admin"
    static let admin = "rule:admin_required"

    /// Creating multiattach volumes, and attaching a bootable one to a further server.
    static let multiattachAction = "volume:multiattach"
    static let multiattachBootableAction = "volume:multiattach_bootable_volume"

    static let rules = [
        "volume:get_all_tenants": admin,
        "volume:see_operator_fields": admin,
        "volume:see_connections": "rule:admin_or_service",
        "volume:detach_from_server": "rule:admin_or_service",
        "volume:report_host_copy": "rule:admin_or_service",
        uploadPublicAction: admin,
        multiattachAction: write,
        multiattachBootableAction: write,
        "volume_extension:types_extra_specs:read_sensitive": admin,
        "volume_extension:see_all_types": admin,
    ]

    package var resources: [Resource] {
        [
            discoveryResource, volumeResource, volumeActionResource, snapshotResource, attachmentResource, typeResource,
            quotaResource, operatorResource,
        ] + absentResources
    }

    // MARK: looking up

    /// A volume, with the decision on the route's action: 404 where the caller may not see it.
    func volume(
        _ connection: Connection, _ context: RequestContext, _ id: String, locked: Bool = true
    ) throws -> Authorized<Volume> {
        _ = try context.project()
        guard let volume = try BlockStorageStore.volume(connection, id, locked: locked) else { throw ResourceKind.volumes.notFound(id) }
        return try context.authorizeVisible(
            volume, target: .project(volume.projectID), visibleBy: "volume:get", notFound: ResourceKind.volumes.notFound(id))
    }

    /// A volume that a request's body names, locked; 404 where the caller may not see it.
    func givenVolume(
        _ connection: Connection, _ context: RequestContext, _ id: String, project: String, locked: Bool = true
    ) throws -> Volume {
        guard let volume = try BlockStorageStore.volume(connection, id, locked: locked),
            context.allows("volume:get", target: .project(volume.projectID))
        else {
            try context.authorize(target: .project(project))
            throw ResourceKind.volumes.notFound(id)
        }
        return volume
    }

    func snapshot(
        _ connection: Connection, _ context: RequestContext, _ id: String, locked: Bool = true
    ) throws -> Authorized<Snapshot> {
        _ = try context.project()
        guard let snapshot = try BlockStorageStore.snapshot(connection, id, locked: locked) else {
            throw ResourceKind.snapshots.notFound(id)
        }
        return try context.authorizeVisible(
            snapshot, target: .project(snapshot.projectID), visibleBy: "volume:get_snapshot", notFound: ResourceKind.snapshots.notFound(id))
    }

    // MARK: metadata of volumes and snapshots

    /// A resource with `metadata`.
    enum MetadataResource: Sendable {
        case volume, snapshot

        var type: String { self == .volume ? "volume" : "snapshot" }
        var title: String { self == .volume ? "Volume" : "Snapshot" }
        var parameter: String { self == .volume ? "volume_id" : "snapshot_id" }
    }

    private func readMetadata(_ context: RequestContext, _ resource: MetadataResource, for action: String) async throws -> JSONObject {
        let id = try context.identifier(resource.parameter, of: resource.title)
        return try await database.read { connection in
            switch resource {
            case .volume: try volume(connection, context, id, locked: false).value(for: action).metadata
            case .snapshot: try snapshot(connection, context, id, locked: false).value(for: action).metadata
            }
        }
    }

    func metadataRoutes(_ path: String, _ resource: MetadataResource, read: String, write: String, remove: String) -> [Route] {
        MapRoutes(
            path, name: "metadata", item: "meta",
            actions: .init(
                list: read, add: write, replace: write, show: read, set: write, remove: remove, readRule: BlockStorageHandlers.read,
                writeRule: BlockStorageHandlers.write),
            body: .stringMap, answer: .stringMap, removedStatus: 200,
            missing: { _, key in .notFound("Metadata item \(key.prefix(64)) was not found.") },
            read: { context in try await readMetadata(context, resource, for: read) },
            change: { context, action, change in try await changeMetadata(context, resource, for: action, change) }
        ).routes
    }

    /// Changes metadata, after the decision on `action`.
    private func changeMetadata(
        _ context: RequestContext, _ resource: MetadataResource, for action: String, _ change: @escaping MapRoutes.Mutation
    ) async throws -> Response {
        let id = try context.identifier(resource.parameter, of: resource.title)
        return try await context.write(database) { connection in
            let (response, metadata) =
                switch resource {
                case .volume: try changeMetadata(connection, context, volume(connection, context, id), for: action, change)
                case .snapshot: try changeMetadata(connection, context, snapshot(connection, context, id), for: action, change)
                }
            return Change(response, resource.type, id, content: ["metadata": .object(metadata)])
        }
    }

    private func changeMetadata(
        _ connection: Connection, _ context: RequestContext, _ decision: Authorized<some CountedRow>, for action: String,
        _ change: MapRoutes.Mutation
    ) throws -> (Response, JSONObject) {
        var metadata = try decision.value(for: action).metadata
        let response = try change(&metadata)
        guard metadata.count <= BlockStorageLimits.metadataItemsMax else {
            throw ResourceError(.tooLarge, "Metadata has at most \(BlockStorageLimits.metadataItemsMax) items.")
        }
        let new = JSONValue.object(metadata)
        try BlockStorageStore.change(connection, decision, for: action, at: context.ambient.now) { $0.set(json: "metadata", new) }
        return (response, metadata)
    }
}
