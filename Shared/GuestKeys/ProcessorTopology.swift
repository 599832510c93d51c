/// Sockets, cores and threads of a guest's processors.
package struct ProcessorTopology: Sendable, Hashable {
    package var sockets: Int
    package var cores: Int
    package var threads: Int

    package init(sockets: Int, cores: Int, threads: Int) {
        self.sockets = sockets
        self.cores = cores
        self.threads = threads
    }

    private var parts: [Int] { [sockets, cores, threads] }

    func exceeds(_ other: ProcessorTopology) -> Bool { zip(parts, other.parts).contains { $0 > $1 } }

    /// The number of matching preferences; a preference of 0 matches anything.
    func agreement(with wanted: ProcessorTopology) -> Int { zip(parts, wanted.parts).count { $1 > 0 && $0 == $1 } }
}

/// The topology requested by a flavor and an image, by Nova's rules: limits of the image replace those of the flavor and must not exceed
/// them; any preference of the image replaces all of the flavor.
struct TopologyRules: Sendable, Hashable {
    /// 0 for no preference.
    let preferred: ProcessorTopology
    let maximum: ProcessorTopology
    let isSet: Bool

    private static let unlimited = 65_536
    private static let parts = ["sockets", "cores", "threads"]

    init(_ texts: GuestTexts) {
        func read(_ prefix: String, _ none: Int) -> ProcessorTopology {
            let numbers = TopologyRules.parts.map { texts.number(prefix + $0) ?? none }
            return ProcessorTopology(sockets: numbers[0], cores: numbers[1], threads: numbers[2])
        }
        let flavor = read("hw:cpu_", 0)
        let image = read("hw_cpu_", 0)
        let (flavorMost, imageMost) = (read("hw:cpu_max_", TopologyRules.unlimited), read("hw_cpu_max_", 0))
        maximum = ProcessorTopology(
            sockets: imageMost.sockets > 0 ? imageMost.sockets : flavorMost.sockets,
            cores: imageMost.cores > 0 ? imageMost.cores : flavorMost.cores,
            threads: imageMost.threads > 0 ? imageMost.threads : flavorMost.threads)
        let none = ProcessorTopology(sockets: 0, cores: 0, threads: 0)
        preferred = image == none ? (flavor.exceeds(maximum) ? none : flavor) : image
        let unlimited = ProcessorTopology(
            sockets: TopologyRules.unlimited, cores: TopologyRules.unlimited, threads: TopologyRules.unlimited)
        isSet = preferred != none || maximum != unlimited
    }

    /// The best allowed topology: the one that matches most preferences, then the one with the fewest threads and the most sockets; nil if
    /// none is allowed.
    func best(vcpus: Int) -> ProcessorTopology? {
        var best: (rank: [Int], topology: ProcessorTopology)?
        let divisors = TopologyRules.divisors(vcpus)
        for sockets in divisors {
            for cores in divisors where (vcpus / sockets).isMultiple(of: cores) {
                let topology = ProcessorTopology(sockets: sockets, cores: cores, threads: vcpus / sockets / cores)
                guard !topology.exceeds(maximum) else { continue }
                let rank = [topology.agreement(with: preferred), sockets * cores, sockets]
                if best.map({ $0.rank.lexicographicallyPrecedes(rank) }) ?? true { best = (rank, topology) }
            }
        }
        return best?.topology
    }

    private static func divisors(_ number: Int) -> [Int] {
        var divisors: [Int] = []
        var candidate = 1
        while candidate * candidate <= number {
            if number.isMultiple(of: candidate) {
                divisors += candidate * candidate == number ? [candidate] : [candidate, number / candidate]
            }
            candidate += 1
        }
        return divisors
    }

    /// A contradiction in the request, described for the tenant.
    static func conflicts(_ texts: GuestTexts, vcpus: Int) -> [String] {
        var conflicts: [String] = []
        let rules = TopologyRules(texts)
        for part in parts {
            let (most, imageMost) = (texts.number("hw:cpu_max_" + part), texts.number("hw_cpu_max_" + part))
            if let most, let imageMost, imageMost > most {
                conflicts.append(
                    "The property 'hw_cpu_max_\(part)' of the image is \(imageMost), above the extra spec 'hw:cpu_max_\(part)' of the "
                        + "flavor, which is \(most).")
            }
            let limit = imageMost ?? most ?? unlimited
            if let wanted = texts.number("hw_cpu_" + part), wanted > limit {
                let name = imageMost == nil ? "hw:cpu_max_" : "hw_cpu_max_"
                conflicts.append("The property 'hw_cpu_\(part)' of the image is \(wanted), above '\(name)\(part)', which is \(limit).")
            }
        }
        if conflicts.isEmpty, rules.best(vcpus: vcpus) == nil {
            let most = rules.maximum
            conflicts.append(
                "The flavor's \(vcpus) vcpus cannot be divided into at most \(most.sockets) sockets ('hw:cpu_max_sockets'), "
                    + "\(most.cores) cores ('hw:cpu_max_cores') and \(most.threads) threads ('hw:cpu_max_threads').")
        }
        return conflicts
    }
}
