import Glibc

/// The parents and children of processes, from /proc.
enum ProcessTree {
    static func childrenByParent() -> [Int32: [Int32]] {
        guard let directory = opendir("/proc") else { return [:] }
        defer { closedir(directory) }
        var children: [Int32: [Int32]] = [:]
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard let pid = Int32(name), let text = Machine.readText("/proc/\(pid)/stat"), let close = text.lastIndex(of: ")")
            else { continue }
            let fields = text[text.index(after: close)...].split(separator: " ")
            guard fields.count > 1, let parent = Int32(fields[1]) else { continue }
            children[parent, default: []].append(pid)
        }
        return children
    }

    /// The process and all its descendants.
    static func family(_ pid: Int32, _ children: [Int32: [Int32]]) -> [Int32] {
        [pid] + (children[pid] ?? []).flatMap { family($0, children) }
    }
}
