package import JSON
package import Kernel
package import NIOCore

/// A place for image data. The data of an image has the same id in all its stores.
///
/// A driver keeps data under ids. Data that is being received is *held* until `IncomingData.release`, or until its process dies; data
/// that is neither held nor known to the database is removed by the cleanup task.
package protocol ImageStoreDriver: Sendable {
    /// The driver's name in OpenStack's API: `file`, `rbd`, `s3`.
    static var type: String { get }
    /// Details of the store for administrators.
    var properties: JSONValue { get }
    /// The threads for the blocking calls of `IncomingData` and `StoredData`.
    var threads: WorkerThreads { get }

    /// Starts receiving data under a new id.
    func receive(_ id: String) async throws -> any IncomingData
    /// Opens complete data.
    ///
    /// - Throws: an error that names the data if there is none.
    func open(_ id: String) async throws -> any StoredData
    /// Deletes complete data; succeeds if there is none.
    func remove(_ id: String) async throws
    /// Deletes data, complete or not, that no process holds.
    func removeLeftover(_ id: String) async throws
    /// The ids of all data, complete or not.
    func ids() async throws -> Set<String>
    /// Whether a process is receiving the data.
    func isHeld(_ id: String) async throws -> Bool
}

/// Data that arrives. Used by one caller at a time, but on any thread; all calls block.
package protocol IncomingData: AnyObject, Sendable {
    var id: String { get }
    /// MD5 in hexadecimal digits, of the data received so far.
    var checksum: String { get }
    /// SHA-512 in hexadecimal digits, of the data received so far.
    var hashValue: String { get }

    func append(_ bytes: ByteBuffer) throws
    /// Makes the data durable and complete; it stays held.
    func publish() throws
    /// Deletes the data, complete or not, and releases it.
    func discard() throws
    /// Ends the hold.
    func release()
}

/// Open data, which stays readable if the image is deleted in the meantime; calls block.
package protocol StoredData: AnyObject, Sendable {
    /// In bytes.
    var size: Int { get }
    /// Reads exactly `count` bytes from `offset`.
    func read(_ offset: Int, _ count: Int) throws -> ByteBuffer
}
