package import Kernel

/// A provider with the data that the search for candidates needs.
package struct CandidateProvider: Sendable {
    package var id: UUID128
    package var parentID: UUID128?
    package var rootID: UUID128
    package var inventories: [String: Inventory]
    package var used: [String: Int]
    package var traits: Set<String>

    package init(
        id: UUID128, parentID: UUID128?, rootID: UUID128, inventories: [String: Inventory], used: [String: Int],
        traits: Set<String>
    ) {
        self.id = id
        self.parentID = parentID
        self.rootID = rootID
        self.inventories = inventories
        self.used = used
        self.traits = traits
    }

    func fits(_ need: ResourceAmount) -> Bool {
        guard let inventory = inventories[need.resourceClass], inventory.admits(need.amount) else { return false }
        return need.amount + (used[need.resourceClass] ?? 0) <= inventory.capacity
    }
}

/// The allocation candidates of one tree of providers.
package enum Candidates {
    /// Maximum number of candidates considered per tree.
    private static let waysMax = 1000

    /// One candidate for each combination of providers in which each class comes from one provider. The providers that take part
    /// must together have the required traits, and none of them may have a forbidden one.
    package static func ways(
        _ tree: [CandidateProvider], _ query: ProviderQuery
    ) -> [[(provider: UUID128, resources: [ResourceAmount])]] {
        let forbidden = Set(query.forbidden)
        let usable = tree.filter { $0.traits.isDisjoint(with: forbidden) }
        var ways: [[(ResourceAmount, CandidateProvider)]] = [[]]
        for need in query.resources {
            let givers = usable.filter { $0.fits(need) }
            var longer: [[(ResourceAmount, CandidateProvider)]] = []
            for way in ways {
                for giver in givers where longer.count < waysMax { longer.append(way + [(need, giver)]) }
            }
            ways = longer
        }
        let asked = ways.filter { way in
            let traits = way.reduce(into: Set<String>()) { $0.formUnion($1.1.traits) }
            return query.required.allSatisfy { group in group.contains { traits.contains($0) } }
        }
        return asked.map { way in
            var grouped: [(provider: UUID128, resources: [ResourceAmount])] = []
            for (need, giver) in way {
                if let place = grouped.firstIndex(where: { $0.provider == giver.id }) {
                    grouped[place].resources.append(need)
                } else {
                    grouped.append((giver.id, [need]))
                }
            }
            return grouped
        }
    }
}
