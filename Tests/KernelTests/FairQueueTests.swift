import Kernel
import Testing

@Suite struct FairQueueTests {
    /// Takes all elements that may run, ending each one at once.
    private func drain(_ queue: inout FairQueue<Int>) -> [Int] {
        var order: [Int] = []
        while let (element, key) = queue.next() {
            order.append(element)
            queue.finish(key)
        }
        return order
    }

    @Test("S18: ten thousand elements of one key delay another key's first by one turn")
    func s18AFloodDelaysOthersByOneTurn() {
        var queue = FairQueue<Int>(runningMax: 4)
        for n in 0..<10_000 { _ = queue.append(n, of: "flood") }
        for n in 0..<3 { _ = queue.append(-1 - n, of: "other") }
        let order = drain(&queue)
        #expect(order.count == 10_003)
        #expect(Array(order.prefix(6)) == [0, -1, 1, -2, 2, -3])
        #expect(order.filter { $0 >= 0 } == Array(0..<10_000), "in order within a key")
        #expect(queue.count == 0 && queue.running == 0 && queue.keys == 0)
    }

    @Test("S18: no key runs more than its share")
    func s18NoKeyRunsMoreThanItsShare() {
        var queue = FairQueue<Int>(runningMax: 3)
        for n in 0..<10 { _ = queue.append(n, of: "a") }
        for _ in 0..<3 { #expect(queue.next()?.key == "a") }
        #expect(queue.next() == nil)
        _ = queue.append(100, of: "b")
        #expect(queue.next()?.element == 100, "another key has its turn although the first one waits longer")
        queue.finish("a")
        #expect(queue.next()?.element == 3)
        #expect(queue.next() == nil)
    }

    @Test func theKeyWithTheFewestRunningIsNext() {
        var queue = FairQueue<Int>(runningMax: 4)
        for n in 0..<4 { _ = queue.append(n, of: "a") }
        #expect(queue.next()?.key == "a")
        #expect(queue.next()?.key == "a")
        for n in 4..<8 { _ = queue.append(n, of: "b") }
        #expect(queue.next()?.key == "b")
        #expect(queue.next()?.key == "b")
        #expect(queue.next()?.key == "a")
        #expect(queue.next()?.key == "b")
    }

    @Test func removedElementsDoNotRun() {
        var queue = FairQueue<Int>(runningMax: 2)
        let tickets = (0..<5).map { queue.append($0, of: "a") }
        #expect(queue.remove(tickets[0]) == 0)
        #expect(queue.remove(tickets[3]) == 3)
        #expect(queue.remove(tickets[3]) == nil)
        #expect(queue.count(of: "a") == 3)
        #expect(drain(&queue) == [1, 2, 4])
        #expect(queue.remove(tickets[1]) == nil)
        #expect(queue.keys == 0)
    }

    /// Random operations, compared with a simple model.
    @Test func randomOperationsKeepTheInvariants() {
        let random = SeededRandom(seed: 7)
        var queue = FairQueue<Int>(runningMax: 3)
        var waiting: [String: [Int]] = [:]
        var running: [String: Int] = [:]
        var tickets: [Int: FairQueue<Int>.Ticket] = [:]
        for n in 0..<20_000 {
            let key = "k\(random.below(6))"
            switch random.below(10) {
            case 0..<4:
                tickets[n] = queue.append(n, of: key)
                waiting[key, default: []].append(n)
            case 4..<7:
                let next = queue.next()
                let may = waiting.filter { !$0.value.isEmpty && running[$0.key, default: 0] < 3 }.keys
                guard let (element, taken) = next else {
                    #expect(may.isEmpty)
                    continue
                }
                #expect(waiting[taken]?.first == element)
                #expect(running[taken, default: 0] == may.map { running[$0, default: 0] }.min())
                waiting[taken]?.removeFirst()
                running[taken, default: 0] += 1
            case 7..<9:
                guard running[key, default: 0] > 0 else { continue }
                queue.finish(key)
                running[key, default: 0] -= 1
            default:
                guard let victim = waiting[key]?.last, let ticket = tickets[victim] else { continue }
                #expect(queue.remove(ticket) == victim)
                waiting[key]?.removeLast()
            }
            #expect(queue.count == waiting.values.reduce(0) { $0 + $1.count })
            #expect(queue.running == running.values.reduce(0, +))
        }
    }
}
