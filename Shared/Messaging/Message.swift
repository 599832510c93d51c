package import JSON
package import Kernel

/// A message of the bus: a JSON body with the properties for answering and de-duplicating it.
package struct Message: Sendable, Hashable {
    /// The operation's id: a repetition has the same id, and consumers de-duplicate by it.
    package var id: UUID128
    /// The type of the body; `error` marks a failed reply.
    package var type: String
    package var body: JSONValue
    /// The API request that caused the message.
    package var requestID: String?
    /// The queue for the answer; nil if none is expected.
    package var replyTo: String?
    /// Correlates an answer with its question.
    package var correlationID: String?
    /// How long the message may wait for delivery; nil for no limit.
    package var expiration: Duration?
    /// Number of earlier deliveries without an acknowledgement.
    package var deliveryCount: Int

    package init(
        id: UUID128, type: String, body: JSONValue, requestID: String? = nil, replyTo: String? = nil,
        correlationID: String? = nil, expiration: Duration? = nil, deliveryCount: Int = 0
    ) {
        self.id = id
        self.type = type
        self.body = body
        self.requestID = requestID
        self.replyTo = replyTo
        self.correlationID = correlationID
        self.expiration = expiration
        self.deliveryCount = deliveryCount
    }
}

/// Limits of the bus.
package enum MessagingLimits {
    /// Largest body of a message, in bytes; sufficient for all servers of one host.
    package static let bodyBytesMax = 8 << 20
    /// Deepest nesting of a body.
    package static let bodyDepthMax = 64
    /// Longest name of a queue, in bytes (AMQP's short string).
    package static let queueNameBytesMax = 255
    /// Messages in this process that wait for the broker; further ones are refused.
    package static let waitingMax = 20_000
    /// Messages sent and not yet confirmed.
    package static let unconfirmedMax = 1_000
    /// Deliveries that one consumer processes concurrently.
    package static let prefetchMax = 1_000
    /// Answers awaited concurrently.
    package static let requestsMax = 10_000
    /// Outbox rows relayed in one batch.
    package static let outboxBatchMax = 200
}

extension Message {
    /// The type of a reply with an error instead of a result.
    static let errorType = "error"

    /// The error as the body of a reply. The internal context is not sent over the bus.
    static func body(of error: any Error) -> JSONValue {
        let shown = (error as? ResourceError) ?? .internalError(String(describing: error))
        var body: JSONObject = ["code": JSONValue(shown.code.rawValue), "message": .string(shown.message)]
        if let type = shown.type { body["type"] = .string(type) }
        if let retryAfter = shown.retryAfter { body["retry_after"] = JSONValue(retryAfter) }
        return .object(body)
    }

    /// The result of a reply.
    ///
    /// - Throws: the `ResourceError` of an error reply.
    package func result() throws -> JSONValue {
        guard type == Message.errorType else { return body }
        let code = body["code"]?.intValue.flatMap { ResourceError.Code(rawValue: $0) } ?? .internalError
        throw ResourceError(
            code, body["message"]?.stringValue ?? "The request failed.", type: body["type"]?.stringValue,
            retryAfter: body["retry_after"]?.intValue)
    }

    /// The answer to this message.
    ///
    /// - Returns: nil if no reply is expected.
    func reply(id: UUID128, type: String, body: JSONValue) -> Message? {
        guard replyTo != nil else { return nil }
        return Message(
            id: id, type: type, body: body, requestID: requestID, correlationID: correlationID,
            expiration: .seconds(60))
    }
}
