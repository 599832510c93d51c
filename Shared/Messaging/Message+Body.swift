package import Contracts
import JSON
package import Kernel
import Telemetry

extension Message {
    /// A message with `body`.
    ///
    /// - Throws: `EncodingError` if the body has no JSON form.
    package init<Body: MessageBody>(
        _ body: Body, id: UUID128, requestID: String? = RequestScope.current, expiration: Duration? = nil
    ) throws {
        self.init(id: id, type: Body.type, body: try body.document(), requestID: requestID, expiration: expiration)
    }

    /// Decodes the body.
    ///
    /// - Throws: `PoisonMessage` naming the missing or invalid member, because a retry cannot help.
    package func decode<Body: MessageBody>(as type: Body.Type = Body.self) throws(PoisonMessage) -> Body {
        do { return try Body(document: body) } catch let error as DecodingError {
            throw PoisonMessage("\(Body.type): \(error.summary)")
        } catch { throw PoisonMessage("\(Body.type): \(error)") }
    }

    /// The member `type` of the body, which distinguishes the messages of a queue.
    ///
    /// - Throws: `PoisonMessage` for a body without one.
    package func bodyType() throws(PoisonMessage) -> String {
        guard let type = body["type"]?.stringValue else { throw PoisonMessage("type: is missing") }
        return type
    }
}

extension MessageBus {
    /// Sends a question and decodes its answer.
    ///
    /// - Parameter expiration: how long the question may wait for delivery.
    /// - Throws: the `ResourceError` of an error answer; 503 if no answer came in time; 500 if the answer cannot be decoded.
    package func request<Question: MessageQuestion>(
        _ question: Question, to queue: MessageQueue, id: UUID128, timeout: Duration, expiration: Duration? = nil
    ) async throws -> Question.Answer {
        let answer = try await request(try Message(question, id: id, expiration: expiration), to: queue, timeout: timeout)
        do { return try answer.decode(as: Question.Answer.self) } catch let error as DecodingError {
            throw ResourceError.internalError("the answer to \(Question.type) cannot be decoded: \(error.summary)")
        }
    }
}
