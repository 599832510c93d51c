/// The version that every executable says with `--version`.
package enum WolkeVersion {
    package static let current = "0.1.0"
}
