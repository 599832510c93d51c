/// The container around the disk in an image's data, as in OpenStack's `container_format`.
package enum ContainerFormats {
    /// Formats whose data is the disk itself, which is inspected at upload. The others (`ova`, `docker`, `compressed`) contain
    /// disks: they are stored and returned, but never opened as a disk.
    package static let bareDisks: Set<String> = ["aki", "ami", "ari", "bare", "ovf"]
}
