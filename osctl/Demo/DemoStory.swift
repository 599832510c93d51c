import Client
import Glibc
import JSON
import Kernel
import ServiceCatalog

/// The steps of the example tenant; records what it created and deletes it.
final class DemoStory {
    struct CreatedResource: Sendable {
        let kind: String
        let id: String
        let service: CloudService
        let path: RESTPath
    }

    let layout: CloudLayout
    let client: RESTClient
    private let narrator: Narrator
    /// The path of the private key during the demo.
    private let directory: String
    private(set) var created: [CreatedResource] = []
    private var routerInterfaces: [(router: String, subnet: String)] = []

    private static let name = "demo"
    private static let bootLimit: Duration = .seconds(180)
    private static let answerLimit: Duration = .seconds(120)

    init(layout: CloudLayout, client: RESTClient, narrator: Narrator, directory: String) {
        self.layout = layout
        self.client = client
        self.narrator = narrator
        self.directory = directory
    }

    // MARK: Steps

    func tell() async throws {
        narrator.chapter("A key pair, an image")
        let key = try await keypair()
        let image = try await uploadImage()
        narrator.chapter("A network of one's own, and a way out")
        let network = try await makeNetwork()
        narrator.chapter("Who may come in")
        let group = try await securityGroup()
        narrator.chapter("A server")
        let server = try await makeServer(image: image, network: network.id, group: group)
        let address = try await floatingIP(server: server, external: network.external)
        narrator.chapter("Is anybody there?")
        try await ping(address)
        try await ssh(address, key: key)
    }

    private func keypair() async throws -> String {
        try Machine.makeDirectory(directory, mode: 0o700)
        let path = directory + "/id_ed25519"
        unlink(path)
        unlink(path + ".pub")
        try await Tool.require(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", path])
        guard let text = Machine.readText(path + ".pub") else { throw Machine.failure("read", path + ".pub") }
        let body: JSONValue = ["keypair": ["name": .string(unique("key")), "public_key": .string(text.filter { $0 != "\n" })]]
        let name = try await client.post(.compute, "/os-keypairs", body)["keypair"]?["name"]?.stringValue ?? ""
        created.append(CreatedResource(kind: "key pair", id: name, service: .compute, path: "/os-keypairs/\(name)"))
        narrator.tell("key pair \(name); its private half is in \(path)")
        return path
    }

    private func uploadImage() async throws -> String {
        let path = layout.images + "/guest.qcow2"
        let file = try FileChunks(path: path)
        let body: JSONValue = [
            "name": .string(unique("image")), "visibility": "private", "disk_format": "qcow2", "container_format": "bare",
            "min_disk": 1, "min_ram": 64,
        ]
        let id = try await create("image", .image, "/images", body, member: nil)
        _ = try await client.upload(service: .image, path: "/images/\(id)/file", length: file.size) { try FileChunks(path: path) }
        let image = try await client.get(.image, "/images/\(id)")
        narrator.tell("image \(id), \(file.size >> 20) MB uploaded, status \(image["status"]?.stringValue ?? "?")")
        return id
    }

    private func makeNetwork() async throws -> (id: String, external: String) {
        let network = try await create("network", .network, "/networks", ["network": ["name": .string(unique("net"))]], member: "network")
        let subnet = try await create(
            "subnet", .network, "/subnets",
            ["subnet": ["network_id": .string(network), "name": .string(unique("subnet")), "ip_version": 4, "cidr": "192.168.77.0/24"]],
            member: "subnet")
        let external = try await client.list(
            service: .network, path: "/networks", key: "networks", query: [("router:external", "true")]
        ).first?["id"]?.stringValue
        guard let external else { throw CloudError("there is no external network") }
        let router = try await create(
            "router", .network, "/routers",
            ["router": ["name": .string(unique("router")), "external_gateway_info": ["network_id": .string(external)]]], member: "router")
        try await client.put(.network, "/routers/\(router)/add_router_interface", ["subnet_id": .string(subnet)])
        routerInterfaces.append((router, subnet))
        narrator.tell("network \(network) with 192.168.77.0/24, router \(router) between it and `\(InitialObjects.externalName)`")
        return (network, external)
    }

    private func securityGroup() async throws -> String {
        let group = try await create(
            "security group", .network, "/security-groups", ["security_group": ["name": .string(unique("group"))]], member: "security_group"
        )
        let rules: [JSONValue] = [
            ["protocol": "icmp"], ["protocol": "tcp", "port_range_min": 22, "port_range_max": 22],
        ]
        for rule in rules {
            var fields = rule.objectValue ?? [:]
            fields["security_group_id"] = .string(group)
            fields["direction"] = "ingress"
            fields["ethertype"] = "IPv4"
            try await client.post(.network, "/security-group-rules", ["security_group_rule": .object(fields)])
        }
        narrator.tell("security group \(group): ICMP and SSH from anywhere")
        return group
    }

    private func makeServer(image: String, network: String, group: String) async throws -> String {
        let flavors = try await client.list(service: .compute, path: "/flavors", key: "flavors")
        guard let flavor = flavors.first(where: { $0["name"]?.stringValue == "m1.nano" })?["id"]?.stringValue else {
            throw CloudError("there is no flavor m1.nano")
        }
        let groups = try await client.get(.network, "/security-groups/\(group)")
        let server = try await create(
            "server", .compute, "/servers",
            [
                "server": [
                    "name": .string(unique("server")), "imageRef": .string(image), "flavorRef": .string(flavor),
                    "key_name": .string(created.first { $0.kind == "key pair" }?.id ?? ""), "networks": [["uuid": .string(network)]],
                    "security_groups": [["name": groups["security_group"]?["name"] ?? "default"]],
                ]
            ], member: "server")
        narrator.tell("server \(server) accepted")
        var last = ""
        try await narrator.wait("the server's start", DemoStory.bootLimit) {
            let found = try await self.client.get(.compute, "/servers/\(server)")["server"] ?? nil
            let status = found["status"]?.stringValue ?? "?"
            let task = found["OS-EXT-STS:task_state"]?.stringValue.map { " (\($0))" } ?? ""
            if status + task != last { self.narrator.tell("server is \(status)\(task)") }
            last = status + task
            if status == "ERROR" {
                throw CloudError("the server went to ERROR: \(found["fault"]?["message"]?.stringValue ?? "no reason given")")
            }
            return status == "ACTIVE" ? () : nil
        }
        return server
    }

    private func floatingIP(server: String, external: String) async throws -> String {
        let ports = try await client.list(service: .network, path: "/ports", key: "ports", query: [("device_id", server)])
        guard let port = ports.first, let id = port["id"]?.stringValue else { throw CloudError("the server has no port") }
        let body: JSONValue = ["floatingip": ["floating_network_id": .string(external), "port_id": .string(id)]]
        let floating = try await create("floating IP", .network, "/floatingips", body, member: "floatingip")
        let address = try await client.get(.network, "/floatingips/\(floating)")["floatingip"]?["floating_ip_address"]?.stringValue ?? ""
        let fixed = port["fixed_ips"]?.arrayValue?.first?["ip_address"]?.stringValue ?? "?"
        narrator.tell("floating IP \(address) leads to \(fixed)")
        return address
    }

    // MARK: The guest

    private func ping(_ address: String) async throws {
        narrator.tell("waiting for \(address) to answer; without KVM a guest takes up to a minute to boot")
        try await narrator.wait("an answer to ping", DemoStory.answerLimit) {
            try await Tool.run(["ping", "-c", "1", "-W", "1", address]).status == 0 ? () : nil
        }
        let text = try await Tool.require(["ping", "-c", "2", "-i", "0.2", "-W", "1", address])
        narrator.tell("it answers ping: " + (text.split(separator: "\n").last.map(String.init) ?? ""))
    }

    private func ssh(_ address: String, key: String) async throws {
        let command = [
            "ssh", "-i", key, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=4", "root@" + address,
            "hostname; ip -4 -o addr show scope global | awk '{print $2, $4}'; uname -r; cut -d' ' -f1 /proc/uptime",
        ]
        let said = try await narrator.wait("an SSH session", DemoStory.answerLimit) {
            let result = try await Tool.run(command)
            return result.status == 0 ? result.output : nil
        }
        let lines = said.split(separator: "\n").map(String.init)
        guard lines.count >= 4 else { throw CloudError("unexpected output of the guest: \(said)") }
        narrator.tell("SSH with the private key works; the guest says:")
        narrator.tell("    hostname, from metadata: \(lines[0])")
        narrator.tell("    address, from DHCP:      \(lines[1])")
        narrator.tell("    kernel \(lines[2]), up for \(lines[3]) s")
        guard lines[0] == unique("server") else { throw CloudError("the host name is \(lines[0]), not \(unique("server"))") }
    }

    // MARK: Creating and deleting

    private let suffix = String(Ambient().newSecret(length: 5))
    private func unique(_ kind: String) -> String { "\(DemoStory.name)-\(kind)-\(suffix)" }

    private func create(_ kind: String, _ service: CloudService, _ path: RESTPath, _ body: JSONValue, member: String?) async throws
        -> String
    {
        let answer = try await client.post(service, path, body)
        guard let id = (member.flatMap { answer[$0] } ?? answer)["id"]?.stringValue else {
            throw CloudError("the answer to the request for a \(kind) has no id")
        }
        created.append(CreatedResource(kind: kind, id: id, service: service, path: path + "/\(id)"))
        return id
    }

    /// Deletes everything in reverse order.
    func undo() async throws {
        guard !created.isEmpty else { return }
        narrator.chapter("Clean up")
        for resource in created.reversed() {
            do {
                if resource.kind == "router" { try await detach(resource.id) }
                try await client.delete(resource.service, resource.path, missingIsFine: true)
                if resource.kind == "server" { try await waitUntilGone(resource) }
                narrator.tell("deleted: \(resource.kind) \(resource.id)")
            } catch {
                narrator.failed("\(resource.kind) \(resource.id) cannot be deleted: \(DemoCommand.words(error))")
            }
        }
        for name in ["id_ed25519", "id_ed25519.pub"] { unlink("\(directory)/\(name)") }
        rmdir(directory)
    }

    private func detach(_ router: String) async throws {
        for interface in routerInterfaces where interface.router == router {
            try await client.put(.network, "/routers/\(router)/remove_router_interface", ["subnet_id": .string(interface.subnet)])
        }
    }

    private func waitUntilGone(_ resource: CreatedResource) async throws {
        try await narrator.wait("the server's end", .seconds(60)) { () -> Void? in
            do {
                _ = try await self.client.get(resource.service, resource.path)
                return nil
            } catch let error as ResourceError where error.code == .notFound {
                return ()
            }
        }
    }
}
