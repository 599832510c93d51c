package import Contracts

/// The quotas of Compute. Operators set the defaults in the section `compute`.
package enum ComputeQuotas {
    /// The servers that count. As in Nova, deleted servers that can still be restored do not count.
    private static let counted = "NOT deleted AND (vm_state <> 'soft-delete' OR task_state IS NOT DISTINCT FROM 'restoring')"

    package static let instances = quota(
        "instances", default: 10, "Servers that a project may have", absolute: .init("maxTotalInstances", used: "totalInstancesUsed"),
        .counted("SELECT project_id AS owner, count(*) AS amount FROM servers WHERE \(counted) GROUP BY project_id"))

    package static let cores = quota(
        "cores", default: 20, "Processors that a project may have", absolute: .init("maxTotalCores", used: "totalCoresUsed"),
        .counted(
            """
            SELECT project_id AS owner, sum(greatest((flavor->>'vcpus')::bigint, (other_flavor->>'vcpus')::bigint))::bigint AS amount
            FROM servers WHERE \(counted) GROUP BY project_id
            """))

    package static let memory = quota(
        "ram", default: 51_200, unit: .mebibytes, "memory that a project may have",
        absolute: .init("maxTotalRAMSize", used: "totalRAMUsed"),
        .counted(
            """
            SELECT project_id AS owner, sum(greatest((flavor->>'ram')::bigint, (other_flavor->>'ram')::bigint))::bigint AS amount
            FROM servers WHERE \(counted) GROUP BY project_id
            """))

    package static let metadataItems = quota(
        "metadata_items", default: 128, "Metadata items that a server may have", absolute: .init("maxServerMeta"), .each)

    package static let keyPairs = quota(
        "key_pairs", default: 100, "Key pairs that a user may have", absolute: .init("maxTotalKeypairs"),
        .counted(per: .user, "SELECT user_id AS owner, count(*) AS amount FROM keypairs GROUP BY user_id"))

    package static let serverGroups = quota(
        "server_groups", default: 10, "Server groups that a project may have",
        absolute: .init("maxServerGroups", used: "totalServerGroupsUsed"),
        .counted("SELECT project_id AS owner, count(*) AS amount FROM server_groups GROUP BY project_id"))

    package static let serverGroupMembers = quota(
        "server_group_members", default: 10, "Servers that a server group may have", absolute: .init("maxServerGroupMembers"), .each)

    package static let files = quota(
        "injected_files", default: 5, "Files that a server may be given when it is created (before 2.57)",
        absolute: .init("maxPersonality"), lastMinor: 56, .each)

    package static let fileSize = quota(
        "injected_file_content_bytes", default: 10_240, unit: .bytes, "such a file", absolute: .init("maxPersonalitySize"), lastMinor: 56,
        .each)

    package static let filePathLength = quota(
        "injected_file_path_bytes", default: 255, unit: .bytes, "such a file's path", lastMinor: 56, .each)

    /// Limits of nova-network, which clients see through 2.35.
    private static let network = [
        quota(
            "floating_ips", default: -1, "Floating IPs", absolute: .init("maxTotalFloatingIps", used: "totalFloatingIpsUsed"),
            lastMinor: 35, .none),
        quota("fixed_ips", default: -1, "Fixed addresses", lastMinor: 35, .none),
        quota(
            "security_groups", default: -1, "Security groups", absolute: .init("maxSecurityGroups", used: "totalSecurityGroupsUsed"),
            lastMinor: 35, .none),
        quota(
            "security_group_rules", default: -1, "Rules of security groups", absolute: .init("maxSecurityGroupRules"), lastMinor: 35,
            .none),
    ]

    /// In the order in which answers show them.
    package static let all =
        [
            instances, cores, memory, metadataItems, keyPairs, serverGroups, serverGroupMembers, files, fileSize, filePathLength,
        ] + network

    private static func quota(
        _ name: String, default preset: Int, unit: QuotaDeclaration.Unit = .items, _ words: String,
        absolute: QuotaDeclaration.Absolute? = nil, lastMinor: Int? = nil, _ use: QuotaDeclaration.Use
    ) -> QuotaDeclaration {
        QuotaDeclaration("compute", name, default: preset, unit: unit, words, absolute: absolute, lastMinor: lastMinor, use)
    }
}
