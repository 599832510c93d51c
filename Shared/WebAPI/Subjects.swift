import Authorization
import Kernel

extension API {
    /// The caller to whom the policy applies: the token's user, or the subject that a service names in headers.
    ///
    /// A token with the role `service` acts as a service only: its other roles are ignored, except in Identity, where an
    /// administrator who was given the role by mistake must be able to remove it. With a subject, the service may only call
    /// the actions in `ServiceDescription.subjectActions`.
    ///
    /// - Throws: 403 for subject headers from a caller without the role `service`, for an action that no service calls on
    ///   behalf of others, and for a user without a role in the project; 400 for subject headers that are malformed.
    func subject(of caller: Caller, _ request: IncomingRequest, _ route: Route) async throws -> Caller {
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
            return caller
        }
        guard !names.isEmpty else { return service.type == "identity" ? caller : caller.asServiceOnly() }
        let subject = try SubjectHeaders.parse(request.headers)
        guard let action = route.action, service.subjectActions.contains(action) else {
            throw ResourceError.forbidden("No service may call \(route.action ?? route.path) on behalf of a project.")
        }
        switch subject.grounds {
        case .accepted: return caller.acting(forAccepted: subject)
        case .user: return caller.acting(for: try await authenticator.caller(subject: subject))
        }
    }
}

/// Reads `ActingSubject` from headers.
enum SubjectHeaders {
    private static let known = [ActingSubject.projectHeader, ActingSubject.userHeader, ActingSubject.groundsHeader]
    private static let idBytesMax = 64

    /// Whether a header name is a subject header in any spelling; proxies may replace `-` by `_` or the reverse.
    static func isReserved(_ name: String) -> Bool {
        name.lowercased().replacing("_", with: "-").hasPrefix(ActingSubject.headerPrefix)
    }

    /// - Throws: 400 for unknown, missing or repeated headers, ids that are none, and unknown grounds.
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
