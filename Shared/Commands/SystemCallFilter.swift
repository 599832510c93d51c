/// The system calls that a sandboxed tool may not make, as a classic BPF program for seccomp (`seccomp(2)`).
///
/// A tool that reads disk images needs files, memory and threads. What opens sockets, makes namespaces, changes mounts,
/// looks into other processes, or reaches rarely used parts of the kernel fails with EPERM.
enum SystemCallFilter {
    /// The program in the machine's byte order; nil on architectures without a list.
    static var program: [UInt8]? {
        #if arch(x86_64)
            return instructions.flatMap { $0.bytes }
        #else
            return nil
        #endif
    }

    private struct Instruction {
        let code: UInt16
        var whenTrue: UInt8 = 0
        var whenFalse: UInt8 = 0
        let value: UInt32

        var bytes: [UInt8] {
            withUnsafeBytes(of: code) { Array($0) } + [whenTrue, whenFalse] + withUnsafeBytes(of: value) { Array($0) }
        }

        static func load(_ offset: UInt32) -> Instruction { Instruction(code: 0x20, value: offset) }
        /// Skips the next instruction when the value differs.
        static func equals(_ value: UInt32) -> Instruction { Instruction(code: 0x15, whenFalse: 1, value: value) }
        static func isBelow(_ value: UInt32) -> Instruction { Instruction(code: 0x35, whenFalse: 1, value: value) }
        static func hasAny(_ bits: UInt32) -> Instruction { Instruction(code: 0x45, whenFalse: 1, value: bits) }
        static func end(_ action: UInt32) -> Instruction { Instruction(code: 0x06, value: action) }
    }

    private static let allow: UInt32 = 0x7fff_0000
    private static let kill: UInt32 = 0x8000_0000
    private static let notPermitted: UInt32 = 0x0005_0001
    private static let notImplemented: UInt32 = 0x0005_0026

    #if arch(x86_64)
        private static let architecture: UInt32 = 0xc000_003e
        private static let clone: UInt32 = 56
        private static let clone3: UInt32 = 435
        /// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
        private static let namespaceFlags: UInt32 = 0x7e02_0000
        private static let denied: [UInt32] = [
            41, 42, 43, 49, 50, 288,  // socket, connect, accept, bind, listen, accept4
            101, 310, 311, 312, 438, 434,  // ptrace, process_vm_readv, process_vm_writev, kcmp, pidfd_getfd, pidfd_open
            155, 161, 165, 166, 272, 308,  // pivot_root, chroot, mount, umount2, unshare, setns
            428, 429, 430, 431, 432, 433, 442,  // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr
            248, 249, 250, 298, 321, 323,  // add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd
            425, 426, 427,  // io_uring_setup, io_uring_enter, io_uring_register
            303, 304, 175, 176, 313, 246, 320,  // *_handle_at, *_module, kexec_*
            103, 135, 153, 154, 163, 164, 167, 168, 169,  // syslog, personality, vhangup, modify_ldt, acct, settimeofday, swap*, reboot
            170, 171, 172, 173, 179, 212, 227, 279,  // set*name, iopl, ioperm, quotactl, lookup_dcookie, clock_settime, move_pages
        ]

        private static var instructions: [Instruction] {
            var list: [Instruction] = [.load(4), Instruction(code: 0x15, whenTrue: 1, value: architecture), .end(kill), .load(0)]
            // The x32 calls have numbers of their own.
            list += [.isBelow(0x4000_0000), .end(kill)]
            for number in denied { list += [.equals(number), .end(notPermitted)] }
            // Its flags are in memory, where a filter cannot look; the C library then takes `clone`.
            list += [.equals(clone3), .end(notImplemented)]
            list += [Instruction(code: 0x15, whenFalse: 3, value: clone), .load(16), .hasAny(namespaceFlags), .end(notPermitted)]
            return list + [.end(allow)]
        }
    #endif
}
