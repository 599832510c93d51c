import Kernel

/// A NUMA node of a guest.
package struct NUMANode: Sendable, Hashable {
    /// In ascending order.
    package let processors: [Int]
    package let memoryMiB: Int

    package init(processors: [Int], memoryMiB: Int) {
        self.processors = processors
        self.memoryMiB = memoryMiB
    }
}

/// The NUMA nodes requested by a flavor or image.
struct NUMARequest: Sendable, Hashable {
    /// Nil for none.
    let count: Int?
    /// The requested values by node.
    let processors: [String: String]
    let memory: [String: String]
    private let isOfFlavor: Bool

    var isSet: Bool { count != nil || !processors.isEmpty || !memory.isEmpty }

    init(_ texts: GuestTexts) {
        func parts(_ all: [String: String], _ prefix: String) -> [String: String] {
            Dictionary(
                all.compactMap { $0.key.hasPrefix(prefix) ? (String($0.key.dropFirst(prefix.count)), $0.value) : nil },
                uniquingKeysWith: { $1 })
        }
        let flavor = NUMARequest(
            count: texts.number("hw:numa_nodes"), processors: parts(texts.specs, "hw:numa_cpus."),
            memory: parts(texts.specs, "hw:numa_mem."), isOfFlavor: true)
        let image = NUMARequest(
            count: texts.number("hw_numa_nodes"), processors: parts(texts.properties, "hw_numa_cpus."),
            memory: parts(texts.properties, "hw_numa_mem."), isOfFlavor: false)
        self = flavor.isSet ? flavor : image
    }

    private init(count: Int?, processors: [String: String], memory: [String: String], isOfFlavor: Bool) {
        self.count = count
        self.processors = processors
        self.memory = memory
        self.isOfFlavor = isOfFlavor
    }

    private func name(_ part: String) -> String { (isOfFlavor ? "hw:numa_" : "hw_numa_") + part }

    private func wrong(_ part: String, _ rule: String) -> ResourceError { .badRequest("Invalid '\(name(part))': \(rule)") }

    /// - Throws: 400 naming the key and the rule.
    func nodes(vcpus: Int, memoryMiB: Int) throws -> [NUMANode] {
        guard isSet else { return [] }
        guard let count else { throw wrong("nodes", "it is missing, and other keys describe nodes.") }
        guard count <= vcpus else { throw wrong("nodes", "it is \(count), and the flavor has \(vcpus) vcpus. Every node needs a vcpu.") }
        let known = Set((0..<count).map { String($0) })
        for (part, texts) in [("cpus", processors), ("mem", memory)] {
            if let other = texts.keys.sorted().first(where: { !known.contains($0) }) {
                throw wrong("\(part).\(other.prefix(32))", "'\(name("nodes"))' is \(count), so the nodes are 0 to \(count - 1).")
            }
        }
        guard !processors.isEmpty || !memory.isEmpty else { return try equalNodes(count, vcpus, memoryMiB) }
        return try givenNodes(count, vcpus, memoryMiB)
    }

    private func equalNodes(_ count: Int, _ vcpus: Int, _ memoryMiB: Int) throws -> [NUMANode] {
        guard vcpus.isMultiple(of: count), memoryMiB.isMultiple(of: count) else {
            throw wrong(
                "nodes",
                "\(vcpus) vcpus and \(memoryMiB) MiB cannot be divided equally among \(count) nodes; say '\(name("cpus.N"))' and "
                    + "'\(name("mem.N"))'.")
        }
        let each = vcpus / count
        return (0..<count).map { NUMANode(processors: Array($0 * each..<($0 + 1) * each), memoryMiB: memoryMiB / count) }
    }

    private func givenNodes(_ count: Int, _ vcpus: Int, _ memoryMiB: Int) throws -> [NUMANode] {
        var nodes: [NUMANode] = []
        var seen: Set<Int> = []
        for index in 0..<count {
            guard let text = processors[String(index)], let size = memory[String(index)] else {
                throw wrong("nodes", "'\(name("cpus.N"))' and '\(name("mem.N"))' must be there for all \(count) nodes, or for none.")
            }
            guard let list = ProcessorList.read(text, largest: vcpus - 1), !list.isEmpty else {
                throw wrong("cpus.\(index)", "'\(text.prefix(64))' is not a list of vcpus from 0 to \(vcpus - 1), such as 0-1,3.")
            }
            guard seen.isDisjoint(with: list) else { throw wrong("cpus.\(index)", "a vcpu is in two nodes.") }
            guard let memory = Int(size), memory > 0 else { throw wrong("mem.\(index)", "'\(size.prefix(64))' is not a size in MiB.") }
            seen.formUnion(list)
            nodes.append(NUMANode(processors: list.sorted(), memoryMiB: memory))
        }
        guard seen.count == vcpus else { throw wrong("cpus.N", "\(vcpus - seen.count) of the flavor's \(vcpus) vcpus are in no node.") }
        let total = nodes.reduce(into: 0) { $0 = $0.addingReportingOverflow($1.memoryMiB).partialValue }
        guard total == memoryMiB, nodes.allSatisfy({ $0.memoryMiB <= memoryMiB }) else {
            throw wrong("mem.N", "the nodes have \(total) MiB in all, and the flavor has \(memoryMiB) MiB.")
        }
        return nodes
    }
}

/// Lists of processors as libvirt and Nova write them: `0-3,^2,7`.
package enum ProcessorList {
    /// Nil for text that is not a list, or that contains a number above `largest`.
    package static func read(_ text: String, largest: Int) -> Set<Int>? {
        var list: Set<Int> = []
        var without: Set<Int> = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            var item = part.trimmingPrefix { $0 == " " }
            while item.last == " " { item.removeLast() }
            let isExcluded = item.first == "^"
            let ends = (isExcluded ? item.dropFirst() : item[...]).split(separator: "-", omittingEmptySubsequences: false)
            let numbers = ends.compactMap { $0.utf8.allSatisfy { (48...57).contains($0) } ? Int($0) : nil }
            guard numbers.count == ends.count, (1...(isExcluded ? 1 : 2)).contains(numbers.count), let first = numbers.first,
                let last = numbers.last, first <= last, last <= largest
            else { return nil }
            if isExcluded { without.insert(first) } else { list.formUnion(first...last) }
        }
        return list.subtracting(without)
    }

    /// The list in its shortest form.
    package static func text(_ processors: some Sequence<Int>) -> String {
        var ranges: [ClosedRange<Int>] = []
        for number in Set(processors).sorted() {
            if let last = ranges.last, last.upperBound + 1 == number {
                ranges[ranges.count - 1] = last.lowerBound...number
            } else {
                ranges.append(number...number)
            }
        }
        return ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }.joined(separator: ",")
    }
}
