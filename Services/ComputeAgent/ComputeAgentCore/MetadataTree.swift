import Contracts
import JSON
import Kernel

/// The metadata service's answer for one path.
package struct MetadataResponse: Sendable, Hashable {
    package let status: Int
    package let contentType: String
    package let body: [UInt8]

    package static func text(_ text: String) -> MetadataResponse {
        MetadataResponse(status: 200, contentType: "text/plain; charset=utf-8", body: Array(text.utf8))
    }
    static func json(_ value: JSONValue) -> MetadataResponse {
        MetadataResponse(status: 200, contentType: "application/json", body: value.encoded)
    }
    static let notFound = MetadataResponse(
        status: 404, contentType: "text/plain; charset=utf-8", body: Array("404 Not Found\n".utf8))
    /// - Parameter text: a line for the guest.
    package static func refused(_ status: Int, _ text: String) -> MetadataResponse {
        MetadataResponse(status: status, contentType: "text/plain; charset=utf-8", body: Array("\(text)\n".utf8))
    }
    static let methodNotAllowed = MetadataResponse(
        status: 405, contentType: "text/plain; charset=utf-8", body: Array("405 Method Not Allowed\n".utf8))
}

/// The metadata documents at 169.254.169.254, in OpenStack and EC2 format; also the content of the config drive.
package struct MetadataTree: Sendable {
    package let server: DesiredServer

    package init(_ server: DesiredServer) { self.server = server }

    /// Versions of the OpenStack form, oldest first, with what each of them added.
    private static let openStackVersions = [
        "2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22",
        "2018-08-27", "2020-10-14", "latest",
    ]
    private static let ec2Versions = [
        "1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01",
        "2009-04-04", "latest",
    ]

    /// Answers one request.
    package func response(method: String, path: String) -> MetadataResponse {
        guard method == "GET" || method == "HEAD" else { return .methodNotAllowed }
        let bare = path.prefix { $0 != "?" && $0 != "#" }
        let parts = bare.split(separator: "/").map(String.init)
        guard let first = parts.first else { return .text(MetadataTree.ec2Versions.joined(separator: "\n")) }
        if first == "openstack" { return openStack(Array(parts.dropFirst())) }
        guard MetadataTree.ec2Versions.contains(first) else { return .notFound }
        return ec2(Array(parts.dropFirst()), isListing: bare.hasSuffix("/"))
    }

    // MARK: OpenStack

    private func openStack(_ parts: [String]) -> MetadataResponse {
        guard let version = parts.first else { return .text(MetadataTree.openStackVersions.joined(separator: "\n")) }
        if version == MetadataTree.contentDirectory { return content(Array(parts.dropFirst())) }
        guard let place = MetadataTree.openStackVersions.firstIndex(of: version) else { return .notFound }
        let names = files(since: place)
        if parts.count == 1 { return .text(names.joined(separator: "\n")) }
        guard parts.count == 2, names.contains(parts[1]) else { return .notFound }
        switch parts[1] {
        case "meta_data.json": return .json(.object(metadata))
        case "network_data.json": return .json(.object(networkData))
        case "user_data":
            return MetadataResponse(
                status: 200, contentType: "application/octet-stream", body: server.userData ?? [])
        case "vendor_data.json", "vendor_data2.json": return .json([:])
        case "password": return .text(server.guestPassword ?? "")
        default: return .notFound
        }
    }

    // MARK: the password

    /// A guest's attempt to post its password.
    package enum PasswordPost: Sendable, Hashable {
        case accepted(String)
        case refused(MetadataResponse)
    }

    /// Reads `POST /openstack/VERSION/password`; nil for any other request. A password can be set once, until its owner clears it
    /// over the API.
    package func passwordPost(method: String, path: String, body: [UInt8]) -> PasswordPost? {
        let parts = path.prefix { $0 != "?" && $0 != "#" }.split(separator: "/").map(String.init)
        guard method == "POST", parts.count == 3, parts[0] == "openstack", parts[2] == "password",
            let place = MetadataTree.openStackVersions.firstIndex(of: parts[1]), files(since: place).contains("password")
        else { return nil }
        guard (server.guestPassword ?? "").isEmpty else { return .refused(.refused(409, "409 Conflict: the password is set already")) }
        guard body.count <= GuestPassword.bytesMax else {
            return .refused(.refused(400, "400 Bad Request: a password has at most \(GuestPassword.bytesMax) bytes, not \(body.count)"))
        }
        guard let text = String(validating: body, as: UTF8.self), !text.isEmpty, !text.utf8.contains(0) else {
            return .refused(.refused(400, "400 Bad Request: a password is a text in UTF-8, and not empty"))
        }
        return .accepted(text)
    }

    // MARK: files that the server was given

    /// The directory of the contents of injected files, next to the versions.
    private static let contentDirectory = "content"

    private static func contentName(_ index: Int) -> String {
        let digits = String(index)
        return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
    }

    private func content(_ parts: [String]) -> MetadataResponse {
        guard parts.count == 1, let index = Int(parts[0]), server.files.indices.contains(index),
            parts[0] == MetadataTree.contentName(index)
        else { return .notFound }
        return MetadataResponse(status: 200, contentType: "application/octet-stream", body: server.files[index].contents)
    }

    private func files(since place: Int) -> [String] {
        func from(_ version: String) -> Bool {
            place >= (MetadataTree.openStackVersions.firstIndex(of: version) ?? 0)
        }
        var names = ["meta_data.json"]
        if server.userData != nil { names.append("user_data") }
        if from("2013-04-04") { names.append("password") }
        if from("2013-10-17") { names.append("vendor_data.json") }
        if from("2015-10-15") { names.append("network_data.json") }
        if from("2016-10-06") { names.append("vendor_data2.json") }
        return names
    }

    private var metadata: JSONObject {
        var document = server.metadata
        if document["uuid"] == nil { document["uuid"] = .string(server.id) }
        if document["hostname"] == nil { document["hostname"] = .string(server.hostname) }
        if document["name"] == nil { document["name"] = .string(server.name) }
        if !server.files.isEmpty {
            document["files"] = .array(
                server.files.enumerated().map { index, file in
                    [
                        "path": .string(file.path),
                        "content_path": .string("/\(MetadataTree.contentDirectory)/\(MetadataTree.contentName(index))"),
                    ]
                })
        }
        return document
    }

    private var networkData: JSONObject {
        server.networkData.isEmpty ? NetworkData.document(server.ports) : server.networkData
    }

    // MARK: EC2

    /// A node of EC2's tree.
    private indirect enum Node {
        case leaf(String)
        case branch([(String, Node)])
    }

    private func ec2(_ parts: [String], isListing: Bool) -> MetadataResponse {
        guard let first = parts.first else {
            return .text(server.userData == nil ? "meta-data/" : "meta-data/\nuser-data")
        }
        if first == "user-data" {
            guard parts.count == 1, let userData = server.userData else { return .notFound }
            return MetadataResponse(status: 200, contentType: "application/octet-stream", body: userData)
        }
        guard first == "meta-data" else { return .notFound }
        var node = ec2Tree
        for part in parts.dropFirst() {
            guard case .branch(let children) = node,
                // Keys are listed as `0=name` and requested as `0`.
                let next = children.first(where: { $0.0 == part || $0.0.hasPrefix("\(part)=") })
            else { return .notFound }
            node = next.1
        }
        switch node {
        case .leaf(let text): return isListing && text.isEmpty ? .notFound : .text(text)
        case .branch(let children):
            return .text(
                children.map { name, child in
                    if case .branch = child, !name.contains("=") { "\(name)/" } else { name }
                }.joined(separator: "\n"))
        }
    }

    private var ec2Tree: Node {
        let hostname = server.metadata["hostname"]?.stringValue ?? server.hostname
        let places = DiskPlaces(server, server.hardware)
        let addresses = server.ports.flatMap(\.fixedIPs).map(\.address).filter { $0.version == .v4 }
        var entries: [(String, Node)] = [
            ("ami-id", .leaf(server.image.map { MetadataTree.ec2ID("ami", $0.id) } ?? "ami-00000000")),
            ("ami-launch-index", .leaf(String(server.metadata["launch_index"]?.intValue ?? 0))),
            ("ami-manifest-path", .leaf("")),
            (
                "block-device-mapping",
                .branch(
                    [("ami", .leaf(places.root.name)), ("root", .leaf("/dev/\(places.root.name)"))]
                        + (server.ephemeralGiB > 0 ? [("ephemeral0", .leaf("/dev/\(places.ephemeral.name)"))] : [])
                        + (server.swapMiB > 0 ? [("swap", .leaf("/dev/\(places.swap.name)"))] : []))
            ),
            ("hostname", .leaf(hostname)), ("instance-action", .leaf("none")),
            ("instance-id", .leaf(MetadataTree.ec2ID("i", server.id))),
            ("instance-type", .leaf(server.extraSpecs["flavor_name"] ?? "")),
            ("local-hostname", .leaf(hostname)),
            ("local-ipv4", .leaf(addresses.first?.description ?? "")),
            (
                "placement",
                .branch([("availability-zone", .leaf(server.metadata["availability_zone"]?.stringValue ?? ""))])
            ),
            ("public-hostname", .leaf(hostname)), ("public-ipv4", .leaf(server.floatingIPs.first { $0.version == .v4 }?.description ?? "")),
        ]
        let keys = server.metadata["public_keys"]?.objectValue?.members ?? []
        if !keys.isEmpty {
            entries.append(
                (
                    "public-keys",
                    .branch(
                        keys.enumerated().map { index, key in
                            ("\(index)=\(key.name)", .branch([("openssh-key", .leaf(key.value.stringValue ?? ""))]))
                        })
                ))
        }
        entries.append(("reservation-id", .leaf(MetadataTree.ec2ID("r", server.id))))
        entries.append(("security-groups", .leaf(server.securityGroups.joined(separator: "\n"))))
        return .branch(entries)
    }

    /// EC2's short ids, from the first eight digits of ours.
    private static func ec2ID(_ prefix: String, _ uuid: String) -> String { "\(prefix)-\(uuid.prefix(8))" }

    // MARK: config drive

    /// The files of the config drive, by path.
    package var configDriveFiles: [(path: String, bytes: [UInt8])] {
        var files: [(path: String, bytes: [UInt8])] = []
        for version in ["2018-08-27", "2020-10-14", "latest"] {
            let place = MetadataTree.openStackVersions.firstIndex(of: version) ?? 0
            for name in self.files(since: place) where name != "password" {
                files.append(("openstack/\(version)/\(name)", openStack([version, name]).body))
            }
        }
        for (index, file) in server.files.enumerated() {
            files.append(("openstack/\(MetadataTree.contentDirectory)/\(MetadataTree.contentName(index))", file.contents))
        }
        var ec2: JSONObject = [:]
        if case .branch(let entries) = ec2Tree {
            for case (let name, .leaf(let text)) in entries { ec2[name] = .string(text) }
            ec2["security-groups"] = JSONValue(server.securityGroups)
        }
        files.append(("ec2/latest/meta-data.json", JSONValue.object(ec2).encoded))
        if let userData = server.userData { files.append(("ec2/latest/user-data", userData)) }
        return files
    }
}
