import Client
import JSON
import Kernel
import ServiceCatalog

/// Searches the APIs, libvirt, OVN, placement and the quota usage for leftovers of a tenant's resources.
struct DemoAudit: Sendable {
    let layout: CloudLayout
    let tenant: RESTClient
    let `operator`: RESTClient

    struct Findings {
        var clean: [String] = []
        var found: [String] = []
    }

    /// The tenant's quota usage, by name.
    func usage() async throws -> [String: Int] {
        var used: [String: Int] = [:]
        let compute = try await tenant.get(.compute, "/limits")["limits"]?["absolute"]
        for name in ["totalInstancesUsed", "totalCoresUsed", "totalRAMUsed"] { used[name] = compute?[name]?.intValue ?? -1 }
        let storage = try await tenant.get(.blockStorage, "/limits")["limits"]?["absolute"]
        for name in ["totalVolumesUsed", "totalGigabytesUsed"] { used[name] = storage?[name]?.intValue ?? -1 }
        let project = try await tenant.token().projectID ?? ""
        let network = try await `operator`.get(.network, "/quotas/\(project)/details")["quota"]?.objectValue ?? [:]
        for name in ["network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule"] {
            used[name] = network[name]?["used"]?.intValue ?? -1
        }
        return used
    }

    func leftovers(of created: [DemoStory.CreatedResource], usageBefore: [String: Int]) async throws -> Findings {
        var findings = Findings()
        try await api(created, &findings)
        try await libvirt(created, &findings)
        try await northbound(created, &findings)
        try await placement(created, &findings)
        let after = try await usage()
        let changed = after.filter { usageBefore[$0.key] != $0.value && !DemoAudit.isDefaultGroup($0.key, usageBefore) }
        if changed.isEmpty {
            findings.clean.append("quota usage: as before (\(after.values.reduce(0, +)) units in \(after.count) kinds)")
        }
        for (name, value) in changed.sorted(by: { $0.key < $1.key }) {
            findings.found.append("quota usage of \(name) was \(usageBefore[name] ?? 0), is \(value)")
        }
        return findings
    }

    /// A project's first use of networks creates its default security group, which stays.
    private static func isDefaultGroup(_ name: String, _ before: [String: Int]) -> Bool {
        name.hasPrefix("security_group") && before["security_group"] == 0
    }

    private func api(_ created: [DemoStory.CreatedResource], _ findings: inout Findings) async throws {
        var left: [String] = []
        for resource in created {
            do {
                _ = try await tenant.get(resource.service, resource.path)
                left.append("\(resource.kind) \(resource.id)")
            } catch let error as ResourceError where error.code == .notFound {
                continue
            }
        }
        if left.isEmpty { findings.clean.append("APIs: none of the \(created.count) resources is left") }
        findings.found += left.map { "still in the API: \($0)" }
    }

    private func libvirt(_ created: [DemoStory.CreatedResource], _ findings: inout Findings) async throws {
        var left: [String] = []
        for host in layout.hosts {
            let domains = try await Tool.require(["virsh", "-c", host.libvirtURI, "list", "--all", "--uuid"])
            left += created.filter { domains.contains($0.id) }.map(\.id)
        }
        if left.isEmpty { findings.clean.append("libvirt: no domain of it is left") }
        findings.found += left.map { "still a domain in libvirt: \($0)" }
    }

    private func northbound(_ created: [DemoStory.CreatedResource], _ findings: inout Findings) async throws {
        let rows = try await Tool.require(["ovsdb-client", "dump", "unix:\(layout.northboundSocket)", "OVN_Northbound"])
        // Names of port groups cannot contain dashes.
        let left = created.filter { rows.contains($0.id) || rows.contains($0.id.replacing("-", with: "_")) }
        if left.isEmpty { findings.clean.append("OVN: no row of the northbound database refers to its resources") }
        findings.found += left.map { "still in OVN's northbound database: \($0.kind) \($0.id)" }
    }

    private func placement(_ created: [DemoStory.CreatedResource], _ findings: inout Findings) async throws {
        for server in created where server.kind == "server" {
            let answer = try await `operator`.get(.placement, "/allocations/\(server.id)")
            if answer["allocations"]?.objectValue?.isEmpty ?? true {
                findings.clean.append("placement: no allocation is left")
            } else {
                findings.found.append("placement still holds an allocation of server \(server.id)")
            }
        }
    }
}
