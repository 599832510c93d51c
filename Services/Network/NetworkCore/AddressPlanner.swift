package import Kernel

/// Proposes addresses. The caller reads the addresses in use, and the unique index in the database decides conflicts.
package enum AddressPlanner {
    /// The number of addresses in all pools; saturates.
    package static func size(_ pools: [AddressPool]) -> UInt128 {
        pools.reduce(UInt128(0)) { total, pool in
            let (sum, overflow) = total.addingReportingOverflow(pool.count)
            return overflow ? UInt128.max : sum
        }
    }

    /// The address at `index`, counting through all pools in order.
    package static func address(_ pools: [AddressPool], at index: UInt128) -> IPAddress? {
        var rest = index
        for pool in pools {
            if rest < pool.count { return pool.start.advanced(by: rest) }
            rest -= pool.count
        }
        return nil
    }

    /// A random index into pools of `size` addresses.
    static func index(below size: UInt128, random: any RandomSource) -> UInt128 {
        size > UInt128(Int.max) ? UInt128(random.next() >> 1) % size : UInt128(random.below(Int(size)))
    }

    /// Up to `count` different random addresses of the pools.
    package static func candidates(_ pools: [AddressPool], count: Int, random: any RandomSource) -> [IPAddress] {
        let size = size(pools)
        guard size > 0 else { return [] }
        var seen: Set<UInt128> = []
        var result: [IPAddress] = []
        for _ in 0..<count * 2 where result.count < count {
            let index = index(below: size, random: random)
            if seen.insert(index).inserted, let address = address(pools, at: index) { result.append(address) }
        }
        return result
    }

    /// The SLAAC address of a guest with this hardware address (RFC 4291, modified EUI-64).
    package static func autoAddress(_ network: IPNetwork, mac: MACAddress) -> IPAddress {
        let high = (mac.value >> 24) ^ 0x020000
        let low = mac.value & 0xff_ffff
        let interface = UInt128(high) << 40 | UInt128(0xfffe) << 24 | UInt128(low)
        return IPAddress(version: .v6, value: network.network.value | interface)
    }

    /// A random hardware address with Networking's prefix.
    package static func newMAC(_ random: any RandomSource) -> MACAddress {
        MACAddress(value: 0xfa16_3e00_0000 | (random.next() & 0xff_ffff))
    }
}
