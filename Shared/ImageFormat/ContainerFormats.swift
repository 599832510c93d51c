/// What is around the disk in an image's data, as OpenStack names it in `container_format`.
package enum ContainerFormats {
    /// Formats whose data is the disk itself, which is inspected when it comes. The others (`ova`, `docker`, `compressed`)
    /// are packages of disks: data that is kept and given back, and that nothing opens as a disk.
    package static let bareDisks: Set<String> = ["aki", "ami", "ari", "bare", "ovf"]
}
