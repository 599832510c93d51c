import NetworkService
import ServiceKit

await ServiceProcess.main("wolke-network", section: "network", keys: NetworkApplication.settingsKeys) {
    try await NetworkApplication($0).run()
}
