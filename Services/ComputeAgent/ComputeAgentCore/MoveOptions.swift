/// The host's settings for guests that move to and from other hosts while they run.
package struct MoveOptions: Sendable, Hashable {
    /// libvirt's connection URI of this host, as other hosts reach it.
    package var uri = ""
    /// Name or address of this host for the memory of guests; nil for libvirt's choice.
    package var address: String?
    /// Connections that carry the memory of one guest.
    package var connections = 1
    package var encrypts = false
    /// Whether to slow down a guest that changes its memory faster than it can be sent.
    package var slowsDown = true
    package var allowsPostCopy = false
    /// The number of guests that may leave this host at the same time.
    package var parallel = 1

    package init() {}
}
