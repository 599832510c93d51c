import Commands

/// Scripts that tests write and run.
package enum TestProgram {
    /// Writes an executable script.
    ///
    /// Another program writes it, because the kernel refuses to run a file that is open for writing (ETXTBSY), and a process that
    /// another thread starts has this process's descriptors until its exec.
    ///
    /// - Parameter text: at most 64 KiB.
    /// - Throws: `CommandError`.
    package static func write(_ text: String, to path: String) throws {
        try Command(["/usr/bin/install", "-m", "755", "/dev/fd/3", path], input: Array(text.utf8)).run()
    }
}
