import Kernel

/// The size and behaviour of a fleet without hardware.
package struct SimulationOptions: Sendable {
    /// The number of hosts simulated by this process.
    package var hosts: Int
    /// The hosts are called `<prefix>-00001` and so on.
    package var prefix: String
    package var cpus: Int
    package var memoryMiB: Int
    package var diskGiB: Int
    /// How long a server takes to start; a start takes between half and one and a half times as long.
    package var startTime: Duration
    /// Number of failures per 1000 starts.
    package var failuresPerMille: Int
    /// Directory whose files, by their names, make hosts silent; see `SilentHosts`.
    package var silenced: String?

    package init(
        hosts: Int, prefix: String = "sim", cpus: Int = 64, memoryMiB: Int = 262_144, diskGiB: Int = 4096,
        startTime: Duration = .milliseconds(200), failuresPerMille: Int = 0
    ) {
        self.hosts = hosts
        self.prefix = prefix
        self.cpus = cpus
        self.memoryMiB = memoryMiB
        self.diskGiB = diskGiB
        self.startTime = startTime
        self.failuresPerMille = failuresPerMille
    }

    /// - Throws: `ResourceError` 400 that names the argument, its value and the rule.
    package init(arguments: [String]) throws {
        self.init(hosts: 1)
        var rest = arguments[...]
        while let name = rest.popFirst() {
            guard let value = rest.popFirst() else { throw ResourceError.badRequest("\(name) needs a value") }
            func number(_ range: ClosedRange<Int>) throws -> Int {
                guard let number = Int(value), range.contains(number) else {
                    throw ResourceError.badRequest(
                        "\(name) must be from \(range.lowerBound) to \(range.upperBound), not \(value)")
                }
                return number
            }
            switch name {
            case "--hosts": hosts = try number(1...2000)
            case "--prefix": prefix = try SimulationOptions.checked(prefix: value)
            case "--cpus": cpus = try number(1...4096)
            case "--memory-mb": memoryMiB = try number(64...67_108_864)
            case "--disk-gb": diskGiB = try number(1...1_048_576)
            case "--start-ms": startTime = .milliseconds(try number(0...600_000))
            case "--failures-per-mille": failuresPerMille = try number(0...1000)
            case "--silenced": silenced = value
            default: throw ResourceError.badRequest("unknown argument \(name)")
            }
        }
    }

    private static func checked(prefix: String) throws -> String {
        let fits =
            !prefix.isEmpty && prefix.utf8.count <= 40
            && prefix.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 }
        guard fits else {
            throw ResourceError.badRequest("--prefix must be 1 to 40 lower-case letters, digits and -, not \(prefix)")
        }
        return prefix
    }

    /// The name of the host with this number, counted from 1.
    package func hostName(_ number: Int) -> String {
        let digits = String(number)
        return prefix + "-" + String(repeating: "0", count: max(0, 5 - digits.count)) + digits
    }
}
