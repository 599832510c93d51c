import CRabbitMQ
import Glibc
import JSON
import Kernel

/// An event from the broker.
enum BrokerEvent {
    case delivery(channel: amqp_channel_t, tag: UInt64, message: IncomingMessage, oversized: Bool)
    /// A message that could not be routed to any queue.
    case returned(IncomingMessage)
    case confirmed(tag: UInt64, multiple: Bool, accepted: Bool)
    /// The queue was deleted while it was being consumed.
    case consumerCancelled(channel: amqp_channel_t)
    case channelClosed(channel: amqp_channel_t, reason: String)
}

/// A message with its body already encoded.
struct OutgoingMessage: Sendable {
    let message: Message
    let body: [UInt8]
    let persistent: Bool

    /// - Throws: `ResourceError` 413 if the body is too large for the bus.
    init(_ message: Message, persistent: Bool) throws {
        self.message = message
        self.body = message.body.encoded
        self.persistent = persistent
        guard body.count <= MessagingLimits.bodyBytesMax else {
            throw ResourceError(
                .tooLarge,
                "a message of \(body.count) bytes exceeds the limit of \(MessagingLimits.bodyBytesMax) bytes")
        }
    }
}

/// A message as received.
struct IncomingMessage: Sendable {
    var id: String?
    var type = ""
    var requestID: String?
    var replyTo: String?
    var correlationID: String?
    var deliveryCount = 0
    var body: [UInt8] = []

    mutating func read(_ properties: amqp_basic_properties_t) {
        func text(_ flag: amqp_flags_t, _ bytes: amqp_bytes_t) -> String? {
            properties._flags & flag != 0 ? BrokerSession.string(bytes) : nil
        }
        id = text(BasicFlags.messageID, properties.message_id)
        type = text(BasicFlags.type, properties.type) ?? ""
        replyTo = text(BasicFlags.replyTo, properties.reply_to)
        correlationID = text(BasicFlags.correlationID, properties.correlation_id)
        guard properties._flags & BasicFlags.headers != 0, let entries = properties.headers.entries else { return }
        for index in 0..<Int(properties.headers.num_entries) {
            let entry = entries[index]
            switch BrokerSession.string(entry.key) {
            case "request_id": requestID = BrokerSession.string(entry.value.value.bytes)
            case "x-delivery-count": deliveryCount = IncomingMessage.integer(entry.value)
            default: break
            }
        }
    }

    private static func integer(_ field: amqp_field_value_t) -> Int {
        switch field.kind {
        case UInt8(ascii: "b"): Int(field.value.i8)
        case UInt8(ascii: "B"): Int(field.value.u8)
        case UInt8(ascii: "s"): Int(field.value.i16)
        case UInt8(ascii: "u"): Int(field.value.u16)
        case UInt8(ascii: "I"): Int(field.value.i32)
        case UInt8(ascii: "i"): Int(field.value.u32)
        case UInt8(ascii: "l"), UInt8(ascii: "L"): Int(field.value.i64)
        default: 0
        }
    }

    /// The decoded message, or the reason why it is invalid.
    func decoded() -> Result<Message, PoisonMessage> {
        guard let id = id.flatMap({ UUID128($0) }) else { return .failure(PoisonMessage("message-id is not a UUID")) }
        do {
            let value = try JSONValue.parse(body, depthMax: MessagingLimits.bodyDepthMax)
            return .success(
                Message(
                    id: id, type: type, body: value, requestID: requestID, replyTo: replyTo,
                    correlationID: correlationID, deliveryCount: deliveryCount))
        } catch {
            return .failure(PoisonMessage("body is not JSON: \(error)"))
        }
    }
}

/// Flags of the basic properties (amqp_framing.h's `AMQP_BASIC_*_FLAG`).
enum BasicFlags {
    static let contentType: amqp_flags_t = 1 << 15
    static let headers: amqp_flags_t = 1 << 13
    static let deliveryMode: amqp_flags_t = 1 << 12
    static let correlationID: amqp_flags_t = 1 << 10
    static let replyTo: amqp_flags_t = 1 << 9
    static let expiration: amqp_flags_t = 1 << 8
    static let messageID: amqp_flags_t = 1 << 7
    static let type: amqp_flags_t = 1 << 5
}

/// Method numbers (class << 16 | method).
enum AMQPMethod {
    static let connectionClose: amqp_method_number_t = 10 << 16 | 50
    static let channelClose: amqp_method_number_t = 20 << 16 | 40
    static let channelCloseOK: amqp_method_number_t = 20 << 16 | 41
    static let cancel: amqp_method_number_t = 60 << 16 | 30
    static let returned: amqp_method_number_t = 60 << 16 | 50
    static let deliver: amqp_method_number_t = 60 << 16 | 60
    static let ack: amqp_method_number_t = 60 << 16 | 80
    static let nack: amqp_method_number_t = 60 << 16 | 120
}

/// C copies of strings, freed with this object.
final class CStrings {
    private var owned: [UnsafeMutablePointer<CChar>] = []

    deinit { for pointer in owned { free(pointer) } }

    func bytes(_ text: String) -> amqp_bytes_t {
        guard let copy = strdup(text) else { return amqp_bytes_t(len: 0, bytes: nil) }
        owned.append(copy)
        return amqp_bytes_t(len: text.utf8.count, bytes: copy)
    }

    func entry(_ key: String, _ value: String) -> amqp_table_entry_t {
        var entry = amqp_table_entry_t()
        entry.key = bytes(key)
        entry.value.kind = UInt8(ascii: "S")
        entry.value.value.bytes = bytes(value)
        return entry
    }
}
