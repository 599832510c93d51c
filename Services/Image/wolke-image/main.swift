import ImageService
import ServiceCatalog
import ServiceKit

await ServiceProcess.main(.image, keys: ImageApplication.settingsKeys) {
    try await ImageApplication($0).run()
}
