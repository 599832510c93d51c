package import Contracts

/// The quotas of Image. Operators set the defaults in the section `image`.
package enum ImageQuotas {
    package static let count = QuotaDeclaration(
        "image", "image_count_total", default: 100, "Images that a project may have", setting: "quota_images",
        .counted("SELECT project_id AS owner, count(*) AS amount FROM images GROUP BY project_id"))

    /// The size of each image, once for each of its stores, or of its staged data, counts in whole MiB, rounded up.
    package static let size = QuotaDeclaration(
        "image", "image_size_total", default: 1 << 20, unit: .mebibytes, "image data that a project may keep", setting: "quota_size_mb",
        .counted(
            """
            SELECT project_id AS owner,
                sum(((coalesce(size, staging_size) + 1048575) >> 20)
                    * CASE WHEN size IS NULL THEN 1 ELSE greatest(cardinality(stores), 1) END)::bigint AS amount
            FROM images
            WHERE coalesce(size, staging_size) IS NOT NULL
            GROUP BY project_id
            """))

    package static let all = [count, size]

    /// - Parameter bytes: the size of the data.
    package static func mebibytes(_ bytes: Int, stores: Int = 1) -> Int { ((bytes + (1 << 20) - 1) >> 20) * stores }
}
