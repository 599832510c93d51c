import Kernel
import Testing

@Suite struct SmallMapTests {
    @Test(arguments: 0..<20) func smallMapBehavesLikeADictionary(seed: UInt64) {
        let random = SeededRandom(seed: seed)
        var map = SmallMap<String, Int>()
        var dictionary: [String: Int] = [:]
        for step in 0..<300 {
            let key = "k\(random.below(12))"
            switch random.below(5) {
            case 0:
                map[key] = nil
                dictionary[key] = nil
            case 1:
                map[key, default: 7] += step
                dictionary[key, default: 7] += step
            case 2:
                let other = SmallMap<String, Int>([(key, step), ("k1", -step)])
                map.merge(other, uniquingKeysWith: { max($0, $1) })
                dictionary.merge(Dictionary(other.map { ($0.key, $0.value) }, uniquingKeysWith: { $1 })) { max($0, $1) }
            default:
                map[key] = step
                dictionary[key] = step
            }
            #expect(map.count == dictionary.count)
            #expect(map.allSatisfy { dictionary[$0.key] == $0.value })
            #expect(map[key] == dictionary[key])
        }
        #expect(map.mapValues { $0 + 1 }.allSatisfy { dictionary[$0.key] == $0.value - 1 })
        let (even, same) = (map.filter { $0.value % 2 == 0 }, dictionary.filter { $0.value % 2 == 0 })
        #expect(even.count == same.count)
    }

    @Test func orderDoesNotMatter() {
        let (left, right): (SmallMap<String, Int>, SmallMap<String, Int>) = (["a": 1, "b": 2, "c": 3], ["c": 3, "a": 1, "b": 2])
        #expect(left == right)
        #expect(left.hashValue == right.hashValue)
        #expect(left != ["a": 1, "b": 2, "c": 4])
        #expect(left != ["a": 1, "b": 2, "d": 3])
        #expect(left != ["a": 1, "b": 2])
    }
}

@Suite struct IdentifierHashTests {
    /// Similar ids are distributed over a table like random ids.
    @Test func idsSpreadOverATable() {
        let random = SeededRandom(seed: 5)
        let kinds: [(Int) -> UUID128] = [
            { UUID128(high: 0, low: UInt64($0)) }, { UUID128(high: UInt64($0), low: 0) },
            { UUID128(high: UInt64($0) << 32, low: UInt64($0) << 48) }, { _ in random.uuid() },
        ]
        for (kind, make) in kinds.enumerated() {
            var buckets = [Int](repeating: 0, count: 1 << 14)
            for number in 0..<10_000 { buckets[make(number)._rawHashValue(seed: 3) & 0x3fff] += 1 }
            // With random hashes 7 500 buckets are in use, and none has more than eight.
            #expect(buckets.count { $0 > 0 } > 7_000, "kind \(kind)")
            #expect(buckets.max() ?? 0 < 12, "kind \(kind)")
        }
    }
}
