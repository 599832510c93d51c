import BareMetalCore
import Database
import Kernel
import Workflow

extension NodeWorkflows {
    /// A change of how a machine starts.
    struct BootSettings: Codable, Sendable {
        /// Nil to leave it as it is.
        var mode: BootMode?
        /// Nil to leave it as it is.
        var isSecure: Bool?
        let user: String

        var words: String {
            [mode.map { "boot mode \($0.rawValue)" }, isSecure.map { "secure boot \($0 ? "on" : "off")" }].compactMap { $0 }
                .joined(separator: ", ")
        }
    }

    /// Sets boot mode and secure boot, and records what the controller shows afterwards.
    var bootSettings: Workflow<BootSettings> {
        Workflow(
            service: NodeWorkflows.service, kind: "node_boot_settings",
            steps: [
                .init("set", deadline: .seconds(600)) { context, frame in
                    let id = context.subjectID
                    guard let node = try await database.read({ try NodeStore.node($0, id) }) else { return .done }
                    let settings = frame
                    let boot = try await working(node) { driver in
                        if let mode = settings.mode { try await driver.setBootMode(of: node, mode) }
                        if let isSecure = settings.isSecure { try await driver.setSecureBoot(of: node, isSecure) }
                        return try await driver.bootState(of: node)
                    }
                    // Some controllers show a change only after the machine has started again.
                    let isPending = (settings.mode ?? boot.mode) != boot.mode || (settings.isSecure ?? boot.isSecure) != boot.isSecure
                    let end = isPending ? ". The controller will show it when the machine has started again." : "."
                    let (now, ambient) = (context.now, ambient)
                    context.commit { connection in
                        try NodeStore.recordBoot(connection, id, boot, at: now)
                        try NodeStore.record(
                            connection, id, "management", "The boot settings were changed: \(settings.words)\(end)", isError: false,
                            user: settings.user, ambient: ambient)
                    }
                    return .next
                }
            ],
            failed: { context, frame, failure in
                let (id, now) = (context.subjectID, ambient.now)
                let text = "The boot settings could not be changed (\(frame.words)): \(failure.message)"
                try await database.write { connection in
                    try NodeStore.recordError(connection, id, text, at: now)
                    try NodeStore.record(connection, id, "management", text, isError: true, user: frame.user, ambient: ambient)
                }
            })
    }
}
