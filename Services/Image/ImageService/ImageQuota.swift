import Contracts
import Database
import ImageCore
import Kernel
import WebAPI

/// The quota of a project, counted exactly in the transactions that add and remove images and data.
struct ImageQuota: Sendable {
    let quota: Quota

    init(_ limits: [String: Int]) {
        quota = Quota(ImageQuotas.all, limits: limits) { name, asked, used, limit in
            ResourceError(
                .tooLarge,
                "Project is over a limit: \(name) has a limit of \(limit), \(used) are used and \(asked) more were requested.")
        }
    }

    /// The size for the quota: whole MiB, rounded up.
    static func mebibytes(_ bytes: Int) -> Int { ImageQuotas.mebibytes(bytes) }

    func amounts(_ image: Image) -> [(quota: QuotaDeclaration, amount: Int)] {
        var amounts = [(quota: ImageQuotas.count, amount: 1)]
        if let size = image.storedMebibytes { amounts.append((quota: ImageQuotas.size, amount: size)) }
        return amounts
    }

    func reserve(_ connection: Connection, _ image: Image) throws {
        try quota.reserve(connection, project: image.owner, amounts(image))
    }

    func release(_ connection: Connection, _ image: Image) throws {
        try Quota.release(connection, project: image.owner, amounts(image))
    }

    /// The largest data that may be added, and the error for larger data.
    ///
    /// - Parameter remaining: the bytes that the project may still add; nil without a limit.
    func limit(remaining: Int?, uploadBytesMax: Int) -> (bytes: Int, error: ResourceError) {
        if let remaining, remaining < uploadBytesMax {
            return (remaining, ResourceError(.tooLarge, "The project's quota (image_size_total) allows \(remaining) more bytes."))
        }
        return (uploadBytesMax, ResourceError(.tooLarge, "The data is larger than the maximum of \(uploadBytesMax) bytes."))
    }

    /// Number of bytes that the project may still add; nil without a limit.
    func remaining(_ connection: Connection, project: String) throws -> Int? {
        let state = try quota.state(connection, project: project, ImageQuotas.size)
        return state.limit < 0 ? nil : max(0, state.limit - state.used) << 20
    }
}
