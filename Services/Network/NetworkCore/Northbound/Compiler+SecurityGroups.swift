import Kernel

extension Compiler {
    /// Priorities of ACLs; OVN takes the highest that matches.
    private enum Priority {
        static let drop = 1001
        static let allow = 1002
        static let never = 1003
    }

    /// The drop group: secured ports without a security group, or whose groups do not exist in OVN yet.
    package func compileGlobal() -> NBDesired {
        let key = Compiler.dropGroupKey
        let name = Compiler.dropGroupName
        return NBDesired(rows: [NBRow(key, ["name": .string(name), "external_ids": .map([:])])] + denials(key, name, "drop"))
    }

    /// Drops traffic that no rule allows. Each group has these ACLs itself, because a single group of all ports would be
    /// sent to every hypervisor again with each new port.
    ///
    /// - Parameter prefix: the prefix of the rows' ids.
    private func denials(_ key: NBKey, _ name: String, _ prefix: String) -> [NBRow] {
        var rows: [NBRow] = []
        func acl(_ id: String, _ direction: String, _ match: String, _ action: String, _ priority: Int) {
            rows.append(
                NBRow(
                    NBKey(.acl, "\(prefix)/\(id)"), in: key, column: "acls",
                    [
                        "direction": .string(direction), "match": .string(match), "action": .string(action),
                        "priority": .integer(priority), "log": .boolean(false), "external_ids": .map([:]),
                    ]))
        }
        // Drops messages that only routers and DHCP servers may send, regardless of rules: DHCP replies and ICMP redirects.
        // Router advertisements are not included because northd allows neighbour discovery before every ACL; the agent
        // drops them.
        let servers =
            "(ip4 && udp.src == 67 && udp.dst == 68) || (ip6 && udp.src == 547 && udp.dst == 546) || icmp4.type == 5 || icmp6.type == 137"
        acl("server", "from-lport", "inport == @\(name) && (\(servers))", "drop", Priority.never)
        acl("egress", "from-lport", "inport == @\(name) && ip", "drop", Priority.drop)
        acl("ingress", "to-lport", "outport == @\(name) && ip", "drop", Priority.drop)
        // A guest needs an address regardless of its rules, so DHCP requests are always allowed.
        acl(
            "dhcpv4", "from-lport", "inport == @\(name) && ip4 && udp && udp.src == 68 && udp.dst == 67", "allow",
            Priority.allow)
        acl(
            "dhcpv6", "from-lport",
            "inport == @\(name) && ip6 && ip6.dst == {ff02::1:2, ff05::1:3} && udp && udp.src == 546 && udp.dst == 547",
            "allow", Priority.allow)
        return rows
    }

    package func compile(_ group: SecurityGroup) -> NBDesired {
        let key = Compiler.groupKey(group.id)
        let name = Compiler.groupName(group.id)
        var rows =
            [
                NBRow(key, ["name": .string(name), "external_ids": Compiler.labels(["wolke:name": group.name])])
            ] + denials(key, name, "drop/\(group.id)")
        for rule in group.rules {
            rows.append(
                NBRow(
                    NBKey(.acl, "rule/\(rule.id)"), in: key, column: "acls",
                    [
                        "direction": .string(rule.direction == .ingress ? "to-lport" : "from-lport"),
                        "match": .string(Compiler.match(rule, group: name)),
                        "action": .string(group.stateful ? "allow-related" : "allow-stateless"),
                        "priority": .integer(Priority.allow), "log": .boolean(false), "external_ids": .map([:]),
                    ]))
        }
        return NBDesired(rows: rows)
    }

    /// The condition of a rule in OVN's expression language. Every part comes from a typed value.
    package static func match(_ rule: SecurityGroupRule, group: String) -> String {
        let ingress = rule.direction == .ingress
        let ip = rule.etherType == .v4 ? "ip4" : "ip6"
        let remote = ingress ? "src" : "dst"
        var terms = [ingress ? "outport == @\(group)" : "inport == @\(group)", ip]
        if let network = rule.remoteNetwork, network.prefixLength > 0 { terms.append("\(ip).\(remote) == \(network)") }
        if let other = rule.remoteGroupID {
            // northd maintains these address sets from the ports of the group.
            terms.append("\(ip).\(remote) == $\(groupName(other))_\(ip)")
        }
        guard let name = rule.protocolName, var number = IPProtocol.number(name) else {
            return terms.joined(separator: " && ")
        }
        if number == IPProtocol.icmp, rule.etherType == .v6 { number = IPProtocol.icmpv6 }
        switch number {
        case IPProtocol.icmp, IPProtocol.icmpv6:
            let icmp = number == IPProtocol.icmp ? "icmp4" : "icmp6"
            terms.append(icmp)
            if let type = rule.portRangeMin { terms.append("\(icmp).type == \(type)") }
            if let code = rule.portRangeMax { terms.append("\(icmp).code == \(code)") }
        case IPProtocol.tcp, IPProtocol.udp, IPProtocol.sctp:
            let transport = number == IPProtocol.tcp ? "tcp" : number == IPProtocol.udp ? "udp" : "sctp"
            terms.append(transport)
            if let low = rule.portRangeMin, let high = rule.portRangeMax {
                if low == high {
                    terms.append("\(transport).dst == \(low)")
                } else {
                    terms.append("\(transport).dst >= \(low)")
                    terms.append("\(transport).dst <= \(high)")
                }
            }
        default: terms.append("ip.proto == \(number)")
        }
        return terms.joined(separator: " && ")
    }
}
