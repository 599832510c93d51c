import BlockStorageService
import ServiceKit

await ServiceProcess.main(
    "wolke-block-storage", section: "block_storage", keys: BlockStorageApplication.settingsKeys,
    borrowing: BlockStorageApplication.borrowedSettings
) {
    try await BlockStorageApplication($0).run()
}
