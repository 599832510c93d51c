import BlockStorageCore
import ComputeCore
import ImageCore
import Inspections
import NetworkCore
import PlacementCore
import ServiceCatalog

extension Inspection {
    /// The rules of the foundation and of every service, with those about the ledgers of quotas.
    static let all =
        foundation + PlacementInspections.all + NetworkInspections.all + BlockStorageInspections.all + ComputeInspections.all
        + (ComputeQuotas.all + NetworkQuotas.all + BlockStorageQuotas.all + ImageQuotas.all).compactMap { Ledger($0)?.inspection }
}
