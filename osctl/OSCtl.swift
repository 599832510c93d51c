import ArgumentParser
import Kernel
import Settings

/// The command line: one file per group of commands, each listed here.
@main
struct OSCtl: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "osctl",
        abstract: "Wolke's command line, for tenants and operators.", version: WolkeVersion.current,
        groupedSubcommands: TenantCommands.groups + [CommandGroup(name: "Machine", subcommands: machineCommands)])

    /// Commands for the one-machine cloud: its state, its database.
    static let machineCommands: [any ParsableCommand.Type] = [
        CloudCommand.self, StatusCommand.self, DemoCommand.self, DoctorCommand.self, SimulateCommand.self, DatabaseCommand.self,
    ]

    static func main() async {
        DescriptorLimit.raise()
        await main(nil)
    }

    /// Options that can also precede the noun, as in the other clients.
    @OptionGroup(title: "Cloud") var access: AccessOptions
}
