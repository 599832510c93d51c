import BlockStorageService
import ServiceCatalog
import ServiceKit

await ServiceProcess.main(
    .blockStorage, keys: BlockStorageApplication.settingsKeys,
    borrowing: BlockStorageApplication.borrowedSettings
) {
    try await BlockStorageApplication($0).run()
}
