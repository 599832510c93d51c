import JSON

/// Finds disks that a command line of QEMU or one of its tools opens without an explicit format.
///
/// QEMU guesses the format of such a disk from its content. A guest can write a header into its raw disk that names another file of the
/// host as its backing file or data file (CVE-2026-24708, CVE-2015-7548).
package enum DiskArguments {
    /// The programs that are checked.
    package static let programs: Set<String> = ["qemu-img", "qemu-nbd", "qemu-io", "qemu-storage-daemon", "qemu-system-x86_64"]

    private static let formats: Set<String> = ["raw", "qcow2", "vmdk", "vdi", "vpc"]
    private static let protocols: Set<String> = ["file", "host_device", "nbd"]

    /// The name of the program that a command line starts, without its directory.
    package static func program(of arguments: [String]) -> String {
        String((arguments.first ?? "").split(separator: "/").last ?? "")
    }

    /// One sentence for each disk without a format. Options that are not known here count as problems, so that new ones are examined.
    package static func problems(_ arguments: [String]) -> [String] {
        switch program(of: arguments) {
        case "qemu-img": imageTool(Array(arguments.dropFirst()))
        case "qemu-nbd", "qemu-io": simpleTool(Array(arguments.dropFirst()))
        case "qemu-system-x86_64", "qemu-storage-daemon": emulator(Array(arguments.dropFirst()))
        default: []
        }
    }

    // MARK: qemu-img

    private static let flags: Set<String> = ["-q", "-n", "-u", "-p", "-U", "--target-is-zero", "--shrink"]
    private static let commandsWithSize: Set<String> = ["create", "resize"]

    private static func imageTool(_ arguments: [String]) -> [String] {
        guard let command = arguments.first, !command.hasPrefix("-") else {
            return arguments.first == "--version" ? [] : ["qemu-img has no command: \(arguments)"]
        }
        var (found, names, values) = ([String](), [String](), [String: String]())
        var (hasImageOptions, hasTargetOptions, isUnsafe) = (false, false, false)
        var index = 1
        while index < arguments.count {
            let word = arguments[index]
            switch word {
            case "--image-opts": hasImageOptions = true
            case "--target-image-opts": hasTargetOptions = true
            case "-f", "-F", "-O", "-b":
                index += 1
                values[word] = index < arguments.count ? arguments[index] : ""
            case _ where flags.contains(word): if word == "-u" { isUnsafe = true }
            case _ where word.hasPrefix("--output="): break
            case _ where word.hasPrefix("-"): found.append("qemu-img \(command): the option \(word) is not known")
            default: names.append(word)
            }
            index += 1
        }
        if let format = values["-f"], !formats.contains(format) { found.append("qemu-img \(command): the format '\(format)'") }
        if commandsWithSize.contains(command) { names = Array(names.prefix(1)) }
        if command == "create", values["-f"] == nil { found.append("qemu-img create without a format") }
        if values["-b"] != nil, values["-F"] == nil || !isUnsafe {
            found.append("qemu-img \(command) opens a backing file to find its format")
        }
        let target = command == "convert" ? names.popLast() : nil
        for name in names where values["-f"] == nil {
            found += (hasImageOptions ? options(name) : node(of: name)).map { "qemu-img \(command): \($0)" }
        }
        if let target {
            if hasTargetOptions {
                found += options(target).map { "qemu-img convert: the target: \($0)" }
            } else if values["-O"] == nil {
                found.append("qemu-img convert without a format of the target \(target)")
            }
        }
        return found
    }

    /// `qemu-nbd` and `qemu-io`: the last argument is the disk.
    private static func simpleTool(_ arguments: [String]) -> [String] {
        if arguments == ["--version"] { return [] }
        let hasFormat = arguments.contains { $0 == "-f" || $0 == "--format" || $0.hasPrefix("--format=") }
        if hasFormat { return [] }
        guard let name = arguments.last else { return [] }
        return arguments.contains("--image-opts") ? options(name) : node(of: name)
    }

    /// `driver=…,file.filename=…`
    private static func options(_ text: String) -> [String] {
        let names = text.split(separator: ",").map { $0.split(separator: "=", maxSplits: 1).map(String.init) }
        let driver = names.first { $0.first == "driver" }?.last
        return driver.map(formats.contains) == true ? [] : ["\(text) has no format"]
    }

    /// `json:{…}`
    private static func node(of name: String) -> [String] {
        guard name.hasPrefix("json:"), let value = try? JSONValue.parse(Array(name.dropFirst(5).utf8)) else {
            return ["\(name) has no format"]
        }
        return node(value)
    }

    private static func node(_ value: JSONValue) -> [String] {
        guard let driver = value["driver"]?.stringValue, formats.contains(driver) else { return ["\(value) has no format"] }
        var found: [String] = []
        let file = value["file"]
        if file?.stringValue == nil, file?["driver"]?.stringValue.map(protocols.contains) != true {
            found.append("\(value): its file has no driver")
        }
        // Without this member the backing file that the disk names is opened.
        guard driver != "raw" else { return found }
        switch value["backing"] {
        case nil: found.append("\(value): its backing file is the one that the disk names")
        case .null?, .string?: break
        case let below?: found += node(below)
        }
        return found
    }

    // MARK: QEMU

    /// Options that open a disk of which QEMU guesses the format.
    private static let guessing: Set<String> = [
        "-hda", "-hdb", "-hdc", "-hdd", "-cdrom", "-fda", "-fdb", "-mtdblock", "-pflash", "-sd",
    ]

    private static func emulator(_ arguments: [String]) -> [String] {
        var found: [String] = []
        var nodes: [String: JSONValue] = [:]
        var used: [String] = []
        for (option, value) in zip(arguments, arguments.dropFirst() + [""]) {
            let name = option.hasPrefix("--") ? String(option.dropFirst()) : option
            if guessing.contains(name) { found.append("\(option) \(value) has no format") }
            if name == "-drive" { found += drive(value) }
            if name == "-blockdev" {
                guard let parsed = try? JSONValue.parse(Array(value.utf8)), let id = parsed["node-name"]?.stringValue else {
                    found.append("-blockdev \(value) cannot be read")
                    continue
                }
                nodes[id] = parsed
            }
            if name == "-device" { used += [medium(value)].compactMap(\.self) }
        }
        for (name, value) in nodes.sorted(by: { $0.key < $1.key }) {
            guard let driver = value["driver"]?.stringValue else {
                found.append("the node \(name) has no driver")
                continue
            }
            if !protocols.contains(driver) { found += node(value).map { "the node \(name): \($0)" } }
        }
        for name in used {
            let driver = nodes[name]?["driver"]?.stringValue
            if driver.map(formats.contains) != true { found.append("a device uses the node \(name), which has no format") }
        }
        return found
    }

    private static func drive(_ value: String) -> [String] {
        let names = value.split(separator: ",").map { String($0.prefix { $0 != "=" }) }
        let opens = names.contains("file") || names.contains("filename") || names.contains("file.filename")
        return !opens || names.contains("format") || names.contains("driver") ? [] : ["-drive \(value) has no format"]
    }

    /// The node that a device uses as its disk.
    private static func medium(_ value: String) -> String? {
        if value.hasPrefix("{") { return (try? JSONValue.parse(Array(value.utf8)))?["drive"]?.stringValue }
        return value.split(separator: ",").first { $0.hasPrefix("drive=") }.map { String($0.dropFirst(6)) }
    }

    // MARK: libvirt's log

    /// The command lines in libvirt's log of a domain, which has an option with its value on each line.
    package static func commandLines(inLog text: String) -> [[String]] {
        var found: [[String]] = []
        var current: [String]?
        for line in text.split(separator: "\n") {
            let goesOn = line.hasSuffix(" \\")
            let words = goesOn ? String(line.dropLast(2)) : String(line)
            if current == nil, words.contains("/qemu-system-"), !words.contains(" ") {
                current = [words]
            } else if current != nil {
                let parts = words.split(separator: " ", maxSplits: 1).map(String.init)
                current?.append(parts.first ?? "")
                if parts.count > 1 { current?.append(unquoted(parts[1])) }
            }
            if !goesOn, let whole = current {
                found.append(whole)
                current = nil
            }
        }
        return found
    }

    private static func unquoted(_ text: String) -> String {
        guard text.count >= 2, text.hasPrefix("'"), text.hasSuffix("'") else { return text }
        return String(text.dropFirst().dropLast()).replacing(#"'\''"#, with: "'")
    }
}
