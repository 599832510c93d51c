/// Columns of text, each as wide as its widest cell.
enum TableText {
    static func list(_ headings: [String], _ rows: [[String]]) -> String {
        let cells = rows.map { row in row.map(lines) }
        let widths = headings.indices.map { column in
            max(width(headings[column]), cells.lazy.flatMap { $0[column] }.map(width).max() ?? 0)
        }
        var text = line(headings.map { $0.uppercased() }, widths)
        for row in cells {
            for number in 0..<(row.map(\.count).max() ?? 1) {
                text += line(row.map { number < $0.count ? $0[number] : "" }, widths)
            }
        }
        return text
    }

    /// Text from users must not control the terminal: control characters are made visible.
    private static func lines(_ cell: String) -> [String] {
        cell.split(separator: "\n", omittingEmptySubsequences: false).map { line in
            guard line.unicodeScalars.contains(where: { $0.value < 32 || (127...159).contains($0.value) }) else { return String(line) }
            return String(
                String.UnicodeScalarView(line.unicodeScalars.map { $0.value < 32 || (127...159).contains($0.value) ? "\u{fffd}" : $0 }))
        }
    }

    private static func line(_ cells: [String], _ widths: [Int]) -> String {
        var text = ""
        for (cell, width) in zip(cells, widths) {
            text += cell + String(repeating: " ", count: width - self.width(cell) + 2)
        }
        while text.last == " " { text.removeLast() }
        return text + "\n"
    }

    /// Number of columns on the terminal: wide East Asian characters and emoji take two.
    static func width(_ text: some StringProtocol) -> Int {
        if text.utf8.allSatisfy({ $0 < 128 }) { return text.utf8.count }
        return text.reduce(0) { total, character in
            guard let scalar = character.unicodeScalars.first else { return total }
            switch scalar.value {
            case 0x1100...0x115f, 0x2e80...0xa4cf, 0xac00...0xd7a3, 0xf900...0xfaff, 0xfe30...0xfe4f, 0xff00...0xff60,
                0xffe0...0xffe6, 0x1f300...0x1faff, 0x20000...0x3fffd:
                return total + 2
            default: return total + 1
            }
        }
    }
}
