import IdentityService
import ServiceKit

await ServiceProcess.main("wolke-identity", section: "identity", keys: IdentityApplication.settingsKeys) {
    try await IdentityApplication($0).run()
}
