import PlacementService
import ServiceKit

await ServiceProcess.main("wolke-placement", section: "placement", keys: PlacementApplication.settingsKeys) {
    try await PlacementApplication($0).run()
}
