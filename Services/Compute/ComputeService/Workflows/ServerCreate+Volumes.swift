import ComputeCore
import Database
import JSON
import Kernel
import Workflow

extension ServerCreate {
    /// Creates the requested volumes, waits for them and attaches all volumes to the host.
    func volumes(_ context: inout StepContext) async throws -> StepResult {
        let server = try await steps.server(context.subjectID)
        if server.devices.isEmpty { return .skip }
        var isReady = true
        for (index, device) in server.devices.enumerated() {
            let volume = try await volume(device, server, index: index, context: context)
            let now = context.now
            let rowID = context.operationUUID(index)
            let row = try await steps.database.write { connection in
                try ServerCreate.record(connection, server, device, volume: volume, id: rowID, now: now)
            }
            guard row.attachment == nil else { continue }
            switch row.status {
            case "available", "in-use", "reserved", "attaching": break
            case let status? where status.hasPrefix("error"):
                throw StepFailure("Volume \(volume) did not become available: its status is \(status).")
            default:
                isReady = false
                continue
            }
            let answer = try await steps.compute.clients.volumes.attach(
                VolumeAttachRequest(
                    volumeID: volume, serverID: server.id, subject: server.subject, host: server.host ?? "",
                    device: row.device, operation: context.operationID(100 + index)))
            try await steps.database.write { connection in
                try connection.execute(
                    """
                    UPDATE server_volumes SET attachment_id = \(answer.attachmentID),
                        connection = \(answer.connection)::jsonb
                    WHERE server_id = \(server.id) AND volume_id = \(volume)
                    """)
            }
        }
        return isReady ? .next : .wait(.seconds(1))
    }

    /// The id of the device's volume, which is created if it does not exist.
    private func volume(
        _ device: DeviceRequest, _ server: WorkflowServer, index: Int, context: StepContext
    ) async throws -> String {
        if device.source == .volume, let id = device.uuid { return id }
        var body: JSONObject = ["name": "", "description": ""]
        if let size = device.size { body["size"] = JSONValue(size) }
        if let type = device.volumeType { body["volume_type"] = .string(type) }
        if device.source == .image { body["imageRef"] = JSONValue(device.uuid) }
        if device.source == .snapshot { body["snapshot_id"] = JSONValue(device.uuid) }
        return try await steps.compute.clients.volumes.createVolume(
            body, as: server.subject, operation: context.operationID(index))
    }

    private static func record(
        _ connection: Connection, _ server: WorkflowServer, _ device: DeviceRequest, volume: String, id: UUID128,
        now: Timestamp
    ) throws -> (status: String?, device: String, attachment: String?) {
        let taken = try connection.query("SELECT volume_id, device FROM server_volumes WHERE server_id = \(server.id)")
            .reduce(into: [String: String]()) { $0[try $1.string("volume_id")] = try $1.string("device") }
        if taken[volume] == nil {
            var names = Set(taken.values)
            if server.bootsFromImage || device.bootIndex != 0 { names.insert("/dev/vda") }
            guard let name = device.bootIndex == 0 ? "/dev/vda" : DeviceNames.free(taken: names) else {
                throw StepFailure("No device name is left for volume \(volume).")
            }
            try VolumeAttachmentStore.insert(
                connection, id.description, server: server.id, volume: volume, device: name, bootIndex: device.bootIndex,
                isNew: device.source != .volume, deletesOnTermination: device.deletesOnTermination, tag: device.tag, at: now)
        }
        let row = try connection.query(
            """
            SELECT s.device, s.attachment_id, v.status FROM server_volumes s LEFT JOIN published_volumes v ON v.id = s.volume_id
            WHERE s.server_id = \(server.id) AND s.volume_id = \(volume)
            """)[0]
        return (try row.optionalString("status"), try row.string("device"), try row.optionalString("attachment_id"))
    }

    /// Reverts what `volumes` did or may have done. If the creation of a volume was not recorded, repeating the request
    /// with the same operation id returns it.
    func undoVolumes(_ context: inout StepContext) async throws {
        guard
            let server = try await steps.database.read({ [id = context.subjectID] in
                try WorkflowServer.load($0, id)
            })
        else { return }
        for (index, device) in server.devices.enumerated() where device.source != .volume {
            let id = context.operationUUID(index)
            let isRecorded = try await steps.database.read { connection in
                try !connection.query("SELECT 1 AS one FROM server_volumes WHERE id = \(id)").isEmpty
            }
            guard !isRecorded else { continue }
            do {
                let volume = try await volume(device, server, index: index, context: context)
                try await steps.compute.clients.volumes.deleteVolume(volume, as: server.subject)
            } catch let error as ResourceError where !error.isRetryable {
                // The request was refused before as well, so there is nothing to revert.
            }
        }
        try await steps.releaseVolumes(server.id, as: server.subject, undoing: true, Refusals(context))
    }
}
