import ArgumentParser
import CRabbitMQ
import Glibc
import Kernel
import Messaging

/// librabbitmq with as little around it as it takes: one connection, one channel, every call waits.
final class RawBroker: @unchecked Sendable {
    struct Delivery {
        let tag: UInt64
        let replyTo: String
        let id: String
    }

    private let state: amqp_connection_state_t
    private var confirms = false

    init(_ address: BrokerAddress) throws {
        guard let state = amqp_new_connection(), let socket = amqp_tcp_socket_new(state) else { throw RawBroker.failure("socket") }
        self.state = state
        guard amqp_socket_open(socket, address.host, Int32(address.port)) == 0,
            wolke_amqp_login_plain(state, address.virtualHost, 131_072, 0, address.user, address.password.exposed).reply_type
                == AMQP_RESPONSE_NORMAL
        else { throw RawBroker.failure("log in") }
        amqp_channel_open(state, 1)
        try check("open a channel")
    }

    private static func failure(_ what: String) -> ValidationError { ValidationError("RabbitMQ: cannot \(what)") }

    private func check(_ what: String) throws {
        guard amqp_get_rpc_reply(state).reply_type == AMQP_RESPONSE_NORMAL else { throw RawBroker.failure(what) }
    }

    /// The bytes are valid inside of `body` only.
    private func with<Value>(_ text: String, _ body: (amqp_bytes_t) throws -> Value) rethrows -> Value {
        try text.withCString { try body(amqp_bytes_t(len: strlen($0), bytes: UnsafeMutableRawPointer(mutating: $0))) }
    }

    func declareQuorum(_ queue: String) throws {
        try with("x-queue-type") { key in
            try with("quorum") { value in
                var entry = amqp_table_entry_t()
                entry.key = key
                entry.value.kind = UInt8(AMQP_FIELD_KIND_UTF8.rawValue)
                entry.value.value.bytes = value
                try withUnsafeMutablePointer(to: &entry) { entries in
                    _ = with(queue) {
                        amqp_queue_declare(state, 1, $0, 0, 1, 0, 0, amqp_table_t(num_entries: 1, entries: entries))
                    }
                    try check("declare \(queue)")
                }
            }
        }
    }

    func declareExclusive(_ queue: String) throws {
        _ = with(queue) { amqp_queue_declare(state, 1, $0, 0, 0, 1, 1, amqp_table_t(num_entries: 0, entries: nil)) }
        try check("declare \(queue)")
    }

    func confirm() throws {
        amqp_confirm_select(state, 1)
        try check("ask for confirmations")
        confirms = true
    }

    func consume(_ queue: String, acknowledging: Bool) throws {
        amqp_basic_qos(state, 1, 0, 16, 0)
        _ = with(queue) {
            amqp_basic_consume(
                state, 1, $0, amqp_bytes_t(len: 0, bytes: nil), 0, acknowledging ? 0 : 1, 0, amqp_table_t(num_entries: 0, entries: nil))
        }
        try check("consume \(queue)")
    }

    /// Publishes a persistent message and waits until the broker has it.
    func publish(_ body: [UInt8], to queue: String, replyTo: String?, id: String) throws {
        var properties = amqp_basic_properties_t()
        properties._flags = UInt32(1 << 12 | 1 << 10)
        properties.delivery_mode = 2
        let status = with(id) { id in
            with(replyTo ?? "") { replyTo in
                with(queue) { queue in
                    properties.correlation_id = id
                    if replyTo.len > 0 {
                        properties._flags |= UInt32(1 << 9)
                        properties.reply_to = replyTo
                    }
                    return body.withUnsafeBytes {
                        amqp_basic_publish(
                            state, 1, amqp_bytes_t(len: 0, bytes: nil), queue, 1, 0, &properties,
                            amqp_bytes_t(len: $0.count, bytes: UnsafeMutableRawPointer(mutating: $0.baseAddress)))
                    }
                }
            }
        }
        guard status == 0 else { throw RawBroker.failure("publish") }
        var frame = amqp_frame_t()
        repeat {
            guard amqp_simple_wait_frame(state, &frame) == 0 else { throw RawBroker.failure("get a confirmation") }
        } while Int32(frame.frame_type) != AMQP_FRAME_METHOD
        amqp_maybe_release_buffers(state)
    }

    /// The next delivery; waits for it.
    func next() throws -> Delivery {
        var envelope = amqp_envelope_t()
        guard amqp_consume_message(state, &envelope, nil, 0).reply_type == AMQP_RESPONSE_NORMAL else {
            throw RawBroker.failure("get a message")
        }
        defer { amqp_destroy_envelope(&envelope) }
        amqp_maybe_release_buffers(state)
        func text(_ bytes: amqp_bytes_t) -> String {
            String(decoding: UnsafeRawBufferPointer(start: bytes.bytes, count: bytes.len), as: UTF8.self)
        }
        let properties = envelope.message.properties
        return Delivery(
            tag: envelope.delivery_tag, replyTo: properties._flags & UInt32(1 << 9) != 0 ? text(properties.reply_to) : "",
            id: text(properties.correlation_id))
    }

    func acknowledge(_ tag: UInt64) throws {
        guard amqp_basic_ack(state, 1, tag, 0) == 0 else { throw RawBroker.failure("acknowledge") }
    }
}
