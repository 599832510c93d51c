import ComputeService
import ServiceCatalog
import ServiceKit

await ServiceProcess.main(
    .compute, keys: ComputeApplication.settingsKeys,
    borrowing: ComputeApplication.borrowedSettings
) {
    try await ComputeApplication($0).run()
}
