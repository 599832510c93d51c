/// The inventory of a resource class on a provider.
package struct Inventory: Sendable, Hashable {
    package var total: Int
    /// The part of the total that consumers cannot use.
    package var reserved: Int
    /// Minimum and maximum of one allocation, and the step between amounts.
    package var minUnit: Int
    package var maxUnit: Int
    package var stepSize: Int
    /// Allocation ratio of the unreserved amount.
    package var allocationRatio: Double

    package init(
        total: Int, reserved: Int = 0, minUnit: Int = 1, maxUnit: Int = Int(Int32.max), stepSize: Int = 1,
        allocationRatio: Double = 1
    ) {
        self.total = total
        self.reserved = reserved
        self.minUnit = minUnit
        self.maxUnit = maxUnit
        self.stepSize = stepSize
        self.allocationRatio = allocationRatio
    }

    /// The total amount that can be allocated.
    package var capacity: Int {
        let exact = (Double(total - reserved) * allocationRatio).rounded(.towardZero)
        return exact >= 1e15 ? 1_000_000_000_000_000 : Int(exact)
    }

    /// Whether a single allocation may have the amount, regardless of free capacity.
    package func admits(_ amount: Int) -> Bool {
        amount >= minUnit && amount <= maxUnit && amount % stepSize == 0
    }
}
