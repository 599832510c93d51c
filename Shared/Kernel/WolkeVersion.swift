/// The release of this build. Every executable prints it with `--version`; every process shows it on its operators' port
/// (`/version`) and in its registration in the database.
package enum WolkeVersion {
    /// The number of a release (`0.2.0`), or of the next one with `-dev` between releases. docs/operate.md describes upgrades.
    package static let current = "0.2.0-dev"
}
