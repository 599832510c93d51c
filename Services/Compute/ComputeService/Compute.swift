package import Database
package import ImageAccess
import JSON
package import Kernel
package import Logging
package import Messaging
import ServiceCatalog
package import ServiceKit
package import WebAPI
import Workflow

/// Dependencies shared by all parts of the service: database, clients of other services, sources of time and ids.
package struct Compute: Sendable {
    package let database: Database
    package let ambient: Ambient
    package let bus: any MessageBus
    package let clients: ServiceClients
    package let log: Logger
    package let settings: ComputeSettings
    /// Decides who may boot which image.
    let images: ImageAccess

    package init(
        _ surroundings: ServiceSurroundings, clients: ServiceClients, images: ImageAccess, settings: ComputeSettings = ComputeSettings()
    ) {
        database = surroundings.database
        ambient = surroundings.ambient
        bus = surroundings.bus
        log = surroundings.log
        self.clients = clients
        self.settings = settings
        self.images = images
    }

    /// Default limits of projects, and the error texts for exceeding them.
    var quota: Quota { settings.quota }

    /// Logs servers whose rows cannot be decoded.
    ///
    /// - Parameter servers: the reasons by the servers' ids.
    func report(unreadable servers: [String: String]) {
        for (id, reason) in servers.sorted(by: { $0.key < $1.key }) {
            log.error("a server's row cannot be read", metadata: ["server": "\(id)", "error": "\(reason)"])
        }
    }

    /// The name of the service in workflows, intents and messages.
    static let service = CloudService.compute.section
}

/// Settings of the service that its parts need.
package struct ComputeSettings: Sendable {
    /// A host that has said nothing for so long counts as down.
    package var hostDownAfter: Duration
    /// How long a create may wait for its host.
    package var spawnDeadline: Duration
    /// Zone of hosts that are in no aggregate with a zone.
    package var defaultZone: String
    /// Whether a resize may keep the server on its host.
    package var resizesOnSameHost: Bool
    /// How long a resize waits before it is confirmed automatically; nil for never.
    package var resizeConfirmWindow: Duration?
    /// How long deleted servers can still be read.
    package var keepDeleted: Duration
    /// Seconds after which a shelved server is removed from its host: 0 at once, −1 never.
    package var shelvedOffloadTime: Int
    /// Limits of projects that have none of their own.
    package var quota: Quota
    /// How long deleted servers can be restored.
    package var reclaim: ReclaimIntervals
    /// How long the transfer of a running guest may take for each GiB of its memory and local disks; zero for no limit.
    package var liveMigrationTimeout: Duration = .seconds(800)
    /// The base URL of the console service, without a trailing slash.
    package var consoleURL = "http://127.0.0.1:\(CloudService.console.port)"
    package var consolePort = CloudService.console.port
    /// How long the URL of a console can be opened.
    package var consoleTokenLifetime: Duration = .seconds(600)

    package init(
        hostDownAfter: Duration = .seconds(60), spawnDeadline: Duration = .seconds(900), defaultZone: String = "nova",
        resizesOnSameHost: Bool = true, resizeConfirmWindow: Duration? = nil, keepDeleted: Duration = .seconds(90 * 86_400),
        shelvedOffloadTime: Int = 0, quota: Quota = ComputeQuota.make(), reclaim: ReclaimIntervals = ReclaimIntervals()
    ) {
        self.shelvedOffloadTime = shelvedOffloadTime
        self.hostDownAfter = hostDownAfter
        self.spawnDeadline = spawnDeadline
        self.defaultZone = defaultZone
        self.resizesOnSameHost = resizesOnSameHost
        self.resizeConfirmWindow = resizeConfirmWindow
        self.keepDeleted = keepDeleted
        self.quota = quota
        self.reclaim = reclaim
    }
}
