import IdentityService
import ServiceCatalog
import ServiceKit

await ServiceProcess.main(.identity, keys: IdentityApplication.settingsKeys) {
    try await IdentityApplication($0).run()
}
