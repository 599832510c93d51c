import BlockStorageCore
import ComputeCore
import Inspections
import NetworkCore
import PlacementCore
import ServiceCatalog

extension Inspection {
    /// The rules of the foundation and of every service.
    static let all =
        foundation + PlacementInspections.all + NetworkInspections.all + BlockStorageInspections.all + ComputeInspections.all
}
