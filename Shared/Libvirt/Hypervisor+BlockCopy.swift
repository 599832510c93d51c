import CLibvirt

extension Hypervisor {
    /// Begins to copy a disk of the running domain to an existing one; does not wait. QEMU ends the copy at once if the sizes differ. When
    /// the copy is complete, the guest's writes go to both disks before they are confirmed to the guest.
    ///
    /// - Parameters:
    ///   - disk: the target (`vdb`).
    ///   - xml: the disk element of the copy.
    package func beginBlockCopy(_ uuid: String, disk: String, xml: String) async throws {
        try await withDomain(uuid, "virDomainBlockCopy") { domain in
            // Without `TRANSIENT_JOB` libvirt refuses domains that stay defined. A guest that ends takes the copy with it.
            let flags =
                VIR_DOMAIN_BLOCK_COPY_REUSE_EXT.rawValue | VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB.rawValue
                | VIR_DOMAIN_BLOCK_COPY_SYNCHRONOUS_WRITES.rawValue
            if virDomainBlockCopy(domain, disk, xml, nil, 0, flags) < 0 { throw LibvirtError.last("virDomainBlockCopy") }
        }
    }

    /// How far the copy is; nil if there is none.
    package func blockCopyState(_ uuid: String, disk: String) async throws -> DomainBlockCopyState? {
        try await withDomain(uuid, "virDomainGetBlockJobInfo") { domain in
            var info = virDomainBlockJobInfo()
            switch virDomainGetBlockJobInfo(domain, disk, &info, 0) {
            case 0: return nil
            case 1...: return DomainBlockCopyState(done: Int(clamping: info.cur), total: Int(clamping: info.end))
            default: throw LibvirtError.last("virDomainGetBlockJobInfo")
            }
        }
    }

    /// Ends the copy and waits for its end. Cancelling succeeds if there is none.
    ///
    /// - Parameter pivots: whether the guest uses the copy from then on.
    package func endBlockCopy(_ uuid: String, disk: String, pivots: Bool) async throws {
        try await withDomain(uuid, "virDomainBlockJobAbort") { domain in
            var info = virDomainBlockJobInfo()
            if !pivots, virDomainGetBlockJobInfo(domain, disk, &info, 0) == 0 { return }
            if virDomainBlockJobAbort(domain, disk, pivots ? VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT.rawValue : 0) < 0 {
                throw LibvirtError.last("virDomainBlockJobAbort")
            }
        }
    }

    /// The size of a running guest's disk in bytes.
    package func diskSize(_ uuid: String, disk: String) async throws -> Int {
        try await withDomain(uuid, "virDomainGetBlockInfo") { domain in
            var info = virDomainBlockInfo()
            if virDomainGetBlockInfo(domain, disk, &info, 0) < 0 { throw LibvirtError.last("virDomainGetBlockInfo") }
            return Int(clamping: info.capacity)
        }
    }

    /// Gives a disk of the running guest a size, and tells the guest.
    package func resizeDisk(_ uuid: String, disk: String, bytes: Int) async throws {
        try await withDomain(uuid, "virDomainBlockResize") { domain in
            if virDomainBlockResize(domain, disk, UInt64(bytes), VIR_DOMAIN_BLOCK_RESIZE_BYTES.rawValue) < 0 {
                throw LibvirtError.last("virDomainBlockResize")
            }
        }
    }
}

/// How far the copy of a disk is, in bytes.
package struct DomainBlockCopyState: Sendable, Hashable {
    package let done: Int
    package let total: Int

    package init(done: Int, total: Int) {
        self.done = done
        self.total = total
    }
}
