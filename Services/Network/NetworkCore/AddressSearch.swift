package import Kernel

/// Finds free addresses in a subnet's pools: at random in large pools, then window by window. The cost of a round depends
/// on the size of the window and not on how many addresses of the subnet are in use.
package struct AddressSearch: Sendable {
    private let pools: [AddressPool]
    private let size: UInt128
    /// Start of the first window; the search wraps around.
    private let start: UInt128
    /// Addresses from `start` that have been checked so far.
    private var looked: UInt128 = 0
    private var width = NetworkLimits.addressWindowMin
    private var guessesLeft: Int

    package init(_ pools: [AddressPool], random: any RandomSource) {
        self.pools = pools.sorted()
        size = AddressPlanner.size(pools)
        let isOrdered = size <= UInt128(NetworkLimits.orderedPoolSize)
        start = isOrdered ? 0 : AddressPlanner.index(below: size, random: random)
        guessesLeft = isOrdered ? 0 : NetworkLimits.addressGuesses
    }

    /// Whether all addresses have been checked.
    package var isExhausted: Bool { looked >= size }

    /// Up to `count` addresses that are probably free; nil if the addresses in use must be read first.
    package mutating func guesses(_ count: Int, random: any RandomSource) -> [IPAddress]? {
        guard guessesLeft > 0 else { return nil }
        guessesLeft -= 1
        return AddressPlanner.candidates(pools, count: count, random: random)
    }

    /// The next window of addresses to check.
    package var window: [IPAddress] {
        var result: [IPAddress] = []
        let count = Int(min(UInt128(width), size - min(looked, size)))
        result.reserveCapacity(count)
        for offset in 0..<count {
            // A plain sum would overflow for a pool with all of IPv6.
            let rest = size - start
            let step = looked + UInt128(offset)
            let index = step < rest ? start + step : step - rest
            if let address = AddressPlanner.address(pools, at: index) { result.append(address) }
        }
        return result
    }

    /// The first `count` addresses of `window` that are not in `taken`. The next window starts after the last of them.
    package mutating func choose(_ count: Int, of window: [IPAddress], taken: Set<IPAddress>) -> [IPAddress] {
        var result: [IPAddress] = []
        for (offset, address) in window.enumerated() where !taken.contains(address) {
            result.append(address)
            if result.count == count {
                looked += UInt128(offset + 1)
                return result
            }
        }
        looked += UInt128(window.count)
        width = min(width * 4, NetworkLimits.addressWindowMax)
        return result
    }
}
