import ImageService
import ServiceKit

await ServiceProcess.main("wolke-image", section: "image", keys: ImageApplication.settingsKeys) {
    try await ImageApplication($0).run()
}
