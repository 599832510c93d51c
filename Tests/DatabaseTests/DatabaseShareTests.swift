@testable import Database
import Foundation
import Kernel
import Synchronization
import Telemetry
import TestKit
import Testing

/// Shares of sessions, time limits, and clients that disconnect.
@Suite struct DatabaseShareTests {
    private final class Counter: Sendable {
        let value = Atomic<Int>(0)
    }

    private static func tenant(_ name: String, _ presence: ClientPresence? = nil) -> DatabaseScope {
        DatabaseScope.request(presence).of(.tenant(name))
    }

    private static func database(
        _ test: TestDatabase, metrics: Metrics? = nil, _ change: (inout DatabaseConfiguration) -> Void = { _ in }
    ) -> Database {
        var configuration = DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 4, reserved: 1, projectMax: 2)
        change(&configuration)
        return Database(configuration, metrics: metrics)
    }

    private static func running(_ test: TestDatabase, _ text: String) async throws -> Int {
        try await test.database.read { connection in
            try connection.query(
                """
                SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND datname = current_database()
                AND query LIKE \("%" + text + "%") AND pid <> pg_backend_pid()
                """)[0].int("n")
        }
    }

    /// Waits until `condition` is true, for at most five seconds.
    private static func eventually(_ condition: () async throws -> Bool) async throws -> Bool {
        for _ in 0..<250 {
            if try await condition() { return true }
            try await SystemTime().sleep(for: .milliseconds(20))
        }
        return false
    }

    // MARK: sessions

    @Test("S18: the control plane and the tenants together use no more than all sessions")
    func s18SessionsAreBoundedInAll() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test)
            defer { database.close() }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<12 {
                    let scope = number < 6 ? DatabaseScope.current : Self.tenant("p\(number)")
                    group.addTask {
                        try await DatabaseScope.$current.withValue(scope) {
                            try await database.read { _ = try $0.query("SELECT pg_sleep(0.3), 'session bound'") }
                        }
                    }
                }
                var most = 0
                _ = try await Self.eventually {
                    let now = try await Self.running(test, "session bound")
                    most = max(most, now)
                    return now == 0 && most > 0
                }
                try await group.waitForAll()
                #expect(most == 4)
            }
        }
    }

    @Test("S18: a transaction whose beginning or end was cancelled leaves none open")
    func s18CancelledTransactionsEnd() async throws {
        try await TestDatabase.with { test in
            let database = Database(DatabaseConfiguration(connectionString: test.connectionString, connectionsMax: 1, reserved: 0))
            defer { database.close() }
            // The result of a cancelled COMMIT: an error, and a transaction that is still open.
            await #expect(throws: DatabaseError.self) {
                try await database.autocommit { connection in
                    try connection.script("BEGIN")
                    try connection.transaction(begin: "SELECT 1/0") { _ in }
                }
            }
            for _ in 0..<3 {
                let one = try await database.write { try $0.query("SELECT 1 AS one")[0].int("one") }
                #expect(one == 1)
            }
        }
    }

    // MARK: limits of time

    @Test("S18: a request's statement that takes too long is a 503, and counted")
    func s18AStatementThatTakesTooLongIs503() async throws {
        try await TestDatabase.with { test in
            let metrics = Metrics()
            let database = Self.database(test, metrics: metrics) {
                $0.requestRead = .init(statement: .milliseconds(100), lock: .milliseconds(100), together: true)
                $0.requestWrite = .init(statement: .milliseconds(100), lock: .milliseconds(100), together: true)
            }
            defer { database.close() }
            try await DatabaseScope.$current.withValue(Self.tenant("p")) {
                let operations: [@Sendable () async throws -> Void] = [
                    { try await database.read { _ = try $0.query("SELECT pg_sleep(20)") } },
                    { try await database.write { _ = try $0.query("SELECT pg_sleep(20)") } },
                    { try await database.snapshot { _ = try $0.query("SELECT pg_sleep(20)") } },
                    // Many short statements count like a long one.
                    { try await database.read { connection in for _ in 0..<500 { try connection.query("SELECT pg_sleep(0.04)") } } },
                ]
                for operation in operations {
                    do {
                        try await operation()
                        Issue.record("it was not stopped")
                    } catch let error as DatabaseError {
                        #expect(error.isStopped)
                        #expect(error.resourceError.code == .unavailable)
                        #expect(error.resourceError.retryAfter != nil)
                    }
                }
            }
            #expect(metrics.render().contains("wolke_database_stopped_total{reason=\"timeout\"} 4"))
            // The control plane's own work has its own limits, on the same sessions.
            try await database.read { _ = try $0.query("SELECT pg_sleep(0.2)") }
            try await database.write { _ = try $0.query("SELECT pg_sleep(0.2)") }
        }
    }

    @Test("S18: a request waits for a lock for a limited time")
    func s18AWaitForALockEnds() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test) {
                $0.requestWrite = .init(statement: .seconds(20), lock: .milliseconds(100), together: true)
            }
            defer { database.close() }
            let holder = Task {
                try await test.database.write { connection in
                    _ = try connection.query("SELECT pg_advisory_xact_lock(4711)")
                    _ = try connection.query("SELECT pg_sleep(1)")
                }
            }
            #expect(try await Self.eventually { try await Self.running(test, "pg_sleep") == 1 })
            do {
                try await DatabaseScope.$current.withValue(Self.tenant("p")) {
                    try await database.write { _ = try $0.query("SELECT pg_advisory_xact_lock(4711)") }
                }
                Issue.record("it got the lock")
            } catch let error as DatabaseError {
                #expect(error.isLockTimeout)
                #expect(error.resourceError.code == .unavailable)
            }
            try await holder.value
        }
    }

    @Test("S18: an idle transaction is ended")
    func s18AnIdleTransactionIsEnded() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test) { $0.idleInTransaction = .milliseconds(100) }
            defer { database.close() }
            await #expect(throws: (any Error).self) {
                try await database.write { connection in
                    _ = try connection.query("SELECT 1")
                    usleep(500_000)
                    _ = try connection.query("SELECT 2")
                }
            }
            let one = try await database.read { try $0.query("SELECT 1 AS one")[0].int("one") }
            #expect(one == 1)
        }
    }

    // MARK: clients that disconnect

    @Test("S18: a client that disconnects frees its session within a second")
    func s18AClientThatLeavesFreesItsSession() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test) { $0.connectionsMax = 2 }
            defer { database.close() }
            for isWrite in [false, true] {
                let presence = ClientPresence()
                let request = Task {
                    try await DatabaseScope.$current.withValue(Self.tenant("p", presence)) {
                        if isWrite {
                            try await database.write(stops: true) { _ = try $0.query("SELECT pg_sleep(20)") }
                        } else {
                            try await database.read { _ = try $0.query("SELECT pg_sleep(20)") }
                        }
                    }
                }
                #expect(try await Self.eventually { try await Self.running(test, "pg_sleep") == 1 })
                let clock = ContinuousClock.now
                presence.leave()
                await #expect(throws: ClientGone.self) { try await request.value }
                #expect(ContinuousClock.now - clock < .seconds(1))
                #expect(try await Self.running(test, "pg_sleep") == 0)
            }
            // The sessions keep working, and no later statement is cancelled.
            try await DatabaseScope.$current.withValue(Self.tenant("p")) {
                for _ in 0..<20 { try await database.read { _ = try $0.query("SELECT 1") } }
            }
        }
    }

    @Test("S18: a request starts no further statement after its client has disconnected")
    func s18NoStatementAfterTheClient() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test)
            defer { database.close() }
            let statements = Counter()
            let presence = ClientPresence()
            await #expect(throws: ClientGone.self) {
                try await DatabaseScope.$current.withValue(Self.tenant("p", presence)) {
                    try await database.read { connection in
                        _ = try connection.query("SELECT 1")
                        // Between two statements there is nothing for PostgreSQL to cancel.
                        presence.leave()
                        usleep(300_000)
                        for _ in 0..<5 {
                            _ = try connection.query("SELECT 2")
                            statements.value.add(1, ordering: .relaxed)
                        }
                    }
                }
            }
            #expect(statements.value.load(ordering: .relaxed) == 0)
        }
    }

    @Test("S18: waiting work is dropped when its client disconnects")
    func s18WaitingWorkIsDropped() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test) { $0.projectMax = 1 }
            defer { database.close() }
            let ran = Counter()
            let (first, others) = (ClientPresence(), ClientPresence())
            let request = { @Sendable (presence: ClientPresence, seconds: Int) -> Task<Void, any Error> in
                Task {
                    try await DatabaseScope.$current.withValue(Self.tenant("p", presence)) {
                        try await database.read { connection in
                            ran.value.add(1, ordering: .relaxed)
                            _ = try connection.query("SELECT pg_sleep(\(seconds)::float8)")
                        }
                    }
                }
            }
            let running = request(first, 20)
            #expect(try await Self.eventually { try await Self.running(test, "pg_sleep") == 1 })
            let waiting = (0..<50).map { _ in request(others, 0) }
            try await SystemTime().sleep(for: .milliseconds(100))
            others.leave()
            for task in waiting { await #expect(throws: ClientGone.self) { try await task.value } }
            first.leave()
            await #expect(throws: ClientGone.self) { try await running.value }
            #expect(ran.value.load(ordering: .relaxed) == 1)
        }
    }

    @Test func startedWorkContinuesAfterTheClientLeft() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test)
            defer { database.close() }
            let presence = ClientPresence()
            try await DatabaseScope.$current.withValue(Self.tenant("p", presence)) {
                try await database.write(stops: true) {
                    try $0.execute("INSERT INTO quota_limits (project_id, resource, quota_limit) VALUES ('p', 'r', 1)")
                }
                presence.leave()
                let count = try await database.read { try $0.query("SELECT count(*) AS n FROM quota_limits")[0].int("n") }
                #expect(count == 1)
                try await database.write { _ = try $0.execute("UPDATE quota_limits SET quota_limit = 2") }
            }
        }
    }

    /// Clients disconnect at arbitrary moments: every other client gets its response, and no statement of another one is
    /// cancelled.
    @Test("S18: requests that are stopped at arbitrary moments do not affect others")
    func s18StoppedRequestsHarmNoOther() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test) { $0.projectMax = 3 }
            defer { database.close() }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for n in 0..<300 {
                    group.addTask {
                        let presence = ClientPresence()
                        let leaving = Task {
                            try await SystemTime().sleep(for: .microseconds(Int64(n % 40) * 500))
                            presence.leave()
                        }
                        do {
                            try await DatabaseScope.$current.withValue(Self.tenant("leaves", presence)) {
                                try await database.read { _ = try $0.query("SELECT pg_sleep(0.005)") }
                            }
                        } catch is ClientGone {}
                        try await leaving.value
                    }
                    group.addTask {
                        try await DatabaseScope.$current.withValue(Self.tenant("stays", ClientPresence())) {
                            try await database.read { _ = try $0.query("SELECT pg_sleep(0.001)") }
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    // MARK: shares

    @Test("S18: one project cannot use all sessions, and tenants cannot use those reserved for the control plane")
    func s18SessionsAreReserved() async throws {
        try await TestDatabase.with { test in
            // Four sessions, one reserved, two for one project.
            let database = Self.database(test)
            defer { database.close() }
            let presence = ClientPresence()
            @Sendable func hold(_ project: String) -> Task<Void, any Error> {
                Task {
                    try await DatabaseScope.$current.withValue(Self.tenant(project, presence)) {
                        try await database.read { _ = try $0.query("SELECT pg_sleep(20)") }
                    }
                }
            }
            var held = (0..<8).map { _ in hold("a") }
            #expect(try await Self.eventually { try await Self.running(test, "pg_sleep") == 2 })
            let one = try await DatabaseScope.$current.withValue(Self.tenant("b")) {
                try await database.read { try $0.query("SELECT 1 AS one")[0].int("one") }
            }
            #expect(one == 1, "another project has its turn at once")
            held += (0..<8).map { _ in hold("b") }
            #expect(try await Self.eventually { try await Self.running(test, "pg_sleep") == 3 })
            let two = try await database.read { try $0.query("SELECT 2 AS two")[0].int("two") }
            #expect(two == 2, "the plane has its own")
            #expect(try await Self.running(test, "pg_sleep") == 3)
            presence.leave()
            for task in held { await #expect(throws: ClientGone.self) { try await task.value } }
        }
    }

    @Test("S18: a project with too many waiting requests gets 429, and the others do not")
    func s18TheQueueOfAProjectIsBounded() async throws {
        try await TestDatabase.with { test in
            let database = Self.database(test) {
                $0.projectMax = 1
                $0.projectWaitingMax = 5
            }
            defer { database.close() }
            let presence = ClientPresence()
            let tasks = (0..<20).map { _ in
                Task {
                    try await DatabaseScope.$current.withValue(Self.tenant("a", presence)) {
                        try await database.read { _ = try $0.query("SELECT pg_sleep(20)") }
                    }
                }
            }
            #expect(try await Self.eventually { try await Self.running(test, "pg_sleep") == 1 })
            try await SystemTime().sleep(for: .milliseconds(200))
            let one = try await DatabaseScope.$current.withValue(Self.tenant("b")) {
                try await database.read { try $0.query("SELECT 1 AS one")[0].int("one") }
            }
            #expect(one == 1)
            presence.leave()
            var refused = 0
            for task in tasks {
                do { try await task.value } catch let error as ResourceError {
                    #expect(error.code == .tooManyRequests)
                    #expect(error.retryAfter != nil)
                    refused += 1
                } catch is ClientGone {}
            }
            #expect(refused == 14)
        }
    }
}
