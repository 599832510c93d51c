import ComputeCore
import Contracts
import Kernel
import ServiceKit
package import Settings
package import WebAPI

/// Compute's quotas, with its own error.
package enum ComputeQuota {
    /// - Parameter settings: nil for the presets.
    package static func make(_ settings: Settings? = nil) -> Quota {
        let limits = settings.map { QuotaDeclaration.limits(ComputeQuotas.all, in: $0) } ?? [:]
        return Quota(ComputeQuotas.all, limits: limits) { name, asked, used, limit in
            .forbidden("Quota exceeded for \(name): Requested \(asked), but already used \(used) of \(limit) \(name)")
        }
    }
}
