import CRabbitMQ
import Glibc
import Kernel

/// An error of the connection or of the broker.
struct BrokerError: Error, CustomStringConvertible {
    let description: String
    /// Whether the broker closed only the channel; the connection is still open.
    var channelOnly = false

    init(_ description: String, channelOnly: Bool = false) {
        self.description = description
        self.channelOnly = channelOnly
    }
}

/// A connection to the broker, used by one thread. Calls may block on the socket, but never on handlers.
final class BrokerSession {
    private let state: amqp_connection_state_t
    private var assembling: [amqp_channel_t: Assembly] = [:]
    private(set) var descriptor: Int32 = -1

    private struct Assembly {
        var kind: Kind
        var message = IncomingMessage()
        var remaining: UInt64 = 0
        var oversized = false

        enum Kind {
            case delivery(tag: UInt64)
            case returned
        }
    }

    /// Connects and authenticates.
    ///
    /// - Throws: `BrokerError`.
    init(_ address: BrokerAddress, configuration: BusConfiguration) throws {
        guard let state = amqp_new_connection() else { throw BrokerError("out of memory") }
        self.state = state
        guard let socket = amqp_tcp_socket_new(state) else { throw BrokerError("no socket") }
        var timeout = timeval(tv_sec: 5, tv_usec: 0)
        let opened = amqp_socket_open_noblock(socket, address.host, Int32(address.port), &timeout)
        guard opened == 0 else {
            throw BrokerError("\(address.host):\(address.port): \(BrokerSession.text(opened))")
        }
        _ = amqp_set_handshake_timeout(state, &timeout)
        var rpc = timeval(tv_sec: 15, tv_usec: 0)
        _ = amqp_set_rpc_timeout(state, &rpc)
        let heartbeat = Int32(max(1, configuration.heartbeat.components.seconds))
        try BrokerSession.check(
            wolke_amqp_login_plain(
                state, address.virtualHost, 131_072, heartbeat, address.user, address.password.exposed),
            "log in")
        descriptor = amqp_get_sockfd(state)
    }

    deinit { amqp_destroy_connection(state) }

    /// Closes the connection; errors are ignored.
    func close() { _ = amqp_connection_close(state, AMQP_REPLY_SUCCESS) }

    /// Whether frames are buffered that `poll` would not report.
    var hasBufferedInput: Bool { amqp_frames_enqueued(state) != 0 || amqp_data_in_buffer(state) != 0 }

    // MARK: channels and queues

    func openChannel(_ channel: amqp_channel_t) throws {
        _ = amqp_channel_open(state, channel)
        try checkLast("open a channel", channel)
    }

    func closeChannel(_ channel: amqp_channel_t) throws {
        try BrokerSession.check(amqp_channel_close(state, channel, AMQP_REPLY_SUCCESS), "close a channel")
        assembling[channel] = nil
        amqp_maybe_release_buffers_on_channel(state, channel)
    }

    func selectConfirms(_ channel: amqp_channel_t) throws {
        _ = amqp_confirm_select(state, channel)
        try checkLast("ask for confirmations", channel)
    }

    /// Declares `queue` as a durable quorum queue.
    func declareDurable(_ queue: String, channel: amqp_channel_t) throws {
        let arena = CStrings()
        var entry = arena.entry("x-queue-type", "quorum")
        try withUnsafeMutablePointer(to: &entry) { entries in
            _ = amqp_queue_declare(
                state, channel, arena.bytes(queue), 0, 1, 0, 0, amqp_table_t(num_entries: 1, entries: entries))
            try checkLast("declare queue \(queue)", channel)
        }
    }

    /// Declares an exclusive queue that is deleted with this connection.
    func declareExclusive(_ queue: String, channel: amqp_channel_t) throws {
        let arena = CStrings()
        _ = amqp_queue_declare(
            state, channel, arena.bytes(queue), 0, 0, 1, 1, amqp_table_t(num_entries: 0, entries: nil))
        try checkLast("declare queue \(queue)", channel)
    }

    func startConsuming(_ queue: String, channel: amqp_channel_t, prefetch: Int, noAck: Bool) throws {
        let arena = CStrings()
        _ = amqp_basic_qos(state, channel, 0, UInt16(prefetch), 0)
        try checkLast("set the prefetch count", channel)
        _ = amqp_basic_consume(
            state, channel, arena.bytes(queue), amqp_bytes_t(len: 0, bytes: nil), 0, noAck ? 1 : 0, 0,
            amqp_table_t(num_entries: 0, entries: nil))
        try checkLast("consume queue \(queue)", channel)
    }

    // MARK: messages

    /// Publishes one message to the default exchange; the broker returns it if the queue `routingKey` does not exist.
    func publish(_ outgoing: OutgoingMessage, routingKey: String, channel: amqp_channel_t) throws {
        let arena = CStrings()
        var properties = amqp_basic_properties_t()
        properties._flags = BasicFlags.contentType | BasicFlags.deliveryMode | BasicFlags.messageID | BasicFlags.type
        properties.content_type = arena.bytes("application/json")
        properties.delivery_mode = outgoing.persistent ? 2 : 1
        properties.message_id = arena.bytes(outgoing.message.id.description)
        properties.type = arena.bytes(outgoing.message.type)
        if let correlation = outgoing.message.correlationID {
            properties._flags |= BasicFlags.correlationID
            properties.correlation_id = arena.bytes(correlation)
        }
        if let replyTo = outgoing.message.replyTo {
            properties._flags |= BasicFlags.replyTo
            properties.reply_to = arena.bytes(replyTo)
        }
        if let expiration = outgoing.message.expiration {
            properties._flags |= BasicFlags.expiration
            properties.expiration = arena.bytes(String(max(1, expiration.microseconds / 1000)))
        }
        var header = amqp_table_entry_t()
        if let requestID = outgoing.message.requestID {
            header = arena.entry("request_id", requestID)
            properties._flags |= BasicFlags.headers
        }
        let status = withUnsafeMutablePointer(to: &header) { entries in
            if properties._flags & BasicFlags.headers != 0 {
                properties.headers = amqp_table_t(num_entries: 1, entries: entries)
            }
            return outgoing.body.withUnsafeBytes { body in
                amqp_basic_publish(
                    state, channel, amqp_bytes_t(len: 0, bytes: nil), arena.bytes(routingKey), 1, 0, &properties,
                    amqp_bytes_t(len: body.count, bytes: UnsafeMutableRawPointer(mutating: body.baseAddress)))
            }
        }
        guard status == 0 else { throw BrokerError("publish: \(BrokerSession.text(status))") }
    }

    func acknowledge(_ tag: UInt64, channel: amqp_channel_t) throws {
        let status = amqp_basic_ack(state, channel, tag, 0)
        guard status == 0 else { throw BrokerError("acknowledge: \(BrokerSession.text(status))") }
    }

    /// Returns a delivery to its queue.
    func requeue(_ tag: UInt64, channel: amqp_channel_t) throws {
        let status = amqp_basic_nack(state, channel, tag, 0, 1)
        guard status == 0 else { throw BrokerError("give back: \(BrokerSession.text(status))") }
    }

    // MARK: input

    /// Reads what has arrived, without waiting, and sends heartbeats.
    ///
    /// - Throws: `BrokerError` if the connection is lost.
    func drain(_ deliver: (BrokerEvent) throws -> Void) throws {
        while true {
            var frame = amqp_frame_t()
            var none = timeval(tv_sec: 0, tv_usec: 0)
            let status = amqp_simple_wait_frame_noblock(state, &frame, &none)
            if status == AMQP_STATUS_TIMEOUT.rawValue {
                amqp_maybe_release_buffers(state)
                return
            }
            guard status == 0 else { throw BrokerError(BrokerSession.text(status)) }
            if let event = try read(frame) { try deliver(event) }
        }
    }

    private func read(_ frame: amqp_frame_t) throws -> BrokerEvent? {
        switch Int32(frame.frame_type) {
        case AMQP_FRAME_METHOD: return try readMethod(frame.payload.method, channel: frame.channel)
        case AMQP_FRAME_HEADER:
            guard var assembly = assembling[frame.channel], let decoded = frame.payload.properties.decoded else {
                return nil
            }
            assembly.message.read(decoded.assumingMemoryBound(to: amqp_basic_properties_t.self).pointee)
            assembly.remaining = frame.payload.properties.body_size
            assembly.oversized = assembly.remaining > UInt64(MessagingLimits.bodyBytesMax)
            if !assembly.oversized { assembly.message.body.reserveCapacity(Int(assembly.remaining)) }
            return finish(assembly, channel: frame.channel)
        case AMQP_FRAME_BODY:
            guard var assembly = assembling.removeValue(forKey: frame.channel) else { return nil }
            let fragment = frame.payload.body_fragment
            assembly.remaining -= min(assembly.remaining, UInt64(fragment.len))
            if !assembly.oversized {
                assembly.message.body.append(
                    contentsOf: UnsafeRawBufferPointer(start: fragment.bytes, count: fragment.len))
            }
            return finish(assembly, channel: frame.channel)
        default: return nil
        }
    }

    private func finish(_ assembly: Assembly, channel: amqp_channel_t) -> BrokerEvent? {
        guard assembly.remaining == 0 else {
            assembling[channel] = assembly
            return nil
        }
        assembling[channel] = nil
        switch assembly.kind {
        case .delivery(let tag):
            return .delivery(channel: channel, tag: tag, message: assembly.message, oversized: assembly.oversized)
        case .returned: return .returned(assembly.message)
        }
    }

    private func readMethod(_ method: amqp_method_t, channel: amqp_channel_t) throws -> BrokerEvent? {
        func decoded<Value>(_ type: Value.Type) -> Value {
            method.decoded.assumingMemoryBound(to: type).pointee
        }
        switch method.id {
        case AMQPMethod.deliver:
            assembling[channel] = Assembly(kind: .delivery(tag: decoded(amqp_basic_deliver_t.self).delivery_tag))
            return nil
        case AMQPMethod.returned:
            assembling[channel] = Assembly(kind: .returned)
            return nil
        case AMQPMethod.ack:
            let ack = decoded(amqp_basic_ack_t.self)
            return .confirmed(tag: ack.delivery_tag, multiple: ack.multiple != 0, accepted: true)
        case AMQPMethod.nack:
            let nack = decoded(amqp_basic_nack_t.self)
            return .confirmed(tag: nack.delivery_tag, multiple: nack.multiple != 0, accepted: false)
        case AMQPMethod.cancel:
            return .consumerCancelled(channel: channel)
        case AMQPMethod.channelClose:
            let reason = BrokerSession.string(decoded(amqp_channel_close_t.self).reply_text)
            try confirmChannelClose(channel)
            return .channelClosed(channel: channel, reason: reason)
        case AMQPMethod.connectionClose:
            let close = decoded(amqp_connection_close_t.self)
            throw BrokerError("closed by the broker: \(BrokerSession.string(close.reply_text))")
        default: return nil
        }
    }

    private func confirmChannelClose(_ channel: amqp_channel_t) throws {
        var ok = amqp_channel_close_ok_t()
        let status = amqp_send_method(state, channel, AMQPMethod.channelCloseOK, &ok)
        guard status == 0 else { throw BrokerError("close a channel: \(BrokerSession.text(status))") }
        assembling[channel] = nil
    }

    // MARK: errors

    private func checkLast(_ what: String, _ channel: amqp_channel_t) throws {
        let reply = amqp_get_rpc_reply(state)
        do { try BrokerSession.check(reply, what) } catch let error as BrokerError {
            if error.channelOnly { try confirmChannelClose(channel) }
            throw error
        }
    }

    private static func check(_ reply: amqp_rpc_reply_t, _ what: String) throws {
        switch reply.reply_type {
        case AMQP_RESPONSE_NORMAL: return
        case AMQP_RESPONSE_LIBRARY_EXCEPTION: throw BrokerError("\(what): \(text(reply.library_error))")
        case AMQP_RESPONSE_SERVER_EXCEPTION:
            if reply.reply.id == AMQPMethod.channelClose {
                let close = reply.reply.decoded.assumingMemoryBound(to: amqp_channel_close_t.self).pointee
                throw BrokerError("\(what): \(close.reply_code) \(string(close.reply_text))", channelOnly: true)
            }
            if reply.reply.id == AMQPMethod.connectionClose {
                let close = reply.reply.decoded.assumingMemoryBound(to: amqp_connection_close_t.self).pointee
                throw BrokerError("\(what): \(close.reply_code) \(string(close.reply_text))")
            }
            throw BrokerError("\(what): refused by the broker")
        default: throw BrokerError("\(what): the broker closed the connection")
        }
    }

    private static func text(_ status: Int32) -> String { String(cString: amqp_error_string2(status)) }

    static func string(_ bytes: amqp_bytes_t) -> String {
        String(decoding: UnsafeRawBufferPointer(start: bytes.bytes, count: bytes.len), as: UTF8.self)
    }
}
