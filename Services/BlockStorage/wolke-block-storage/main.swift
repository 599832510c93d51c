import BlockStorageService
import ServiceKit

await ServiceProcess.main("wolke-block-storage", section: "block_storage", keys: BlockStorageApplication.settingsKeys) {
    try await BlockStorageApplication($0).run()
}
