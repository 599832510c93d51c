import CLibvirt

/// The parameters of a live migration.
package struct DomainMove: Sendable, Hashable {
    /// libvirt's connection URI of the other host, as this host reaches it.
    package var uri: String
    /// The URI that the memory is sent to, for example `tcp://10.0.0.2`; nil for the other libvirt's choice.
    package var dataURI: String?
    /// The domain's definition on the other host.
    package var xml: String
    /// Targets (`vda`) of the disks whose top layer is transferred too. The other host must have a disk of the same size.
    package var disks: [String] = []
    /// Connections that carry the memory at the same time.
    package var connections: Int
    /// Whether the guest's processors are slowed down if it changes its memory faster than it can be sent.
    package var slowsDown: Bool
    /// Whether `beginPostCopy` may be used.
    package var allowsPostCopy: Bool
    /// Whether the memory is encrypted during the transfer.
    package var encrypts: Bool

    package init(
        uri: String, dataURI: String?, xml: String, connections: Int = 1, slowsDown: Bool = true, allowsPostCopy: Bool = false,
        encrypts: Bool = false
    ) {
        self.uri = uri
        self.dataURI = dataURI
        self.xml = xml
        self.connections = connections
        self.slowsDown = slowsDown
        self.allowsPostCopy = allowsPostCopy
        self.encrypts = encrypts
    }
}

/// The progress of a live migration, in bytes.
package struct DomainMoveState: Sendable, Hashable {
    package var memoryTotal = 0
    package var memoryProcessed = 0
    package var memoryRemaining = 0
    package var diskTotal = 0
    package var diskProcessed = 0
    package var diskRemaining = 0

    package init() {}
}

extension Hypervisor {
    /// The domain's migratable XML, for another host.
    package func movableXML(_ uuid: String) async throws -> String {
        try await withDomain(uuid, "virDomainGetXMLDesc") { domain in
            let flags = VIR_DOMAIN_XML_MIGRATABLE.rawValue | VIR_DOMAIN_XML_SECURE.rawValue
            guard let text = takeText(virDomainGetXMLDesc(domain, flags)) else { throw LibvirtError.last("virDomainGetXMLDesc") }
            return text
        }
    }

    /// Sends the running guest to another host. The transfer runs between the two libvirt daemons and continues if this process ends.
    /// Returns when the guest runs there and has left this host.
    ///
    /// Blocks one of the threads for moves; waits if all of them are in use.
    package func move(_ uuid: String, _ order: DomainMove) async throws {
        try await withDomain(uuid, "virDomainMigrateToURI3", on: movingThreads) { domain in
            var parameters = TypedParameters()
            defer { parameters.free() }
            try parameters.add(VIR_MIGRATE_PARAM_DEST_XML, order.xml)
            try parameters.add(VIR_MIGRATE_PARAM_PERSIST_XML, order.xml)
            if let uri = order.dataURI { try parameters.add(VIR_MIGRATE_PARAM_URI, uri) }
            var flags =
                VIR_MIGRATE_LIVE.rawValue | VIR_MIGRATE_PEER2PEER.rawValue | VIR_MIGRATE_PERSIST_DEST.rawValue
                | VIR_MIGRATE_UNDEFINE_SOURCE.rawValue
            // libvirt only looks at the type of the file system. The volumes are connected to both hosts by Block Storage.
            flags |= VIR_MIGRATE_UNSAFE.rawValue
            if !order.disks.isEmpty {
                flags |= VIR_MIGRATE_NON_SHARED_INC.rawValue
                for disk in order.disks { try parameters.add(VIR_MIGRATE_PARAM_MIGRATE_DISKS, disk) }
            }
            if order.connections > 1 {
                flags |= VIR_MIGRATE_PARALLEL.rawValue
                try parameters.add(VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS, Int32(clamping: order.connections))
            }
            if order.slowsDown { flags |= VIR_MIGRATE_AUTO_CONVERGE.rawValue }
            if order.allowsPostCopy { flags |= VIR_MIGRATE_POSTCOPY.rawValue }
            if order.encrypts { flags |= VIR_MIGRATE_TLS.rawValue }
            if virDomainMigrateToURI3(domain, order.uri, parameters.list, UInt32(parameters.count), flags) < 0 {
                throw LibvirtError.last("virDomainMigrateToURI3")
            }
        }
    }

    /// The progress of a migration of the guest; nil if there is none.
    package func moveState(_ uuid: String) async throws -> DomainMoveState? {
        try await withDomain(uuid, "virDomainGetJobStats") { domain in
            var type: Int32 = 0
            var parameters: UnsafeMutablePointer<virTypedParameter>?
            var count: Int32 = 0
            guard virDomainGetJobStats(domain, &type, &parameters, &count, 0) == 0 else {
                let error = LibvirtError.last("virDomainGetJobStats")
                if error.isInvalidState { return nil }
                throw error
            }
            defer { virTypedParamsFree(parameters, count) }
            let figures = parameters.map { Hypervisor.figures($0, count: Int(count)) } ?? [:]
            guard type != VIR_DOMAIN_JOB_NONE.rawValue,
                figures["operation"] == .integer(Int64(VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT.rawValue))
            else { return nil }
            func number(_ name: String) -> Int {
                guard case .integer(let value)? = figures[name] else { return 0 }
                return Int(clamping: value)
            }
            var state = DomainMoveState()
            (state.memoryTotal, state.memoryProcessed) = (number("memory_total"), number("memory_processed"))
            (state.diskTotal, state.diskProcessed) = (number("disk_total"), number("disk_processed"))
            (state.memoryRemaining, state.diskRemaining) = (number("memory_remaining"), number("disk_remaining"))
            return state
        }
    }

    /// Aborts a migration of the guest, without waiting for the end. Succeeds if there is none.
    package func abortMove(_ uuid: String) async throws {
        guard try await moveState(uuid) != nil else { return }
        try await withDomain(uuid, "virDomainAbortJob") { domain in
            if virDomainAbortJob(domain) < 0 {
                let error = LibvirtError.last("virDomainAbortJob")
                if !error.isInvalidState { throw error }
            }
        }
    }

    /// Switches to post-copy: the guest runs on the other host before all of its memory has arrived.
    package func beginPostCopy(_ uuid: String) async throws {
        try await withDomain(uuid, "virDomainMigrateStartPostCopy") { domain in
            if virDomainMigrateStartPostCopy(domain, 0) < 0 { throw LibvirtError.last("virDomainMigrateStartPostCopy") }
        }
    }
}

/// libvirt's list of named values, as parameters of a call.
private struct TypedParameters {
    private(set) var list: UnsafeMutablePointer<virTypedParameter>?
    private(set) var count: Int32 = 0
    private var capacity: Int32 = 0

    mutating func add(_ name: String, _ value: String) throws {
        if virTypedParamsAddString(&list, &count, &capacity, name, value) < 0 { throw LibvirtError.last("virTypedParamsAddString") }
    }

    mutating func add(_ name: String, _ value: Int32) throws {
        if virTypedParamsAddInt(&list, &count, &capacity, name, value) < 0 { throw LibvirtError.last("virTypedParamsAddInt") }
    }

    mutating func free() {
        virTypedParamsFree(list, count)
        (list, count, capacity) = (nil, 0, 0)
    }
}
