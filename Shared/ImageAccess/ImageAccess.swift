package import Authorization
package import Database
package import JSON
package import Kernel
package import Settings

/// An image that the caller may use, with the data that other services need.
package struct UsableImage: Sendable {
    package let id: String
    package let name: String?
    /// `queued`, `saving`, `active` or `deactivated`: only an active one can be used.
    package let status: String
    package let diskFormat: String?
    package let containerFormat: String?
    /// In GB.
    package let minDisk: Int
    /// In MiB.
    package let minRAM: Int
    /// Sizes of the data and of the disk in it, in bytes; nil if unknown.
    package let size: Int?
    package let virtualSize: Int?
    package let checksum: String?
    package let hashAlgorithm: String?
    package let hashValue: String?
    package let properties: JSONObject
    /// Whether the user's own rights are needed, because a member of the project may not download the image.
    package let needsUser: Bool
}

/// Decides who may use an image: for booting, for creating volumes from images, and for Image itself.
///
/// The rules are Image's, with the operator's changes in `image.policy_file`. Rows are read in the caller's own transaction, so
/// that a request does not wait for another service.
package struct ImageAccess: Sendable {
    private let policy: Policy
    private let protections: PropertyProtections?

    /// - Parameters:
    ///   - policyOverrides: the rules of the operator's policy file for Image.
    ///   - protections: who may set which properties of images; nil if everyone may.
    /// - Throws: 400 for a rule that cannot be parsed.
    package init(policyOverrides: [String: String] = [:], protections: PropertyProtections? = nil) throws {
        self.protections = protections
        policy = try Policy(defaults: ImageRules.defaults, overrides: policyOverrides)
    }

    /// The settings of Image for all services that decide about access to images.
    package static let settings: SettingsSchema = .borrowing(
        "image",
        [
            .string("policy_file", default: nil, "YAML file of policy rules (`action: rule`) that replace the defaults."),
            PropertyProtections.key,
        ])

    /// - Throws: `SettingsError` naming the policy file and the error in it, 400 for a rule that cannot be parsed.
    package init(_ settings: Settings) throws {
        try self.init(
            policyOverrides: try settings.optionalString("image.policy_file").map { try SettingsFile.texts($0) } ?? [:],
            protections: try PropertyProtections(settings))
    }

    /// Checks properties that an image of a server or volume will have, or that a volume keeps for its images. The check is needed here,
    /// because the service that carries out the request later does not have the caller's roles.
    ///
    /// - Parameter before: properties that need no check, because the image has them already.
    /// - Throws: 403 naming the first property that the caller may not change.
    package func checkProperties(_ after: JSONObject, before: JSONObject = [:], for caller: Caller) throws {
        guard let protections else { return }
        try protections.check(before, after) { caller.has(role: $0) }
    }

    /// Whether there are properties that not everyone may see.
    package var protectsProperties: Bool { protections != nil }

    /// Whether the caller may see a property.
    package func isReadable(_ property: String, for caller: Caller) -> Bool {
        protections?.allow(.read, property) { caller.has(role: $0) } ?? true
    }

    /// The properties of an image; nil if it was deleted.
    package func properties(_ connection: Connection, of id: String) throws -> JSONObject? {
        try connection.query("SELECT properties FROM published_images WHERE id = \(id)::uuid").first?.object("properties")
    }

    /// An image whose data the caller may read.
    ///
    /// - Returns: nil if Image would answer 404: the image does not exist, or the caller may not see it.
    /// - Throws: 403 with Image's message if the caller may see the image but not download it.
    package func image(_ connection: Connection, _ id: String, for caller: Caller) throws -> UsableImage? {
        guard let found = try find(connection, id, project: caller.projectID),
            policy.allows("get_image", caller, found.target)
        else { return nil }
        _ = try policy.authorize("download_image", caller, (), target: found.target)
        return found.image
    }

    /// The image for work that was accepted earlier, and the subject for requesting its data from Image, which then decides.
    ///
    /// - Returns: nil if the image no longer exists.
    package func source(
        _ connection: Connection, _ id: String, project: String, user: String
    ) throws -> (image: UsableImage, subject: ActingSubject)? {
        guard let image = try find(connection, id, project: project)?.image else { return nil }
        return (image, ActingSubject(project: project, user: user, grounds: image.needsUser ? .user : .accepted))
    }

    /// The status of an image that work accepted earlier has created; nil if it was deleted.
    package func status(_ connection: Connection, of id: String) throws -> String? {
        try connection.query("SELECT status FROM published_images WHERE id = \(id)::uuid").first?.string("status")
    }

    /// Ids of a project's images with these properties, newest first.
    package func ids(_ connection: Connection, project: String, with properties: JSONObject) throws -> [String] {
        try connection.query(
            """
            SELECT id FROM published_images WHERE project_id = \(project) AND properties @> \(properties)::jsonb
            ORDER BY created_at DESC, id DESC
            """
        ).map { try $0.string("id") }
    }

    private func find(
        _ connection: Connection, _ id: String, project: String?
    ) throws -> (image: UsableImage, target: PolicyTarget)? {
        guard let id = UUID128(id) else { return nil }
        let rows = try connection.query(
            """
            SELECT i.id, i.name, i.project_id, i.visibility, i.status, i.disk_format, i.container_format, i.min_disk, i.min_ram, i.size,
                i.virtual_size, i.checksum, i.os_hash_algo, i.os_hash_value, i.properties, m.member_id
            FROM published_images i LEFT JOIN published_image_members m ON m.image_id = i.id AND m.member_id = \(project)
            WHERE i.id = \(id.description)::uuid
            """)
        guard let row = rows.first else { return nil }
        let target = ImageRules.target(
            owner: try row.string("project_id"), visibility: try row.string("visibility"), member: try row.optionalString("member_id"))
        let member = Caller.accepted(ActingSubject(project: project ?? "", user: "", grounds: .accepted))
        let image = UsableImage(
            id: id.description, name: try row.optionalString("name"), status: try row.string("status"),
            diskFormat: try row.optionalString("disk_format"), containerFormat: try row.optionalString("container_format"),
            minDisk: try row.int("min_disk"), minRAM: try row.int("min_ram"), size: try row.optionalInt("size"),
            virtualSize: try row.optionalInt("virtual_size"), checksum: try row.optionalString("checksum"),
            hashAlgorithm: try row.optionalString("os_hash_algo"), hashValue: try row.optionalString("os_hash_value"),
            properties: try row.object("properties"),
            needsUser: !(policy.allows("get_image", member, target) && policy.allows("download_image", member, target)))
        return (image, target)
    }
}
