import ConsoleService
import ServiceCatalog
import ServiceKit

await ServiceProcess.main(.console, keys: ConsoleApplication.settingsKeys) {
    try await ConsoleApplication($0).run()
}
