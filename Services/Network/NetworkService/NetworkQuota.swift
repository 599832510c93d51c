import Contracts
import NetworkCore
import ServiceKit
import Settings
import WebAPI

/// Network's quotas, with Network's error.
enum NetworkQuota {
    /// - Parameter settings: nil for the presets.
    static func make(_ settings: Settings? = nil) -> Quota {
        let limits = settings.map { QuotaDeclaration.limits(NetworkQuotas.all, in: $0) } ?? [:]
        return Quota(NetworkQuotas.all, limits: limits) { name, _, _, _ in NetworkFault.overQuota([name]) }
    }
}
