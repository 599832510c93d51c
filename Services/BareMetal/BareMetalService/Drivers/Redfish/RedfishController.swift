import Client
import Cryptography
import JSON
import Kernel

/// The sessions with controllers: one for each address, user, password and way to verify the controller, used until the controller ends
/// it. Controllers limit the number of sessions. A node with a wrong password cannot use the session of another node.
actor RedfishSessions {
    struct Key: Hashable {
        let address: String
        let user: String
        /// SHA-256 of the password.
        let password: [UInt8]
        let authority: RedfishSettings.Authority
    }

    private var tokens: [Key: Secret<String>] = [:]
    /// Controllers without a SessionService.
    private var without: Set<Key> = []

    func token(_ key: Key) -> Secret<String>? { tokens[key] }
    func hasNone(_ key: Key) -> Bool { without.contains(key) }
    func keep(_ token: Secret<String>, for key: Key) { tokens[key] = token }
    func rememberNone(_ key: Key) { without.insert(key) }

    /// Forgets a session that the controller has ended, unless another task has replaced it.
    func forget(_ token: Secret<String>?, of key: Key) {
        if let token, tokens[key]?.exposed == token.exposed { tokens[key] = nil }
    }
}

/// A controller that supports Redfish.
struct RedfishController: Sendable {
    let settings: RedfishSettings
    let sessions: RedfishSessions
    let ambient: Ambient

    static let root = "/redfish/v1/"
    private static let sessionPath = "/redfish/v1/SessionService/Sessions"
    private static let timeout: Duration = .seconds(60)
    private static let bytesMax = 1 << 20
    private static let attemptsMax = 3

    /// A response of the controller.
    struct Answer {
        let body: JSONObject
        let etag: String?
    }

    func get(_ path: String) async throws -> JSONObject { try await read(path).body }

    /// Reads a resource. Retries after temporary errors.
    func read(_ path: String) async throws -> Answer {
        var attempt = 1
        while true {
            do { return try await send("GET", path, nil) } catch let failure as HardwareFailure {
                guard attempt < RedfishController.attemptsMax, failure.isTemporary else { throw failure }
                try await ambient.time.sleep(for: .seconds(attempt))
                attempt += 1
            }
        }
    }

    func post(_ path: String, _ body: JSONObject) async throws { _ = try await send("POST", path, body) }

    /// Changes a resource. Some controllers require its ETag.
    func patch(_ path: String, _ body: JSONObject) async throws {
        do { _ = try await send("PATCH", path, body) } catch let failure as HardwareFailure {
            guard failure.status == 412 || failure.status == 428 else { throw failure }
            let etag = try await read(path).etag
            _ = try await send("PATCH", path, body, etag: etag)
        }
    }

    // MARK: requests

    private var key: RedfishSessions.Key? {
        guard let user = settings.user, let password = settings.password else { return nil }
        return .init(
            address: settings.address, user: user, password: HashAlgorithm.sha256.hash(Array(password.exposed.utf8)),
            authority: settings.authority)
    }

    private func send(_ method: String, _ path: String, _ body: JSONObject?, etag: String? = nil) async throws -> Answer {
        guard RedfishSettings.isPath(path) else {
            throw HardwareFailure(description: "The controller has returned the path '\(path.prefix(64))', which is not one of its own.")
        }
        var (headers, token) = try await authorization()
        if let etag { headers.append(("if-match", etag)) }
        var answer = try await exchange(method, path, body, headers)
        if answer.status == 401, let key, token != nil {
            await sessions.forget(token, of: key)
            (headers, token) = try await authorization()
            if let etag { headers.append(("if-match", etag)) }
            answer = try await exchange(method, path, body, headers)
        }
        guard (200..<300).contains(answer.status) else { throw failure(method, path, answer) }
        return Answer(
            body: RedfishController.object(answer.body) ?? [:], etag: answer.headers.first { $0.0.lowercased() == "etag" }?.1)
    }

    /// The headers that authenticate a request, and the token of the session that they use.
    private func authorization() async throws -> (headers: [(String, String)], token: Secret<String>?) {
        guard let key, let password = settings.password else { return ([], nil) }
        let basic = ("authorization", "Basic " + Base64.encode(Array("\(key.user):\(password.exposed)".utf8)))
        if settings.signOn == .basic { return ([basic], nil) }
        if let token = await sessions.token(key) { return ([("x-auth-token", token.exposed)], token) }
        if settings.signOn == .auto, await sessions.hasNone(key) { return ([basic], nil) }
        let path = RedfishController.sessionPath
        let answer = try await exchange("POST", path, ["UserName": .string(key.user), "Password": .string(password.exposed)], [])
        // Some controllers protect all paths by Basic authentication and have no sessions: they require Basic authentication here too. If
        // the password is wrong, the next request is refused.
        let wantsBasic = answer.status == 401 && answer.headers.contains { $0.0.lowercased() == "www-authenticate" }
        if settings.signOn == .auto, wantsBasic || [404, 405, 501].contains(answer.status) {
            await sessions.rememberNone(key)
            return ([basic], nil)
        }
        guard (200..<300).contains(answer.status), let text = answer.headers.first(where: { $0.0.lowercased() == "x-auth-token" })?.1 else {
            throw failure("POST", path, answer)
        }
        let token = Secret(text)
        await sessions.keep(token, for: key)
        return ([("x-auth-token", text)], token)
    }

    private func exchange(
        _ method: String, _ path: String, _ body: JSONObject?, _ headers: [(String, String)]
    ) async throws -> HTTPTransport.Incoming {
        let transport: HTTPTransport =
            switch settings.authority {
            case .system: .to(verifies: true, certificateFile: nil)
            case .none: .to(verifies: false, certificateFile: nil)
            case .file(let file): .to(verifies: true, certificateFile: file)
            }
        var all = headers + [("accept", "application/json"), ("odata-version", "4.0")]
        if body != nil { all.append(("content-type", "application/json")) }
        let request = HTTPTransport.Outgoing(
            method: method, url: settings.address + path, headers: all, body: body.map { JSONValue.object($0).encoded } ?? [])
        do {
            return try await transport.exchange(request, timeout: RedfishController.timeout, bytesMax: RedfishController.bytesMax)
        } catch let error as TransportError {
            if let failure = untrusted(error.reason) { throw failure }
            throw HardwareFailure(description: "The controller \(settings.address) cannot be reached: \(error.reason).", isTemporary: true)
        } catch let error as ResourceError {
            throw HardwareFailure(description: "The controller \(settings.address) sent an invalid response: \(error.message).")
        }
    }

    /// The permanent failure for a rejected certificate; nil for other reasons.
    private func untrusted(_ reason: String) -> HardwareFailure? {
        let marks = ["CERTIFICATE_VERIFY_FAILED", "unableToValidateCertificate", "noSANMatch"]
        guard marks.contains(where: reason.contains) else { return nil }
        let authority =
            switch settings.authority {
            case .file(let path): "the file \(path.split(separator: "/").last ?? "") of redfish_verify_ca"
            default: "the machine's certificate authorities (redfish_verify_ca names others)"
            }
        return HardwareFailure(
            description: "The certificate of the controller \(settings.address) is for another name, or not verified by \(authority).")
    }

    // MARK: answers

    private static func object(_ bytes: [UInt8]) -> JSONObject? {
        do { return try JSONValue.parse(bytes).objectValue } catch { return nil }
    }

    private func failure(_ method: String, _ path: String, _ answer: HTTPTransport.Incoming) -> HardwareFailure {
        let words = RedfishController.words(RedfishController.object(answer.body) ?? [:])
        let status = answer.status == 401 ? "401: the user or the password is wrong" : "\(answer.status)"
        return HardwareFailure(
            description:
                "The controller \(settings.address) has answered \(status) to \(method) \(path)\(words.isEmpty ? "." : ": \(words)")",
            isTemporary: answer.status >= 500 || answer.status == 429, status: answer.status)
    }

    /// The messages of an error response (DSP0266, 8.6).
    private static func words(_ body: JSONObject) -> String {
        let error = body["error"]
        let details = error?["@Message.ExtendedInfo"]?.arrayValue?.compactMap { $0["Message"]?.stringValue } ?? []
        let text = details.isEmpty ? error?["message"]?.stringValue ?? "" : details.joined(separator: " ")
        return HardwareFailure.plain(text, max: 500)
    }
}
