import Authorization
import Database
import Kernel

extension API {
    /// The caller to whom the policy applies: the token's user, or the subject that a service names in headers.
    ///
    /// A token with the role `service` acts as a service only: its other roles are ignored, except in Identity, where an
    /// administrator who was given the role by mistake must be able to remove it. With a subject, the service may only call
    /// the actions in `ServiceDescription.subjectActions`.
    ///
    /// - Parameter routes: the routes that the request may be for. Its body selects one of them.
    /// - Throws: 403 for subject headers from a caller without the role `service`, if no service may call any of the routes on behalf of
    ///   others, and for a user without a role in the project; 400 for subject headers that are malformed.
    func subject(of caller: Caller, _ request: IncomingRequest, _ routes: [Route]) async throws -> AdmittedCaller {
        let names = request.headers.fields.map(\.name).filter(SubjectHeaders.isReserved)
        guard caller.has(role: "service") else {
            guard names.isEmpty else {
                throw ResourceError.forbidden(
                    """
                    The header \(names[0].prefix(64)) may only be sent with the role 'service': a request acts for \
                    its token's project and user.
                    """
                )
            }
            return AdmittedCaller(policy.judged(caller))
        }
        guard !names.isEmpty else {
            return AdmittedCaller(policy.judged(service.type == "identity" ? caller : caller.asServiceOnly()))
        }
        let subject = try SubjectHeaders.parse(request.headers)
        let allowed = service.subjectActions
        if !routes.contains(where: { $0.action.map(allowed.contains) ?? false }) { throw AdmittedCaller.refusal(of: routes[0]) }
        let acting =
            switch subject.grounds {
            case .accepted: caller.acting(forAccepted: subject)
            case .user: caller.acting(for: try await authenticator.caller(subject: subject))
            }
        return AdmittedCaller(policy.judged(acting), onlyFor: allowed)
    }
}

/// A verified caller, before the body has selected the route.
///
/// Routes that share a path have different actions, and a service may act on behalf of a project only for some of them. The caller is
/// therefore only available together with the route.
struct AdmittedCaller: Sendable {
    private let caller: Caller?
    /// The only actions that the caller may call; nil for no limit.
    private let actions: Set<String>?

    /// - Parameters:
    ///   - caller: nil for a request that needs no token.
    ///   - actions: the only actions that the caller may call; nil for no limit.
    init(_ caller: Caller?, onlyFor actions: Set<String>? = nil) {
        self.caller = caller
        self.actions = actions
    }

    var databaseLane: DatabaseScope.Lane? { caller?.databaseLane }
    /// The owner of the memory for the body; nil without a token.
    var owner: String? { caller.map { $0.projectID ?? $0.userID } }

    /// The caller, for the policy's decision about the selected route.
    ///
    /// - Throws: 403 for an action that no service calls on behalf of others.
    func caller(for route: Route) throws -> Caller? {
        guard let actions else { return caller }
        guard let action = route.action, actions.contains(action) else { throw AdmittedCaller.refusal(of: route) }
        return caller
    }

    static func refusal(of route: Route) -> ResourceError {
        .forbidden("No service may call \(route.action ?? route.path) on behalf of a project.")
    }
}

/// Reads `ActingSubject` from headers.
enum SubjectHeaders {
    private static let known = [ActingSubject.projectHeader, ActingSubject.userHeader, ActingSubject.groundsHeader]
    private static let idBytesMax = 64

    /// Whether a header name is a subject header in any spelling; proxies may replace `-` by `_` or the reverse.
    static func isReserved(_ name: String) -> Bool {
        let prefix = ActingSubject.headerPrefix.utf8
        guard name.utf8.count >= prefix.count else { return false }
        // Names of headers are ASCII (RFC 9110, section 5.6.2). Every request has some, so nothing is copied here.
        return zip(name.utf8, prefix).allSatisfy { byte, expected in
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte | 0x20 == expected
            case UInt8(ascii: "_"): expected == UInt8(ascii: "-")
            default: byte == expected
            }
        }
    }

    /// - Throws: 400 for unknown, missing or repeated headers, invalid ids, and unknown grounds.
    static func parse(_ headers: Headers) throws -> ActingSubject {
        for name in headers.fields.map(\.name) where isReserved(name) && !known.contains(name) {
            throw ResourceError.badRequest("Unknown header \(name.prefix(64)); the subject headers are \(known.joined(separator: ", ")).")
        }
        func value(_ name: String) throws -> String {
            let values = headers.values(name)
            guard values.count == 1 else {
                throw ResourceError.badRequest("A call for a project needs the header \(name) once; there are \(values.count).")
            }
            return values[0]
        }
        func id(_ name: String) throws -> String {
            let text = try value(name)
            let isID =
                (1...idBytesMax).contains(text.utf8.count)
                && text.utf8.allSatisfy { byte in
                    switch byte {
                    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                        true
                    default: false
                    }
                }
            guard isID else { throw ResourceError.badRequest("Invalid value for header \(name): '\(text.prefix(64))'. It must be an id.") }
            return text
        }
        let grounds = try value(ActingSubject.groundsHeader)
        guard let parsed = ActingSubject.Grounds(rawValue: grounds) else {
            throw ResourceError.badRequest(
                "Invalid value for header \(ActingSubject.groundsHeader): '\(grounds.prefix(64))'. It must be user or accepted.")
        }
        return ActingSubject(
            project: try id(ActingSubject.projectHeader), user: try id(ActingSubject.userHeader), grounds: parsed)
    }
}
