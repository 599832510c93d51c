import Authorization
import ComputeCore
import Contracts
import Database
import GuestKeys
import JSON
import Kernel
import WebAPI
import Workflow

/// Accepts a resize inside its transaction: checks the new flavor, takes the quota, and writes what the workflow needs.
struct ResizeRequest {
    let connection: Connection
    let compute: Compute
    let owner: ServerOwner
    let flavorRef: String
    /// Nil for the server's present setting.
    let diskConfig: String?

    /// - Throws: 400 for a flavor that the server cannot have, 403 for an exceeded quota, with Nova's messages.
    func run(_ decision: Authorized<ServerRecord>, _ server: ServerRecord) throws {
        let id = try decision.value(for: "os_compute_api:servers:resize").id
        if !compute.settings.resizesOnSameHost, let reason = try MoveChecks(connection, compute).whatForbidsLeaving(server) {
            throw ResourceError.badRequest("No valid host was found. Resizing on the same host is not allowed, and \(reason)")
        }
        let row = try connection.query(
            """
            SELECT s.flavor, s.flavor_id, s.image, \(ServerProperties.ofImage) AS image_properties, i.min_ram, i.min_disk,
                EXISTS (SELECT 1 FROM server_volumes v WHERE v.server_id = s.id AND v.boot_index = 0) AS on_volume
            FROM servers s LEFT JOIN published_images i ON i.id = s.image_id WHERE s.id = \(id)
            """)[0]
        guard let chosen = try ServerCreation.flavor(connection, flavorRef, owner) else {
            throw ResourceError.badRequest("Flavor \(flavorRef.prefix(255)) could not be found.")
        }
        guard try row.string("flavor_id") != chosen.id else {
            throw ResourceError.badRequest("When resizing, instances must change flavor!")
        }
        let old: ServerFlavor = try row.value("flavor")
        let new: ServerFlavor = try chosen.document.decode(as: ServerFlavor.self)
        let image: ServerImage? = try row.optionalValue("image")
        try check(new, old, image: try row.bool("on_volume") ? nil : image, row)
        let properties: TextMap = try row.value("image_properties")
        try GuestHardware.check(
            specs: new.extraSpecs?.texts ?? [:], properties: properties.texts, vcpus: new.vcpus, memoryMiB: new.memoryMiB)
        let hardware = GuestHardware(specs: new.extraSpecs?.texts ?? [:], properties: properties.texts)
        try hardware.check(disks: VolumeAttachmentStore.disks(connection, id, hardware, flavor: new))
        _ = try ServerNeeds(new, image, properties: properties)
        var changes = Changes()
        changes.set(json: "other_flavor", chosen.document)
        changes.set("other_flavor_id", chosen.id)
        if let diskConfig { changes.set("disk_config", diskConfig) }
        let migration = try MigrationStore.begin(
            connection, .resize, of: server, for: owner, target: compute.settings.resizesOnSameHost ? server.host : nil,
            flavor: chosen.document, setting: changes, ambient: compute.ambient)
        try start(server, migration, newFlavor: chosen.id)
        // Last, because the quota's usage row serializes the requests of the project.
        let more = MigrationStore.excess(new, over: old)
        if !more.isEmpty { try compute.quota.reserve(connection, project: server.project, more) }
    }

    private func start(_ server: ServerRecord, _ migration: String, newFlavor: String) throws {
        let move =
            try MoveChecks(connection, compute).whatForbidsLeaving(server) == nil
            ? ServerMigration.Frame(
                migration: migration, source: server.host ?? "",
                power: server.vmState == VMState.stopped.rawValue ? .shutoff : .running,
                localDisks: try DiskTransferSteps.plan(connection, server: server.id, as: owner.mover, ambient: compute.ambient),
                newFlavor: newFlavor) : nil
        if compute.settings.resizesOnSameHost {
            try Workflows.start(
                connection, ServerResize(compute).workflow, subject: server.id,
                frame: ServerResize.Frame(migration: migration, newFlavor: newFlavor, move: move), requestID: owner.requestID,
                ambient: compute.ambient)
        } else if let move {
            try Workflows.start(
                connection, ServerMigration(compute).workflow, subject: server.id, frame: move, requestID: owner.requestID,
                ambient: compute.ambient)
        }
    }

    /// - Parameter image: nil for a server on a volume.
    private func check(_ new: ServerFlavor, _ old: ServerFlavor, image: ServerImage?, _ row: Row) throws {
        if let image {
            guard new.rootGiB > 0 else {
                throw ResourceError.badRequest(
                    "Server disk was unable to be resized because: Resize to zero disk flavor is not allowed.")
            }
            let disk = old.rootGiB > 0 ? old.rootGiB : image.diskGiB ?? 0
            guard new.rootGiB >= disk else { throw ResizeRequest.shrinks("root", from: disk, to: new.rootGiB) }
            if let least = try row.optionalInt("min_disk"), least > new.rootGiB {
                throw ResourceError.badRequest(
                    "Flavor's disk is too small for requested image. Flavor disk is \(new.rootGiB) GiB, image needs \(least) GiB.")
            }
        }
        let (ephemeral, before) = (new.ephemeralGiB ?? 0, old.ephemeralGiB ?? 0)
        guard ephemeral >= before else { throw ResizeRequest.shrinks("ephemeral", from: before, to: ephemeral) }
        if let least = try row.optionalInt("min_ram"), least > new.memoryMiB {
            throw ResourceError.badRequest(
                """
                Flavor's memory is too small for requested image. Flavor memory is \(new.memoryMiB) MiB, the \
                image's min_ram is \(least) MiB.
                """
            )
        }
    }

    private static func shrinks(_ disk: String, from old: Int, to new: Int) -> ResourceError {
        .badRequest("Resize error: Unable to resize disk down. The \(disk) disk has \(old) GiB, and the flavor's has \(new) GiB.")
    }
}
