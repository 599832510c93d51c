import CLinux

/// The system calls that a sandboxed tool may not make, as a classic BPF program for seccomp (`seccomp(2)`).
///
/// A tool that reads disk images needs files, memory and threads. System calls that open sockets, create namespaces, change
/// mounts, access other processes, or reach rarely used parts of the kernel fail with EPERM.
enum SystemCallFilter {
    /// The program in the machine's byte order; nil for unsupported processors.
    static var program: [UInt8]? {
        clinux_seccomp_architecture == 0 ? nil : instructions.flatMap { $0.bytes }
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
        /// Skips the next instruction if the value differs.
        static func equals(_ value: UInt32) -> Instruction { Instruction(code: 0x15, whenFalse: 1, value: value) }
        static func isBelow(_ value: UInt32) -> Instruction { Instruction(code: 0x35, whenFalse: 1, value: value) }
        static func hasAny(_ bits: UInt32) -> Instruction { Instruction(code: 0x45, whenFalse: 1, value: bits) }
        static func end(_ action: UInt32) -> Instruction { Instruction(code: 0x06, value: action) }
    }

    private static let allow: UInt32 = 0x7fff_0000
    private static let kill: UInt32 = 0x8000_0000
    private static let notPermitted: UInt32 = 0x0005_0001
    private static let notImplemented: UInt32 = 0x0005_0026

    /// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
    private static let namespaceFlags: UInt32 = 0x7e02_0000

    private static var denied: [UInt32] {
        var numbers = [UInt32](repeating: 0, count: 128)
        let count = Int(clinux_denied_calls(&numbers, Int32(numbers.count)))
        precondition(count <= numbers.count)
        return Array(numbers.prefix(count))
    }

    private static var instructions: [Instruction] {
        let architecture = Instruction(code: 0x15, whenTrue: 1, value: clinux_seccomp_architecture)
        var list: [Instruction] = [.load(4), architecture, .end(kill), .load(0)]
        // On x86, x32 system calls have their own numbers from here on.
        list += [.isBelow(0x4000_0000), .end(kill)]
        for number in denied { list += [.equals(number), .end(notPermitted)] }
        // Its flags are in memory, which a filter cannot read; the C library falls back to `clone`.
        list += [.equals(clinux_clone3_number), .end(notImplemented)]
        list += [
            Instruction(code: 0x15, whenFalse: 3, value: clinux_clone_number), .load(16), .hasAny(namespaceFlags),
            .end(notPermitted),
        ]
        return list + [.end(allow)]
    }
}
