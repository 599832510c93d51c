import ArgumentParser
import Settings

/// The command line: one file per group of commands, each listed here.
@main
struct OSCtl: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "osctl",
        abstract: "Wolke's command line, for tenants and operators.", version: WolkeVersion.current,
        subcommands: tenantCommands + operatorCommands)

    /// Verbs on resources through the public APIs (osctl/Commands).
    static let tenantCommands: [any ParsableCommand.Type] = TenantCommands.all

    /// The one-machine cloud, its state, its database.
    static let operatorCommands: [any ParsableCommand.Type] = [CloudCommand.self, StatusCommand.self, DatabaseCommand.self, DemoCommand.self, DoctorCommand.self, SimulateCommand.self]

    /// Before the noun too, as the other clients have it.
    @OptionGroup(title: "Cloud") var access: AccessOptions
}
