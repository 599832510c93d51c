/// A dictionary for few keys: one block of memory and no hashing. A look-up takes time proportional to the number of keys.
///
/// Public, so that other modules can specialize it for their types.
@frozen
public struct SmallMap<Key: Hashable, Value> {
    @usableFromInline var pairs: [(key: Key, value: Value)] = []

    @inlinable
    public init() {}

    @inlinable
    public init(minimumCapacity: Int) { pairs.reserveCapacity(minimumCapacity) }

    /// If a key is repeated, its last value is kept.
    @inlinable
    public init(_ elements: some Sequence<(Key, Value)>) {
        pairs.reserveCapacity(elements.underestimatedCount)
        for (key, value) in elements { self[key] = value }
    }

    @inlinable
    public var count: Int { pairs.count }
    @inlinable
    public var isEmpty: Bool { pairs.isEmpty }
    @inlinable
    public var keys: [Key] { pairs.map { $0.key } }
    @inlinable
    public var values: [Value] { pairs.map { $0.value } }

    @inlinable
    func place(of key: Key) -> Int? { pairs.firstIndex { $0.key == key } }

    @inlinable
    public subscript(_ key: Key) -> Value? {
        get { place(of: key).map { pairs[$0].value } }
        set {
            switch (place(of: key), newValue) {
            case (let place?, let value?): pairs[place].value = value
            case (let place?, nil): pairs.remove(at: place)
            case (nil, let value?): pairs.append((key, value))
            case (nil, nil): break
            }
        }
    }

    /// In place.
    @inlinable
    public subscript(_ key: Key, default preset: @autoclosure () -> Value) -> Value {
        get { self[key] ?? preset() }
        _modify {
            let found = place(of: key) ?? pairs.count
            if found == pairs.count { pairs.append((key, preset())) }
            yield &pairs[found].value
        }
    }

    /// Adds a pair whose key is known to be absent.
    @inlinable
    public mutating func append(new key: Key, _ value: Value) { pairs.append((key, value)) }

    @inlinable
    public func mapValues<New>(_ transform: (Value) throws -> New) rethrows -> SmallMap<Key, New> {
        var result = SmallMap<Key, New>(minimumCapacity: count)
        for (key, value) in pairs { result.append(new: key, try transform(value)) }
        return result
    }

    @inlinable
    public func filter(_ isIncluded: ((key: Key, value: Value)) throws -> Bool) rethrows -> SmallMap {
        var result = SmallMap()
        result.pairs = try pairs.filter(isIncluded)
        return result
    }

    /// - Parameter combine: returns which value to keep, given the present and the new one.
    @inlinable
    public mutating func merge(_ other: SmallMap, uniquingKeysWith combine: (Value, Value) throws -> Value) rethrows {
        for (key, value) in other.pairs {
            if let place = place(of: key) {
                pairs[place].value = try combine(pairs[place].value, value)
            } else {
                pairs.append((key, value))
            }
        }
    }
}

extension SmallMap: Sequence {
    @inlinable
    public func makeIterator() -> IndexingIterator<[(key: Key, value: Value)]> { pairs.makeIterator() }
    @inlinable
    public var underestimatedCount: Int { pairs.count }
}

extension SmallMap: ExpressibleByDictionaryLiteral {
    @inlinable
    public init(dictionaryLiteral elements: (Key, Value)...) { self.init(elements) }
}

extension SmallMap: Equatable where Value: Equatable {
    /// Equal when both have the same pairs, in any order.
    @inlinable
    public static func == (left: SmallMap, right: SmallMap) -> Bool {
        guard left.count == right.count else { return false }
        for (index, pair) in left.pairs.enumerated() {
            let other = right.pairs[index]
            // Fast path: usually the pairs are in the same order.
            if other.key == pair.key {
                guard other.value == pair.value else { return false }
            } else {
                guard right[pair.key] == pair.value else { return false }
            }
        }
        return true
    }
}

extension SmallMap: Hashable where Value: Hashable {
    @inlinable
    public func hash(into hasher: inout Hasher) {
        var total = 0
        for (key, value) in pairs {
            var single = Hasher()
            single.combine(key)
            single.combine(value)
            total ^= single.finalize()
        }
        hasher.combine(total)
    }
}

extension SmallMap: Sendable where Key: Sendable, Value: Sendable {}
