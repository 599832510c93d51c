import CLibvirt

/// The error of a failed libvirt call.
package struct LibvirtError: Error, Sendable, CustomStringConvertible {
    /// libvirt's error code (`virErrorNumber`).
    package let code: Int
    /// The component that raised the error (`virErrorDomain`).
    package let domain: Int
    package let message: String
    /// The failed call.
    package let call: String

    package init(code: Int, domain: Int, message: String, call: String) {
        self.code = code
        self.domain = domain
        self.message = message
        self.call = call
    }

    /// The error of the last call on this thread.
    static func last(_ call: String) -> LibvirtError {
        guard let pointer = virGetLastError() else {
            return LibvirtError(code: 0, domain: 0, message: "no error was recorded", call: call)
        }
        let error = pointer.pointee
        return LibvirtError(
            code: Int(error.code), domain: Int(error.domain),
            message: error.message.map { String(cString: $0) } ?? "unknown error", call: call)
    }

    package var description: String { "\(call): \(message) (libvirt error \(code), domain \(domain))" }

    /// For drivers other than libvirt: the domain does not exist.
    package static func noDomain(_ uuid: String, call: String) -> LibvirtError {
        LibvirtError(code: Int(VIR_ERR_NO_DOMAIN.rawValue), domain: 0, message: "no domain with matching uuid '\(uuid)'", call: call)
    }

    /// For drivers other than libvirt: the domain's state does not allow the call.
    package static func invalidState(call: String) -> LibvirtError {
        LibvirtError(code: Int(VIR_ERR_OPERATION_INVALID.rawValue), domain: 0, message: "domain is not running", call: call)
    }

    /// For drivers other than libvirt: the definition was refused.
    package static func badDefinition(_ message: String, call: String) -> LibvirtError {
        LibvirtError(code: Int(VIR_ERR_CONFIG_UNSUPPORTED.rawValue), domain: 0, message: message, call: call)
    }

    /// For drivers other than libvirt: there is no connection.
    package static func noConnection(call: String) -> LibvirtError {
        LibvirtError(code: Int(VIR_ERR_NO_CONNECT.rawValue), domain: 0, message: "the connection was closed", call: call)
    }

    private func isCode(_ number: virErrorNumber) -> Bool { code == Int(number.rawValue) }

    /// The domain does not exist.
    package var isNoDomain: Bool { isCode(VIR_ERR_NO_DOMAIN) }
    /// The domain's state does not allow the call: already running, not running.
    package var isInvalidState: Bool { isCode(VIR_ERR_OPERATION_INVALID) }
    /// The driver does not support this.
    package var isUnsupported: Bool {
        isCode(VIR_ERR_NO_SUPPORT) || isCode(VIR_ERR_CONFIG_UNSUPPORTED) || isCode(VIR_ERR_OPERATION_UNSUPPORTED)
            || isCode(VIR_ERR_ARGUMENT_UNSUPPORTED)
    }
    /// For drivers other than libvirt: the guest has no agent.
    package static func noAgent(call: String) -> LibvirtError {
        LibvirtError(
            code: Int(VIR_ERR_ARGUMENT_UNSUPPORTED.rawValue), domain: Int(VIR_FROM_QEMU.rawValue),
            message: "QEMU guest agent is not configured", call: call)
    }

    /// The domain has no channel to a guest agent.
    package var isAgentMissing: Bool { isCode(VIR_ERR_ARGUMENT_UNSUPPORTED) }
    /// The guest's agent does not answer.
    package var isAgentSilent: Bool { isCode(VIR_ERR_AGENT_UNRESPONSIVE) || isCode(VIR_ERR_AGENT_UNSYNCED) }
    /// The guest's agent answered with an error: the user is unknown, or the command is disabled.
    package var isAgentRefusal: Bool { isCode(VIR_ERR_INTERNAL_ERROR) || isCode(VIR_ERR_OPERATION_UNSUPPORTED) }
    /// The device to detach does not exist.
    package var isNoDevice: Bool { isCode(VIR_ERR_DEVICE_MISSING) }
    /// The XML was refused, so repeating the call cannot help.
    package var isBadDefinition: Bool {
        isCode(VIR_ERR_XML_ERROR) || isCode(VIR_ERR_XML_DETAIL) || isCode(VIR_ERR_XML_INVALID_SCHEMA)
            || isCode(VIR_ERR_CONFIG_UNSUPPORTED)
    }

    /// libvirtd is unavailable, or was lost during the call.
    package var isConnectionFailure: Bool {
        if isCode(VIR_ERR_NO_CONNECT) || isCode(VIR_ERR_INVALID_CONN) || isCode(VIR_ERR_RPC) { return true }
        // The RPC client reports a dead socket as a generic error of its own domain.
        return domain == Int(VIR_FROM_RPC.rawValue) || domain == Int(VIR_FROM_REMOTE.rawValue)
    }
}
