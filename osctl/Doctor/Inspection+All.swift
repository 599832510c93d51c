import BareMetalCore
import BlockStorageCore
import ComputeCore
import IdentityCore
import ImageCore
import Inspections
import NetworkCore
import PlacementCore
import ServiceCatalog

extension Inspection {
    /// The inspections of the foundation and of every service, including those of quota ledgers.
    static let all =
        foundation + IdentityInspections.all + PlacementInspections.all + NetworkInspections.all + BlockStorageInspections.all
        + ComputeInspections.all + BareMetalInspections.all
        + (ComputeQuotas.all + NetworkQuotas.all + BlockStorageQuotas.all + ImageQuotas.all).compactMap { Ledger($0)?.inspection }
}
