import Contracts
import Database
import ImageAccess
import ImageFormat
import JSON
import Kernel

/// Checks images that become disks of servers.
struct ServerImageCheck {
    let connection: Connection
    let images: ImageAccess
    let owner: ServerOwner

    /// - Throws: 400 where Image would answer 404, or if the image cannot be used as a disk; 403 as in Image if its data may not
    ///   be read.
    func usable(_ id: String) throws -> UsableImage {
        guard let image = try images.image(connection, id, for: owner.caller) else {
            throw ResourceError.badRequest("Image \(id) could not be found.")
        }
        guard image.status == "active" else { throw ResourceError.badRequest("Image \(id) is not active.") }
        let container = image.containerFormat ?? "none"
        guard ContainerFormats.bareDisks.contains(container) else {
            throw ResourceError.badRequest(
                """
                Image \(id) cannot be the disk of a server: its container_format is '\(container)'. It must be one \
                of \(ContainerFormats.bareDisks.sorted().joined(separator: ", ")).
                """
            )
        }
        return image
    }

    /// The image of a root disk, for the agent.
    ///
    /// - Parameters:
    ///   - memory: of the flavor, in MiB.
    ///   - root: of the flavor, in GiB; 0 for as much as the image needs.
    /// - Throws: 400 if the image needs more than the flavor has, 403 for a flavor without a disk; as `usable`.
    func rootDisk(_ id: String, memory: Int, root: Int) throws -> ServerSpec.Image {
        let image = try usable(id)
        guard image.size != 0 else { throw ResourceError.badRequest("Image \(id) has no data, so it cannot be a local root disk.") }
        if image.minRAM > memory {
            throw ResourceError.badRequest(
                """
                Flavor's memory is too small for requested image. Flavor memory is \(memory) MiB, the \
                image's min_ram is \(image.minRAM) MiB.
                """
            )
        }
        let disk = root << 30
        guard root > 0 || owner.mayUseZeroDisk else {
            throw ResourceError.forbidden("Only volume-backed servers are allowed for flavors with zero disk.")
        }
        let needed = max(image.size ?? 0, image.virtualSize ?? 0)
        if root > 0, max(needed, image.minDisk << 30) > disk {
            throw ResourceError.badRequest(
                """
                Flavor's disk is too small for requested image. Flavor disk is \(disk) bytes, image is \
                \(max(needed, image.minDisk << 30)) bytes.
                """
            )
        }
        return try content(image)
    }

    /// The image in the form of the agent's message.
    ///
    /// - Throws: 400 if the image does not say its disk format.
    func content(_ image: UsableImage) throws -> ServerSpec.Image {
        // The agent downloads the image on behalf of this user if the project's members may not.
        try image.spec(administrator: image.needsUser ? owner.asUser : nil)
    }
}
