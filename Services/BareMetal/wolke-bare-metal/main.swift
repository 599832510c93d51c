import BareMetalService
import ServiceCatalog
import ServiceKit

await ServiceProcess.main(.bareMetal, keys: BareMetalApplication.settingsKeys) {
    try await BareMetalApplication($0).run()
}
