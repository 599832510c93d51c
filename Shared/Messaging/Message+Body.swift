import Contracts
import JSON
import Kernel
import Telemetry

extension Message {
    /// A message that says `body`.
    ///
    /// - Throws: `EncodingError` where the body has no JSON form.
    package init<Body: MessageBody>(
        _ body: Body, id: UUID128, requestID: String? = RequestScope.current, expiration: Duration? = nil
    ) throws {
        self.init(id: id, type: Body.type, body: try body.document(), requestID: requestID, expiration: expiration)
    }

    /// What the message says.
    ///
    /// - Throws: `PoisonMessage` naming the member that is missing or wrong: no repetition mends that.
    package func decode<Body: MessageBody>(as type: Body.Type = Body.self) throws(PoisonMessage) -> Body {
        do { return try Body(document: body) } catch let error as DecodingError {
            throw PoisonMessage("\(Body.type): \(error.summary)")
        } catch { throw PoisonMessage("\(Body.type): \(error)") }
    }

    /// The member `type` of the body, by which those who read a queue tell its messages apart.
    ///
    /// - Throws: `PoisonMessage` for a body without one.
    package func bodyType() throws(PoisonMessage) -> String {
        guard let type = body["type"]?.stringValue else { throw PoisonMessage("type: is missing") }
        return type
    }
}

extension MessageBus {
    /// Sends a question and reads its answer.
    ///
    /// - Parameter expiration: how long the question is worth delivering.
    /// - Throws: the `ResourceError` that the other side answered with; 503 when no answer came in time; 500 for an answer
    ///   that cannot be read.
    package func request<Question: MessageQuestion>(
        _ question: Question, to queue: MessageQueue, id: UUID128, timeout: Duration, expiration: Duration? = nil
    ) async throws -> Question.Answer {
        let answer = try await request(try Message(question, id: id, expiration: expiration), to: queue, timeout: timeout)
        do { return try answer.decode(as: Question.Answer.self) } catch let error as DecodingError {
            throw ResourceError.internalError("the answer to \(Question.type) cannot be read: \(error.summary)")
        }
    }
}
