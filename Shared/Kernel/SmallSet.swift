/// A set that allocates no memory while it has at most one element, as nearly all columns of a row do.
///
/// Public, so that other modules can specialize it for their types.
@frozen
public struct SmallSet<Element: Hashable>: Hashable {
    /// Invariant: `many` has at least two elements.
    @frozen @usableFromInline
    enum Storage: Hashable {
        case none
        case one(Element)
        case many(Set<Element>)
    }

    @usableFromInline var storage: Storage

    @inlinable
    public init() { storage = .none }

    @inlinable
    public init(_ element: Element) { storage = .one(element) }

    @inlinable
    public init(_ elements: Set<Element>) {
        switch elements.count {
        case 0: storage = .none
        case 1: storage = .one(elements[elements.startIndex])
        default: storage = .many(elements)
        }
    }

    @inlinable
    public init(_ elements: some Sequence<Element>) {
        storage = .none
        for element in elements { insert(element) }
    }

    @inlinable
    public var count: Int {
        switch storage {
        case .none: 0
        case .one: 1
        case .many(let elements): elements.count
        }
    }

    @inlinable
    public var isEmpty: Bool { count == 0 }

    /// The only element, if there is exactly one.
    @inlinable
    public var only: Element? { if case .one(let element) = storage { element } else { nil } }

    @inlinable
    public func contains(_ element: Element) -> Bool {
        switch storage {
        case .none: false
        case .one(let only): only == element
        case .many(let elements): elements.contains(element)
        }
    }

    /// Inserts in place; returns whether the element was absent.
    @discardableResult @inlinable
    public mutating func insert(_ element: Element) -> Bool {
        switch storage {
        case .none:
            storage = .one(element)
            return true
        case .one(let only):
            guard only != element else { return false }
            storage = .many([only, element])
            return true
        case .many(var elements):
            // Released here, so that the mutation does not copy it.
            storage = .none
            let isNew = elements.insert(element).inserted
            storage = .many(elements)
            return isNew
        }
    }

    /// Removes in place; returns whether the element was present.
    @discardableResult @inlinable
    public mutating func remove(_ element: Element) -> Bool {
        switch storage {
        case .none: return false
        case .one(let only):
            guard only == element else { return false }
            storage = .none
            return true
        case .many(var elements):
            storage = .none
            let wasThere = elements.remove(element) != nil
            self = SmallSet(elements)
            return wasThere
        }
    }

    @inlinable
    public mutating func formUnion(_ other: some Sequence<Element>) { for element in other { insert(element) } }

    @inlinable
    public func union(_ other: SmallSet) -> SmallSet {
        var result = self
        result.formUnion(other)
        return result
    }

    @inlinable
    public func subtracting(_ other: SmallSet) -> SmallSet { filter { !other.contains($0) } }

    /// The set of the results of `transform`.
    @inlinable
    public func mapped<New: Hashable>(_ transform: (Element) throws -> New) rethrows -> SmallSet<New> {
        switch storage {
        case .none: return SmallSet<New>()
        case .one(let only): return SmallSet<New>(try transform(only))
        case .many(let elements): return SmallSet<New>(Set(try elements.map(transform)))
        }
    }

    @inlinable
    public func filter(_ isIncluded: (Element) throws -> Bool) rethrows -> SmallSet {
        switch storage {
        case .none: return self
        case .one(let only): return try isIncluded(only) ? self : SmallSet()
        case .many(let elements): return SmallSet(try elements.filter(isIncluded))
        }
    }
}

extension SmallSet: Sendable where Element: Sendable {}
extension SmallSet.Storage: Sendable where Element: Sendable {}

extension SmallSet: ExpressibleByArrayLiteral {
    @inlinable
    public init(arrayLiteral elements: Element...) { self.init(elements) }
}

extension SmallSet: Sequence {
    /// Iterates in no particular order.
    @frozen
    public struct Iterator: IteratorProtocol {
        @usableFromInline var single: Element?
        @usableFromInline var rest: Set<Element>.Iterator?

        @inlinable
        init(_ storage: Storage) {
            switch storage {
            case .none: break
            case .one(let element): single = element
            case .many(let elements): rest = elements.makeIterator()
            }
        }

        @inlinable
        public mutating func next() -> Element? {
            guard rest == nil else { return rest?.next() }
            defer { single = nil }
            return single
        }
    }

    @inlinable
    public func makeIterator() -> Iterator { Iterator(storage) }

    @inlinable
    public var underestimatedCount: Int { count }
}
