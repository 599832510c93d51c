import CLibvirt
import Glibc

/// The method of asking a guest to shut down.
package enum ShutdownMethod: Sendable {
    case acpiButton
    case guestAgent
}

/// The definition of a domain that a device change affects.
package struct DeviceScope: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    /// The running guest.
    package static let live = DeviceScope(rawValue: VIR_DOMAIN_AFFECT_LIVE.rawValue)
    /// The definition used at the next start.
    package static let config = DeviceScope(rawValue: VIR_DOMAIN_AFFECT_CONFIG.rawValue)
}

/// One value of a domain's statistics.
package enum DomainStatistic: Sendable, Hashable {
    case integer(Int64)
    case number(Double)
    case text(String)
    case flag(Bool)
}

extension Hypervisor {
    /// All domains, running or not.
    package func domains() async throws -> [DomainSummary] {
        try await call("virConnectListAllDomains") { connection in
            var list: UnsafeMutablePointer<OpaquePointer?>?
            let count = virConnectListAllDomains(connection, &list, 0)
            guard count >= 0, let list else { throw LibvirtError.last("virConnectListAllDomains") }
            defer { free(list) }
            var summaries: [DomainSummary] = []
            for index in 0..<Int(count) {
                guard let domain = list[index] else { continue }
                defer { virDomainFree(domain) }
                // A domain that disappeared in the meantime is left out.
                if let summary = try Hypervisor.summary(domain) { summaries.append(summary) }
            }
            return summaries
        }
    }

    /// Nil if the domain does not exist.
    package func domain(_ uuid: String) async throws -> DomainSummary? {
        do {
            return try await withDomain(uuid, "virDomainGetState") { try Hypervisor.summary($0) }
        } catch let error as LibvirtError where error.isNoDomain {
            return nil
        }
    }

    private static func summary(_ domain: OpaquePointer) throws -> DomainSummary? {
        var text = [CChar](repeating: 0, count: Int(VIR_UUID_STRING_BUFLEN))
        var state: Int32 = 0
        var reason: Int32 = 0
        guard virDomainGetUUIDString(domain, &text) == 0, virDomainGetState(domain, &state, &reason, 0) == 0 else {
            let error = LibvirtError.last("virDomainGetState")
            if error.isNoDomain { return nil }
            throw error
        }
        return DomainSummary(
            uuid: cText(text), name: virDomainGetName(domain).map { String(cString: $0) } ?? "",
            state: DomainState(state), shutoffReason: ShutoffReason(reason),
            isMoving: DomainSummary.isMoving(DomainState(state), reason),
            hasManagedSave: virDomainHasManagedSaveImage(domain, 0) == 1,
            isPersistent: virDomainIsPersistent(domain) == 1)
    }

    /// The domain's XML: of the running guest, or (`inactive`) of its next start.
    package func xml(_ uuid: String, inactive: Bool = false) async throws -> String {
        try await withDomain(uuid, "virDomainGetXMLDesc") { domain in
            let flags = inactive ? VIR_DOMAIN_XML_INACTIVE.rawValue : 0
            guard let text = takeText(virDomainGetXMLDesc(domain, flags)) else {
                throw LibvirtError.last("virDomainGetXMLDesc")
            }
            return text
        }
    }

    /// Creates or replaces the persistent definition of the domain; a running guest is not changed.
    package func define(xml: String) async throws {
        try await call("virDomainDefineXMLFlags") { connection in
            guard let domain = virDomainDefineXMLFlags(connection, xml, 0) else {
                throw LibvirtError.last("virDomainDefineXMLFlags")
            }
            virDomainFree(domain)
        }
    }

    /// Starts a defined domain (from its managed save, if there is one). Succeeds if it is already running.
    package func start(_ uuid: String, paused: Bool = false) async throws {
        try await withDomain(uuid, "virDomainCreateWithFlags") { domain in
            if virDomainIsActive(domain) == 1 { return }
            let flags = paused ? VIR_DOMAIN_START_PAUSED.rawValue : 0
            if virDomainCreateWithFlags(domain, flags) < 0, virDomainIsActive(domain) != 1 {
                throw LibvirtError.last("virDomainCreateWithFlags")
            }
        }
    }

    /// Forces the domain off. Succeeds if it is already off.
    package func destroy(_ uuid: String) async throws {
        try await withDomain(uuid, "virDomainDestroyFlags") { domain in
            guard virDomainIsActive(domain) == 1 else { return }
            if virDomainDestroyFlags(domain, 0) < 0 {
                let error = LibvirtError.last("virDomainDestroyFlags")
                if !error.isInvalidState { throw error }
            }
        }
    }

    /// A new connection to the domain's display, by the protocol of the display (VNC). Requires a running domain and libvirtd on
    /// this machine.
    ///
    /// - Returns: a connected socket, which the caller owns.
    package func openDisplay(_ uuid: String) async throws -> Int32 {
        try await withDomain(uuid, "virDomainOpenGraphicsFD") { domain in
            let descriptor = virDomainOpenGraphicsFD(domain, 0, 0)
            guard descriptor >= 0 else { throw LibvirtError.last("virDomainOpenGraphicsFD") }
            return descriptor
        }
    }

    /// Requests the guest to shut down; does not wait.
    package func shutdown(_ uuid: String, by method: ShutdownMethod) async throws {
        let flags =
            method == .acpiButton
            ? VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN.rawValue : VIR_DOMAIN_SHUTDOWN_GUEST_AGENT.rawValue
        try await check(uuid, "virDomainShutdownFlags") { virDomainShutdownFlags($0, flags) }
    }

    /// Requests the guest to reboot; does not wait.
    package func reboot(_ uuid: String) async throws {
        try await check(uuid, "virDomainReboot") { virDomainReboot($0, 0) }
    }

    /// Resets the guest; the contents of its memory are lost.
    package func reset(_ uuid: String) async throws {
        try await check(uuid, "virDomainReset") { virDomainReset($0, 0) }
    }

    /// Pauses the guest's processors.
    package func suspend(_ uuid: String) async throws {
        try await check(uuid, "virDomainSuspend") { virDomainSuspend($0) }
    }

    /// Resumes a paused guest.
    package func resume(_ uuid: String) async throws {
        try await check(uuid, "virDomainResume") { virDomainResume($0) }
    }

    /// Saves the guest's memory to disk and stops it; the next `start` resumes it.
    package func managedSave(_ uuid: String) async throws {
        try await check(uuid, "virDomainManagedSave") { virDomainManagedSave($0, 0) }
    }

    /// Deletes the saved memory; the next start is a boot.
    package func discardManagedSave(_ uuid: String) async throws {
        try await check(uuid, "virDomainManagedSaveRemove") { domain in
            virDomainHasManagedSaveImage(domain, 0) == 1 ? virDomainManagedSaveRemove(domain, 0) : 0
        }
    }

    /// Removes the definition with its saved memory, firmware variables and snapshot metadata. Succeeds if the domain does not
    /// exist.
    package func undefine(_ uuid: String) async throws {
        do {
            try await withDomain(uuid, "virDomainUndefineFlags") { domain in
                let flags =
                    VIR_DOMAIN_UNDEFINE_MANAGED_SAVE.rawValue | VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA.rawValue
                    | VIR_DOMAIN_UNDEFINE_NVRAM.rawValue
                if virDomainUndefineFlags(domain, flags) == 0 { return }
                let error = LibvirtError.last("virDomainUndefineFlags")
                if error.isNoDomain { return }
                // Drivers without these flags refuse them; the plain call is equivalent there.
                guard error.isUnsupported || error.code == Int(VIR_ERR_INVALID_ARG.rawValue),
                    virDomainUndefine(domain) == 0
                else { throw error }
            }
        } catch let error as LibvirtError where error.isNoDomain {
            return
        }
    }

    /// Sends a non-maskable interrupt to the guest.
    package func injectNMI(_ uuid: String) async throws {
        try await check(uuid, "virDomainInjectNMI") { virDomainInjectNMI($0, 0) }
    }

    /// Seconds that a guest agent may take to answer; otherwise the guest could block the calling thread forever.
    private static let agentTimeout: Int32 = 10

    /// Sets a user's password in the running guest, through its guest agent.
    package func setPassword(_ uuid: String, user: String, password: String) async throws {
        try await check(uuid, "virDomainSetUserPassword") { domain in
            let status = virDomainAgentSetResponseTimeout(domain, Hypervisor.agentTimeout, 0)
            return status < 0 ? status : virDomainSetUserPassword(domain, user, password, 0)
        }
    }

    /// Attaches a device.
    package func attach(_ uuid: String, device xml: String, to scope: DeviceScope) async throws {
        try await check(uuid, "virDomainAttachDeviceFlags") { virDomainAttachDeviceFlags($0, xml, scope.rawValue) }
    }

    /// Requests the removal of a device. For a running guest it returns before the guest has released the device.
    package func detach(_ uuid: String, device xml: String, from scope: DeviceScope) async throws {
        try await check(uuid, "virDomainDetachDeviceFlags") { virDomainDetachDeviceFlags($0, xml, scope.rawValue) }
    }

    private func check(
        _ uuid: String, _ name: String, _ body: @escaping @Sendable (OpaquePointer) -> Int32
    ) async throws {
        try await withDomain(uuid, name) { domain in
            if body(domain) < 0 { throw LibvirtError.last(name) }
        }
    }

    /// Processor, memory, disk and network statistics under libvirt's names (`cpu.time`, `block.0.rd.bytes`, …).
    package func statistics(_ uuid: String) async throws -> [String: DomainStatistic] {
        try await withDomain(uuid, "virDomainListGetStats") { domain in
            var records: UnsafeMutablePointer<virDomainStatsRecordPtr?>?
            var list: [OpaquePointer?] = [domain, nil]
            let count = virDomainListGetStats(&list, 0, &records, 0)
            guard count >= 0, let records else { throw LibvirtError.last("virDomainListGetStats") }
            defer { virDomainStatsRecordListFree(records) }
            guard count > 0, let record = records[0]?.pointee else { return [:] }
            return Hypervisor.figures(record.params, count: Int(record.nparams))
        }
    }

    static func figures(_ parameters: UnsafeMutablePointer<virTypedParameter>, count: Int) -> [String: DomainStatistic] {
        var figures: [String: DomainStatistic] = [:]
        for index in 0..<count {
            let parameter = parameters[index]
            let name = withUnsafeBytes(of: parameter.field) { raw in
                String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
            }
            figures[name] = Hypervisor.value(parameter)
        }
        return figures
    }

    private static func value(_ parameter: virTypedParameter) -> DomainStatistic? {
        switch UInt32(bitPattern: parameter.type) {
        case VIR_TYPED_PARAM_INT.rawValue: .integer(Int64(parameter.value.i))
        case VIR_TYPED_PARAM_UINT.rawValue: .integer(Int64(parameter.value.ui))
        case VIR_TYPED_PARAM_LLONG.rawValue: .integer(parameter.value.l)
        case VIR_TYPED_PARAM_ULLONG.rawValue: .integer(Int64(clamping: parameter.value.ul))
        case VIR_TYPED_PARAM_DOUBLE.rawValue: .number(parameter.value.d)
        case VIR_TYPED_PARAM_BOOLEAN.rawValue: .flag(parameter.value.b != 0)
        case VIR_TYPED_PARAM_STRING.rawValue: parameter.value.s.map { .text(String(cString: $0)) }
        default: nil
        }
    }
}
