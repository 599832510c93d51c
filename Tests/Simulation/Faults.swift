import Kernel

/// The faults of a run, in events per thousand. Each seed has its own mixture, in which about a third of the kinds is absent.
struct Faults {
    var isOn = false
    /// A process dies at an external call: before or after its effect.
    var kills = 0
    /// PostgreSQL does not respond: before the transaction, in the middle of it, or after its commit.
    var storeAway = 0
    var statements = 0
    var lostCommits = 0
    var storeSlow = 0
    /// The listening session is lost temporarily.
    var deaf = 0
    var lostMessages = 0
    var doubledMessages = 0
    var lateMessages = 0
    var refusedPublishes = 0
    var refusedCalls = 0
    var lostReplies = 0
    var slowCalls = 0
    var hostTrouble = 0
    var hostRefusals = 0
    var guestCrashes = 0
    var storageTrouble = 0
    /// Seconds between jumps of a process's clock, and between outages of PostgreSQL; 0 for never.
    var clockInterval = 0
    var outageInterval = 0

    init(_ random: SeededRandom) {
        func some(_ most: Int) -> Int { random.below(3) == 0 ? 0 : 1 + random.below(most) }
        kills = some(6)
        storeAway = some(15)
        statements = some(10)
        lostCommits = some(10)
        storeSlow = some(10)
        deaf = some(10)
        lostMessages = some(60)
        doubledMessages = some(100)
        lateMessages = some(60)
        refusedPublishes = some(20)
        refusedCalls = some(20)
        lostReplies = some(30)
        slowCalls = some(20)
        hostTrouble = some(80)
        hostRefusals = some(30)
        guestCrashes = some(20)
        storageTrouble = some(60)
        clockInterval = random.below(3) == 0 ? 0 : 3 + random.below(30)
        outageInterval = random.below(3) == 0 ? 20 + random.below(60) : 0
    }
}
