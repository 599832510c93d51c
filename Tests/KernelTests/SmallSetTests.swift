import Kernel
import Testing

@Suite struct SmallSetTests {
    /// The same operations on both sets: they have the same elements, regardless of intermediate sizes.
    @Test(arguments: 0..<20) func isASet(seed: UInt64) {
        let random = SeededRandom(seed: seed)
        var small = SmallSet<Int>()
        var set: Set<Int> = []
        for _ in 0..<200 {
            let element = random.below(4)
            if random.below(2) == 0 {
                #expect(small.insert(element) == set.insert(element).inserted)
            } else {
                #expect(small.remove(element) == (set.remove(element) != nil))
            }
            #expect(Set(small) == set)
            #expect(small.count == set.count && small.isEmpty == set.isEmpty)
            #expect(small.only == (set.count == 1 ? set.first : nil))
            #expect((0..<4).allSatisfy { small.contains($0) == set.contains($0) })
            let other = Set((0..<4).filter { _ in random.below(2) == 0 })
            #expect(small.union(SmallSet(other)) == SmallSet(set.union(other)))
            #expect(small.subtracting(SmallSet(other)) == SmallSet(set.subtracting(other)))
            #expect(small.filter { $0 % 2 == 0 } == SmallSet(set.filter { $0 % 2 == 0 }))
            #expect(small.mapped { $0 / 2 } == SmallSet(set.map { $0 / 2 }))
        }
    }

    /// Equality does not depend on the history.
    @Test func isEqualToTheSame() {
        var grown: SmallSet = [1, 2, 3]
        grown.remove(3)
        grown.remove(2)
        #expect(grown == [1] && grown.hashValue == SmallSet(1).hashValue)
        grown.remove(1)
        #expect(grown == [] && grown == SmallSet(Set<Int>()))
        #expect(SmallSet([2, 1, 2]) == [1, 2])
    }
}
