package import Contracts

/// The quotas of Network. Operators set the defaults in the section `network`. Resources without a project, such as the service's
/// own ports, are not counted.
package enum NetworkQuotas {
    package static let networks = quota(
        "network", default: 100, "Networks",
        "SELECT project_id AS owner, count(*) AS amount FROM networks WHERE project_id <> '' GROUP BY project_id")

    package static let subnets = quota(
        "subnet", default: 100, "Subnets",
        "SELECT project_id AS owner, count(*) AS amount FROM subnets WHERE project_id <> '' GROUP BY project_id")

    package static let ports = quota(
        "port", default: 500, "Ports",
        """
        SELECT project_id AS owner, count(*) AS amount FROM ports
        WHERE project_id <> '' AND device_owner <> 'network:distributed' GROUP BY project_id
        """)

    package static let routers = quota(
        "router", default: 10, "Routers",
        "SELECT project_id AS owner, count(*) AS amount FROM routers WHERE project_id <> '' GROUP BY project_id")

    package static let floatingIPs = quota(
        "floatingip", default: 50, "Floating IPs",
        "SELECT project_id AS owner, count(*) AS amount FROM floating_ips WHERE project_id <> '' GROUP BY project_id")

    package static let securityGroups = quota(
        "security_group", default: 10, "Security groups",
        "SELECT project_id AS owner, count(*) AS amount FROM security_groups WHERE project_id <> '' GROUP BY project_id")

    package static let securityGroupRules = quota(
        "security_group_rule", default: 100, "Rules of security groups",
        "SELECT project_id AS owner, count(*) AS amount FROM security_group_rules WHERE project_id <> '' GROUP BY project_id")

    package static let all = [networks, subnets, ports, routers, floatingIPs, securityGroups, securityGroupRules]

    private static func quota(_ name: String, default preset: Int, _ things: String, _ counting: String) -> QuotaDeclaration {
        QuotaDeclaration("network", name, default: preset, "\(things) that a project may have", .counted(counting))
    }
}
