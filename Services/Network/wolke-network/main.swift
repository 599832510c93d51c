import NetworkService
import ServiceCatalog
import ServiceKit

await ServiceProcess.main(.network, keys: NetworkApplication.settingsKeys) {
    try await NetworkApplication($0).run()
}
