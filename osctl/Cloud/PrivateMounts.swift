import ArgumentParser
import Glibc

/// Runs a program in a private mount namespace in which some directories are replaced by others.
struct PrivateMounts: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "private-mounts", abstract: "Run a program with private directories mounted over fixed ones.",
        shouldDisplay: false)

    @Option(help: "SOURCE:TARGET: the program sees SOURCE at TARGET.")
    var bind: [String] = []

    @Option(help: "DIRECTORY: other users can access it from the program, even if one of its parents is not accessible to them.")
    var opening: String?

    @Option(help: "DIRECTORY: an empty directory for the device nodes of guests; with it, members of the group kvm can use /dev/kvm.")
    var devices: String?

    @Option(help: "The host name that the program sees.")
    var hostName: String?

    @Argument(parsing: .postTerminator, help: "The program (absolute path) and its arguments.")
    var command: [String]

    /// The arguments to start the program: a new mount namespace, the mounts, the program.
    static func command(
        program: String, mounts: [(source: String, target: String)], hostName: String? = nil, opening: String? = nil,
        devices: String? = nil, _ arguments: [String]
    ) -> [String] {
        var command = ["/usr/bin/unshare", "--mount", "--propagation", "private"]
        if hostName != nil { command.append("--uts") }
        command += [program, "cloud", "private-mounts"]
        if let hostName { command += ["--host-name", hostName] }
        if let opening { command += ["--opening", opening] }
        if let devices { command += ["--devices", devices] }
        for mount in mounts { command += ["--bind", "\(mount.source):\(mount.target)"] }
        return command + ["--"] + arguments
    }

    private static func namespace(_ process: String) -> String? {
        var buffer = [CChar](repeating: 0, count: 256)
        let count = readlink("/proc/\(process)/ns/mnt", &buffer, buffer.count)
        guard count > 0 else { return nil }
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Mounts an empty file system, which everyone can traverse, over the first parent of `directory` that other users cannot
    /// traverse. It only contains the path to `directory`.
    private static func open(_ directory: String) throws {
        guard let closed = Machine.closedParent(of: directory) else { return }
        let descriptor = Glibc.open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Machine.failure("open", directory) }
        defer { close(descriptor) }
        guard mount("tmpfs", closed, "tmpfs", UInt(MS_NOSUID | MS_NODEV), "mode=0711,size=64k") == 0 else {
            throw Machine.failure("mount an empty file system on", closed)
        }
        try Machine.makeDirectory(directory)
        guard mount("/proc/self/fd/\(descriptor)", directory, nil, UInt(MS_BIND | MS_REC), nil) == 0 else {
            throw Machine.failure("mount on", directory)
        }
    }

    /// If udev has not given `/dev/kvm` to the group kvm, a node of the same device replaces it. Otherwise libvirtd, which may
    /// use the original, would query the capabilities of a QEMU that may not, again and again.
    private static func shareKVM(_ directory: String) throws {
        let node = "/dev/kvm"
        var information = stat()
        guard stat(node, &information) == 0, let group = getgrnam("kvm")?.pointee.gr_gid else { return }
        let isShared = information.st_gid == group && information.st_mode & 0o060 == 0o060
        guard !isShared, information.st_mode & 0o006 != 0o006 else { return }
        try Machine.makeDirectory(directory)
        guard mount("tmpfs", directory, "tmpfs", UInt(MS_NOSUID), "mode=0711,size=64k") == 0 else {
            throw Machine.failure("mount an empty file system on", directory)
        }
        let copy = directory + "/kvm"
        guard mknod(copy, S_IFCHR | 0o660, information.st_rdev) == 0, chown(copy, 0, group) == 0, chmod(copy, 0o660) == 0 else {
            throw Machine.failure("make the device node", copy)
        }
        guard mount(copy, node, nil, UInt(MS_BIND), nil) == 0 else { throw Machine.failure("mount \(copy) on", node) }
    }

    func run() throws {
        guard let program = command.first else { throw CloudError("no program given") }
        // The mounts must not propagate to the machine.
        guard let own = PrivateMounts.namespace("self"), own != PrivateMounts.namespace("1") else {
            throw CloudError("private-mounts must run in a mount namespace of its own (unshare --mount --propagation private)")
        }
        if let hostName { try Machine.write(descriptorOf: "/proc/sys/kernel/hostname", hostName) }
        // Mounted first, because bound directories may be inside it.
        if let opening { try PrivateMounts.open(opening) }
        if let devices { try PrivateMounts.shareKVM(devices) }
        for pair in bind {
            guard let colon = pair.firstIndex(of: ":") else { throw CloudError("--bind wants SOURCE:TARGET, not \(pair)") }
            let source = String(pair[..<colon])
            let target = String(pair[pair.index(after: colon)...])
            if !Machine.exists(target) { try Machine.makeDirectory(target) }
            guard mount(source, target, nil, UInt(MS_BIND), nil) == 0 else { throw Machine.failure("mount \(source) on", target) }
        }
        // This thread may block signals; the program must not inherit that.
        var none = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, nil)
        var argv: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        execv(program, &argv)
        throw Machine.failure("run", program)
    }
}
