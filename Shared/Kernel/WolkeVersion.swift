/// The release of this build. Every executable says it with `--version`, every process on its operators' port (`/version`)
/// and in its registration in the database.
package enum WolkeVersion {
    /// A release's number (`0.2.0`), or the next one's with `-dev` between releases. docs/operate.md says how it changes.
    package static let current = "0.2.0-dev"
}
