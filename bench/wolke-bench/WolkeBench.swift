import ArgumentParser

/// Peers and measurements of `make bench` that need Swift.
@main
struct WolkeBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "wolke-bench", abstract: "Peers that Wolke is measured against.",
        subcommands: [
            BareServer.self, RowFetcher.self, Hashing.self, SchedulerRate.self, ClaimRate.self, StepRate.self, RoundTrips.self,
            PortWatch.self, PortCreates.self, PortBatches.self, MigrateCommand.self,
        ])
}
