/// How much of a resource class a provider has and how it may be taken.
package struct Inventory: Sendable, Hashable {
    package var total: Int
    /// Of the total, what is not for consumers.
    package var reserved: Int
    /// Least and most that one allocation may take, and the step between amounts.
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

    /// Total that may be allocated.
    package var capacity: Int {
        let exact = (Double(total - reserved) * allocationRatio).rounded(.towardZero)
        return exact >= 1e15 ? 1_000_000_000_000_000 : Int(exact)
    }

    /// Whether an amount is one that a single allocation may have, whatever is free.
    package func admits(_ amount: Int) -> Bool {
        amount >= minUnit && amount <= maxUnit && amount % stepSize == 0
    }
}
