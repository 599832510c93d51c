/// A queue of work grouped by key (for example a project): first in, first out within a key and fair between keys.
///
/// The next element is of the key with the fewest elements running; among equals, of the key that has waited longest
/// for its turn. So a key with ten thousand elements waiting delays another key's first one by one turn at most.
/// All operations take amortized constant time in the numbers of keys and elements.
package struct FairQueue<Element: Sendable>: Sendable {
    /// Identifies a queued element, so that it can be removed.
    package struct Ticket: Sendable, Hashable {
        package let key: String
        fileprivate let number: UInt64
    }

    private struct Lane {
        /// nil if the element was removed.
        var elements = FirstInFirstOut<(number: UInt64, element: Element?)>()
        var waiting = 0
        var running = 0
        /// The current turn number; older entries in `turns` are stale.
        var turn: UInt64 = 0
        var hasTurn = false
    }

    private var lanes: [String: Lane] = [:]
    /// Keys whose turn it is, in order, indexed by their number of running elements.
    private var turns: [FirstInFirstOut<(key: String, turn: UInt64)>] = []
    private var lastNumber: UInt64 = 0
    private var lastTurn: UInt64 = 0

    /// Number of waiting elements.
    package private(set) var count = 0
    /// Number of elements that were taken and have not finished.
    package private(set) var running = 0

    /// The most elements of one key that may run at a time. Lowering it does not affect elements that already run.
    package var runningMax: Int {
        didSet { runningMax = max(1, runningMax) }
    }

    package init(runningMax: Int) { self.runningMax = max(1, runningMax) }

    /// Number of waiting elements of `key`.
    package func count(of key: String) -> Int { lanes[key]?.waiting ?? 0 }

    /// Number of elements of `key` that were taken and have not finished.
    package func running(of key: String) -> Int { lanes[key]?.running ?? 0 }

    /// Keys with waiting or running elements.
    package var keys: Int { lanes.count }

    package mutating func append(_ element: Element, of key: String) -> Ticket {
        lastNumber += 1
        let number = lastNumber
        withLane(key) {
            $0.elements.append((number, element))
            $0.waiting += 1
        }
        count += 1
        giveTurn(key)
        return Ticket(key: key, number: number)
    }

    /// Takes the next element, which counts as running until `finish`. Nil if nothing waits, or if every waiting key already has
    /// as many running elements as it may have.
    package mutating func next() -> (element: Element, key: String)? {
        for level in turns.indices.prefix(runningMax) {
            while let (key, turn) = turns[level].popFirst() {
                guard isValid(key, turn) else { continue }
                lanes[key]?.hasTurn = false
                guard let element = takeFirst(of: key) else { continue }
                giveTurn(key)
                return (element, key)
            }
        }
        return nil
    }

    /// Counts an element of `key` that did not have to wait as running, until `finish`.
    package mutating func start(_ key: String) {
        running += 1
        withLane(key) {
            $0.running += 1
            $0.hasTurn = false
        }
        giveTurn(key)
    }

    /// Reports that an element of `key` that was taken with `next`, or started, has ended.
    package mutating func finish(_ key: String) {
        guard lanes[key]?.running ?? 0 > 0 else { return }
        running -= 1
        withLane(key) {
            $0.running -= 1
            $0.hasTurn = false
        }
        giveTurn(key)
        forgetIfEmpty(key)
    }

    /// Removes an element that still waits; nil if it no longer waits.
    package mutating func remove(_ ticket: Ticket) -> Element? {
        var removed: Element?
        guard lanes[ticket.key] != nil else { return nil }
        withLane(ticket.key) { lane in
            guard let place = lane.elements.firstIndex(where: { $0.number >= ticket.number }),
                lane.elements[place].number == ticket.number, let element = lane.elements[place].element
            else { return }
            lane.elements[place].element = nil
            lane.waiting -= 1
            removed = element
        }
        guard removed != nil else { return nil }
        count -= 1
        forgetIfEmpty(ticket.key)
        return removed
    }

    /// Removes all waiting elements.
    package mutating func removeAll() -> [Element] {
        var all: [Element] = []
        for key in lanes.keys {
            withLane(key) { lane in
                while let next = lane.elements.popFirst() { if let element = next.element { all.append(element) } }
                lane.waiting = 0
            }
            forgetIfEmpty(key)
        }
        count = 0
        return all
    }

    // MARK: lanes

    /// Changes a lane in place.
    private mutating func withLane(_ key: String, _ body: (inout Lane) -> Void) { body(&lanes[key, default: Lane()]) }

    private mutating func takeFirst(of key: String) -> Element? {
        var taken: Element?
        withLane(key) { lane in
            while taken == nil, let next = lane.elements.popFirst() { taken = next.element }
            guard taken != nil else { return }
            lane.waiting -= 1
            lane.running += 1
        }
        guard taken != nil else { return nil }
        count -= 1
        running += 1
        return taken
    }

    private func isValid(_ key: String, _ turn: UInt64) -> Bool { lanes[key]?.hasTurn == true && lanes[key]?.turn == turn }

    /// Appends `key` to the keys with the same number of running elements, if it has work, may run more and has no turn yet.
    private mutating func giveTurn(_ key: String) {
        let level = running(of: key)
        guard count(of: key) > 0, level < runningMax, lanes[key]?.hasTurn == false else { return }
        lastTurn += 1
        let turn = lastTurn
        while turns.count <= level { turns.append(FirstInFirstOut()) }
        turns[level].append((key, turn))
        // Discard turns that became stale while they waited.
        if turns[level].count > 2 * lanes.count + 64 {
            var valid = FirstInFirstOut<(key: String, turn: UInt64)>()
            while let next = turns[level].popFirst() {
                if next.turn == turn || isValid(next.key, next.turn) { valid.append(next) }
            }
            turns[level] = valid
        }
        withLane(key) {
            $0.turn = turn
            $0.hasTurn = true
        }
    }

    private mutating func forgetIfEmpty(_ key: String) {
        if count(of: key) == 0, running(of: key) == 0 { lanes[key] = nil }
    }
}

/// An array whose first element can be removed in amortized constant time.
package struct FirstInFirstOut<Element> {
    private var elements: [Element?] = []
    private var head = 0

    package init() {}

    package var count: Int { elements.count - head }
    package var isEmpty: Bool { count == 0 }

    package mutating func append(_ element: Element) { elements.append(element) }

    package mutating func popFirst() -> Element? {
        guard head < elements.count else { return nil }
        let element = elements[head]
        elements[head] = nil
        head += 1
        if head == elements.count {
            elements.removeAll(keepingCapacity: elements.count <= 1024)
            head = 0
        } else if head > 1024, head * 2 > elements.count {
            elements.removeFirst(head)
            head = 0
        }
        return element
    }

    /// The element at `place`, counted from the first one.
    package subscript(_ place: Int) -> Element {
        get {
            guard let element = elements[head + place] else { preconditionFailure("the element was removed") }
            return element
        }
        set { elements[head + place] = newValue }
    }

    /// The index of the first element that fits, if all elements after it fit too (binary search).
    package func firstIndex(where fits: (Element) -> Bool) -> Int? {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if fits(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low < count ? low : nil
    }
}

extension FirstInFirstOut: Sendable where Element: Sendable {}
