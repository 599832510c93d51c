import PlacementService
import ServiceCatalog
import ServiceKit

await ServiceProcess.main(.placement, keys: PlacementApplication.settingsKeys) {
    try await PlacementApplication($0).run()
}
