import Foundation
import Kernel

/// The web pages of consoles: noVNC and xterm.js from the machine's directories, and the page around the terminal.
///
/// All files are read once at the start, so that no request's text becomes a path.
package struct ConsolePages: Sendable {
    private let novnc: String
    private let xterm: String

    /// - Parameters:
    ///   - novnc: directory of noVNC, with `vnc_lite.html`.
    ///   - xterm: directory of xterm.js 3, with `lib/public/Terminal.js`.
    package init(novnc: String, xterm: String) {
        self.novnc = novnc
        self.xterm = xterm
    }

    /// Files of a page, by type.
    private static let types = [
        "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
        "json": "application/json", "svg": "image/svg+xml", "png": "image/png", "ico": "image/x-icon", "woff": "font/woff",
        "ttf": "font/ttf", "mp3": "audio/mpeg", "oga": "audio/ogg",
    ]
    private static let fileBytesMax = 4 << 20
    private static let bytesMax = 16 << 20

    /// Reads the files. A directory that cannot be read makes only its own pages unavailable.
    func load() async throws -> LoadedPages {
        let threads = WorkerThreads(name: "pages", count: 1)
        defer { threads.close() }
        return try await threads.run {
            var pages = LoadedPages()
            do {
                for (path, bytes) in try ConsolePages.files(novnc) {
                    guard let type = ConsolePages.types[(path as NSString).pathExtension] else { continue }
                    pages.files["/" + path] = .init(type: type, bytes: bytes)
                }
                if pages.files["/vnc_lite.html"] == nil { pages.problems.append("there is no vnc_lite.html in \(novnc)") }
            } catch { pages.problems.append("noVNC: \(error)") }
            do {
                let files = try ConsolePages.files(xterm)
                pages.files["/xterm.js"] = .init(type: ConsolePages.types["js"] ?? "", bytes: try ConsolePages.terminal(files, xterm))
                let style = files.first { $0.path.hasSuffix("xterm.css") }
                pages.files["/xterm.css"] = .init(type: ConsolePages.types["css"] ?? "", bytes: style?.bytes ?? [])
                pages.files[LoadedPages.serialPage] = .init(
                    type: ConsolePages.types["html"] ?? "", bytes: Array(SerialPage.document.utf8))
                pages.files["/serial.js"] = .init(type: ConsolePages.types["js"] ?? "", bytes: Array(SerialPage.script.utf8))
            } catch { pages.problems.append("xterm.js: \(error)") }
            return pages
        }
    }

    private static func files(_ directory: String) throws -> [(path: String, bytes: [UInt8])] {
        guard let names = FileManager.default.enumerator(atPath: directory) else {
            throw ResourceError.notFound("\(directory) cannot be read")
        }
        var files: [(path: String, bytes: [UInt8])] = []
        var total = 0
        for case let name as String in names where names.fileAttributes?[.type] as? FileAttributeType == .typeRegular {
            guard let size = names.fileAttributes?[.size] as? Int, size <= fileBytesMax, total + size <= bytesMax else { continue }
            total += size
            files.append((name, Array(try Data(contentsOf: URL(fileURLWithPath: directory + "/" + name)))))
        }
        return files.sorted { $0.path < $1.path }
    }

    /// xterm.js as one script. Debian's package has it as CommonJS modules, which browsers cannot load.
    private static func terminal(_ files: [(path: String, bytes: [UInt8])], _ directory: String) throws -> [UInt8] {
        var script = "(function () {\nconst modules = {};\n"
        var found = false
        for (path, bytes) in files where path.hasPrefix("lib/") && path.hasSuffix(".js") {
            guard !path.hasSuffix(".test.js"), !path.hasPrefix("lib/addons/") else { continue }
            found = found || path == "lib/public/Terminal.js"
            script += "modules[\"\(path)\"] = function (module, exports, require) {\n\(String(decoding: bytes, as: UTF8.self))\n};\n"
        }
        guard found else { throw ResourceError.notFound("there is no lib/public/Terminal.js in \(directory)") }
        return Array((script + SerialPage.loader).utf8)
    }
}

/// The pages in memory.
struct LoadedPages: Sendable {
    struct Page: Sendable {
        let type: String
        let bytes: [UInt8]
    }

    /// The page of a serial port is at the root, so that its URL is the WebSocket's too.
    static let serialPage = "/"

    var files: [String: Page] = [:]
    /// Reasons why pages are unavailable.
    var problems: [String] = []
}

/// The page around the terminal of a serial port.
enum SerialPage {
    static let document = """
        <!DOCTYPE html>
        <html lang="en">
        <head>
        <meta charset="utf-8"><title>Serial console</title>
        <link rel="stylesheet" href="xterm.css">
        <style>body { margin: 0; background: #000; color: #ccc; font-family: sans-serif } #state { padding: 4px 8px }</style>
        </head>
        <body><div id="state">Connecting</div><div id="terminal"></div>
        <script src="xterm.js"></script><script src="serial.js"></script></body>
        </html>

        """

    static let script = """
        "use strict";
        (function () {
            const state = document.getElementById("state");
            const terminal = new Terminal({ cols: 100, rows: 40, scrollback: 5000 });
            terminal.open(document.getElementById("terminal"));
            const scheme = location.protocol === "https:" ? "wss://" : "ws://";
            const socket = new WebSocket(scheme + location.host + "/" + location.search, ["binary"]);
            const decoder = new TextDecoder();
            const encoder = new TextEncoder();
            socket.binaryType = "arraybuffer";
            socket.onopen = function () { state.textContent = "Connected"; terminal.focus(); };
            socket.onmessage = function (event) { terminal.write(decoder.decode(event.data, { stream: true })); };
            socket.onclose = function (event) { state.textContent = "Disconnected. " + event.reason; };
            terminal.on("data", function (text) {
                if (socket.readyState === WebSocket.OPEN) { socket.send(encoder.encode(text)); }
            });
            window.terminal = terminal;
        })();

        """

    /// Resolves `require` among the modules of the script.
    static let loader = """
        const loaded = {};
        function load(path) {
            if (!(path in loaded)) {
                const module = { exports: {} };
                loaded[path] = module;
                modules[path](module, module.exports, function (name) {
                    const parts = path.split("/").slice(0, -1);
                    for (const part of name.split("/")) {
                        if (part === "..") { parts.pop(); } else if (part !== ".") { parts.push(part); }
                    }
                    const found = parts.join("/");
                    return load(found + ".js" in modules ? found + ".js" : found);
                });
            }
            return loaded[path].exports;
        }
        window.Terminal = load("lib/public/Terminal.js").Terminal;
        })();

        """
}
