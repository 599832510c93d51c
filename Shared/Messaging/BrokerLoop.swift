import CRabbitMQ
import Foundation
import Kernel
import Logging
import Synchronization

/// The use of one connection. Created and used only on the loop's thread.
protocol BrokerRole: AnyObject, SendableMetatype {
    associatedtype Command: Sendable

    /// A session was opened: set up channels and queues, and send waiting messages.
    func connected(_ session: BrokerSession) throws
    /// The session was lost or could not be opened.
    func disconnected()
    /// `session` is nil while there is none; the command is then kept or answered without one.
    func perform(_ command: Command, session: BrokerSession?) throws
    func handle(_ event: BrokerEvent, session: BrokerSession) throws
    /// Called in each iteration, at least every two seconds.
    func tick(_ session: BrokerSession?) throws
}

/// A thread that owns one connection to the broker and reconnects when it is lost.
///
/// librabbitmq blocks and is not thread-safe: nothing else may touch the connection. Commands arrive through a mailbox that is
/// signalled by an eventfd.
final class BrokerLoop<Role: BrokerRole>: Sendable {
    private let configuration: BusConfiguration
    private let ambient: Ambient
    private let logger: Logger
    private let makeRole: @Sendable () -> Role
    private let mailbox = Mutex<[Role.Command]>([])
    private let started = Atomic<Bool>(false)
    private let stopped = Atomic<Bool>(false)
    private let online = Atomic<Bool>(false)
    private let wake: Int32

    /// Longest interval between checks of heartbeats and expired work.
    private static var idleMilliseconds: Int32 { 2000 }

    init(
        configuration: BusConfiguration, ambient: Ambient, logger: Logger, makeRole: @escaping @Sendable () -> Role
    ) {
        self.configuration = configuration
        self.ambient = ambient
        self.logger = logger
        self.makeRole = makeRole
        wake = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
    }

    deinit { Glibc.close(wake) }

    var isStarted: Bool { started.load(ordering: .acquiring) }
    var isConnected: Bool { online.load(ordering: .acquiring) }

    /// Submits a command; the first one starts the thread.
    func send(_ command: Role.Command) {
        let wasEmpty = mailbox.withLock { mailbox in
            mailbox.append(command)
            return mailbox.count == 1
        }
        start()
        if wasEmpty { signal() }
    }

    func start() {
        guard started.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged
        else { return }
        let thread = Thread { [self] in run() }
        thread.name = "amqp"
        thread.stackSize = 1 << 20
        thread.start()
    }

    func stop() {
        stopped.store(true, ordering: .releasing)
        signal()
    }

    private func signal() {
        var one: UInt64 = 1
        _ = Glibc.write(wake, &one, 8)
    }

    // MARK: the thread

    private func run() {
        let role = makeRole()
        var session: BrokerSession?
        var failures = 0
        var nextAttempt: UInt64 = 0
        while !stopped.load(ordering: .acquiring) {
            if session == nil, ambient.time.monotonicNanoseconds() >= nextAttempt {
                do {
                    let fresh = try connect(attempt: failures)
                    try role.connected(fresh)
                    session = fresh
                    online.store(true, ordering: .releasing)
                    if failures > 0 { logger.notice("connected to the broker again") }
                    failures = 0
                } catch {
                    failures += 1
                    nextAttempt = retryTime(failures)
                    if failures == 1 || failures % 20 == 0 {
                        logger.warning("no connection to the broker", metadata: ["error": "\(error)"])
                    }
                    role.disconnected()
                }
            }
            do { try turn(role, session) } catch {
                logger.warning("the broker's connection was lost", metadata: ["error": "\(error)"])
                online.store(false, ordering: .releasing)
                session = nil
                failures += 1
                nextAttempt = retryTime(failures)
                role.disconnected()
            }
            wait(session, until: session == nil ? nextAttempt : nil)
        }
        online.store(false, ordering: .releasing)
        session?.close()
        session = nil
        role.disconnected()
    }

    private func connect(attempt: Int) throws -> BrokerSession {
        let addresses = configuration.addresses
        guard !addresses.isEmpty else { throw BrokerError("no broker address is configured") }
        // Clients start with different nodes, so that a fleet spreads over the cluster.
        let first = ambient.random.below(addresses.count)
        return try BrokerSession(addresses[(first + attempt) % addresses.count], configuration: configuration)
    }

    private func turn(_ role: Role, _ session: BrokerSession?) throws {
        let commands = mailbox.withLock { mailbox in
            let all = mailbox
            mailbox.removeAll(keepingCapacity: true)
            return all
        }
        var failure: (any Error)?
        for command in commands {
            do { try role.perform(command, session: failure == nil ? session : nil) } catch { failure = error }
        }
        if let failure { throw failure }
        if let session {
            try session.drain { try role.handle($0, session: session) }
        }
        try role.tick(session)
    }

    private func retryTime(_ failures: Int) -> UInt64 {
        let base = configuration.reconnectDelay * (1 << min(failures - 1, 12))
        let delay = min(base, configuration.reconnectDelayMax).microseconds
        // Half fixed, half random, so that clients that lost the broker together do not reconnect at the same time.
        let jittered = delay / 2 + Int64(ambient.random.below(Int(max(1, delay / 2))))
        return ambient.time.monotonicNanoseconds() + UInt64(jittered) * 1000
    }

    private func wait(_ session: BrokerSession?, until time: UInt64?) {
        guard session?.hasBufferedInput != true, mailbox.withLock({ $0.isEmpty }) else { return }
        var timeout = BrokerLoop.idleMilliseconds
        if let time {
            let now = ambient.time.monotonicNanoseconds()
            timeout = now >= time ? 0 : min(timeout, Int32((time - now) / 1_000_000) + 1)
        }
        var descriptors = [pollfd(fd: wake, events: Int16(POLLIN), revents: 0)]
        if let session { descriptors.append(pollfd(fd: session.descriptor, events: Int16(POLLIN), revents: 0)) }
        _ = poll(&descriptors, nfds_t(descriptors.count), timeout)
        var count: UInt64 = 0
        _ = Glibc.read(wake, &count, 8)
    }
}
