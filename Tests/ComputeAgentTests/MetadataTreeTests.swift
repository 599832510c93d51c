import JSON
import Kernel
import Testing

@testable import ComputeAgentCore

@Suite struct MetadataTreeTests {
    private func get(_ path: String, _ changes: JSONObject = [:]) throws -> MetadataResponse {
        MetadataTree(try Fixture.server(changes)).response(method: "GET", path: path)
    }
    private func text(_ path: String) throws -> String { String(decoding: try get(path).body, as: UTF8.self) }

    @Test func openStackForm() throws {
        #expect(try text("/openstack").hasSuffix("latest"))
        #expect(try text("/openstack/latest/").contains("network_data.json"))
        #expect(try !text("/openstack/2012-08-10").contains("network_data.json"))
        let meta = try JSONValue.parse(try get("/openstack/latest/meta_data.json").body)
        #expect(meta["hostname"]?.stringValue == "web.novalocal")
        #expect(try text("/openstack/latest/user_data") == "#!/bin/sh\n")
        #expect(try get("/openstack/latest/user_data", ["user_data": nil]).status == 404)
        let network = try JSONValue.parse(try get("/openstack/latest/network_data.json").body)
        #expect(network["links"]?.arrayValue?.count == 1)
        #expect(network["networks"]?.arrayValue?.first?["type"]?.stringValue == "ipv4_dhcp")
    }

    @Test func ec2Form() throws {
        #expect(try text("/latest/meta-data/instance-id") == "i-11111111")
        #expect(try text("/latest/meta-data/local-ipv4") == "10.0.0.5")
        #expect(try text("/2009-04-04/meta-data/public-keys/") == "0=mykey")
        #expect(try text("/latest/meta-data/public-keys/0/") == "openssh-key")
        #expect(try text("/latest/meta-data/public-keys/0/openssh-key") == "ssh-ed25519 AAAA me\n")
        #expect(try text("/latest/user-data") == "#!/bin/sh\n")
        #expect(try text("/latest/").contains("meta-data/"))
        #expect(try text("/").contains("2009-04-04"))
    }

    @Test(arguments: ["/nothing", "/openstack/1999-01-01/", "/openstack/latest/x", "/latest/meta-data/x/y", "/latest/x"])
    func absentPaths(path: String) throws { #expect(try get(path).status == 404) }

    @Test func onlyReads() throws {
        let tree = MetadataTree(try Fixture.server())
        #expect(tree.response(method: "POST", path: "/openstack/latest/password").status == 405)
    }

    @Test("S22: a guest leaves one password, of limited size") func s22_aGuestLeavesOnePassword() throws {
        let tree = MetadataTree(try Fixture.server())
        func post(_ body: String, _ tree: MetadataTree, path: String = "/openstack/latest/password") -> MetadataTree.PasswordPost? {
            tree.passwordPost(method: "POST", path: path, body: Array(body.utf8))
        }
        func status(_ post: MetadataTree.PasswordPost?) -> Int? { if case .refused(let response)? = post { response.status } else { nil } }
        #expect(post("c2VjcmV0", tree) == .accepted("c2VjcmV0"))
        #expect(post("c2VjcmV0", tree, path: "/openstack/2013-04-04/password?x") == .accepted("c2VjcmV0"))
        #expect(post(String(repeating: "x", count: 1020), tree) != nil)
        #expect(status(post(String(repeating: "x", count: 1021), tree)) == 400)
        #expect(status(post("", tree)) == 400)
        #expect(status(post("a\u{0}b", tree)) == 400)
        #expect(status(tree.passwordPost(method: "POST", path: "/openstack/latest/password", body: [0xff])) == 400)
        for path in ["/openstack/2012-08-10/password", "/openstack/latest/user_data", "/openstack/latest", "/password"] {
            #expect(post("x", tree, path: path) == nil, "\(path)")
        }
        #expect(tree.passwordPost(method: "GET", path: "/openstack/latest/password", body: []) == nil)
        let left = MetadataTree(try Fixture.server(["guest_password": "c2VjcmV0"]))
        #expect(status(post("other", left)) == 409)
        #expect(left.response(method: "GET", path: "/openstack/latest/password").body == Array("c2VjcmV0".utf8))
        #expect(!left.configDriveFiles.contains { $0.path.hasSuffix("password") })
    }

    @Test func theAddressesAndGroupsOfAServerAreItsOwn() throws {
        let without = MetadataTree(try Fixture.server())
        #expect(without.response(method: "GET", path: "/latest/meta-data/public-ipv4") == .text(""))
        #expect(without.response(method: "GET", path: "/latest/meta-data/security-groups") == .text(""))
        let tree = MetadataTree(
            try Fixture.server(["floating_ips": ["2001:db8::1", "203.0.113.7"], "security_groups": ["default", "web"]]))
        #expect(tree.response(method: "GET", path: "/latest/meta-data/public-ipv4") == .text("203.0.113.7"))
        #expect(tree.response(method: "GET", path: "/latest/meta-data/security-groups") == .text("default\nweb"))
        let files = Dictionary(uniqueKeysWithValues: tree.configDriveFiles.map { ($0.path, $0.bytes) })
        let drive = try JSONValue.parse(try #require(files["ec2/latest/meta-data.json"]))
        #expect(drive["security-groups"] == ["default", "web"] && drive["public-ipv4"] == "203.0.113.7")
    }

    @Test func configDriveHasTheSameDocuments() throws {
        let tree = MetadataTree(try Fixture.server())
        let files = Dictionary(uniqueKeysWithValues: tree.configDriveFiles.map { ($0.path, $0.bytes) })
        #expect(files["openstack/latest/meta_data.json"] == tree.response(method: "GET", path: "/openstack/latest/meta_data.json").body)
        #expect(files["openstack/latest/user_data"] == Array("#!/bin/sh\n".utf8))
        #expect(files["ec2/latest/meta-data.json"] != nil)
    }

    @Test("S14: files for a guest have names of our own on the host") func s14FilesAreInTheMetadataAndOnTheConfigDrive() throws {
        let files: JSONObject = [
            "personality": [["path": "/etc/motd", "contents": "SGVsbG8K"], ["path": "../../etc/passwd", "contents": ""]]
        ]
        let meta = try JSONValue.parse(try get("/openstack/latest/meta_data.json", files).body)
        #expect(
            meta["files"] == [
                ["path": "/etc/motd", "content_path": "/content/0000"], ["path": "../../etc/passwd", "content_path": "/content/0001"],
            ])
        #expect(try get("/openstack/content/0000", files).body == Array("Hello\n".utf8))
        #expect(
            try get("/openstack/content/0001", files) == MetadataResponse(status: 200, contentType: "application/octet-stream", body: []))
        for path in ["0002", "0", "-001", "0000/x", "+000"] {
            #expect(try get("/openstack/content/\(path)", files).status == 404, "\(path)")
        }
        #expect(try get("/openstack/content", files).status == 404)
        #expect(try JSONValue.parse(try get("/openstack/latest/meta_data.json").body)["files"] == nil)
        // The path is inside the guest; in the metadata tree the contents have generated names.
        let drive = MetadataTree(try Fixture.server(files)).configDriveFiles
        #expect(
            drive.filter { $0.path.hasPrefix("openstack/content/") }.map(\.path) == ["openstack/content/0000", "openstack/content/0001"])
        #expect(!drive.contains { $0.path.contains("..") })
    }
}
