import Kernel

/// Errors with the types and texts that Networking's clients match on.
enum NetworkFault {
    static func badRequest(_ resource: String, _ message: String) -> ResourceError {
        .badRequest("Bad \(resource) request: \(message)", type: "BadRequest")
    }
    static func invalidInput(_ message: String) -> ResourceError {
        .badRequest("Invalid input for operation: \(message)", type: "InvalidInput")
    }
    static func overQuota(_ resources: [String]) -> ResourceError {
        let names = resources.map { "'\($0)'" }.joined(separator: ", ")
        return .conflict("Quota exceeded for resources: [\(names)].", type: "OverQuota")
    }

    // MARK: networks and subnets

    static func networkInUse(_ id: UUID128) -> ResourceError {
        .conflict(
            "Unable to complete operation on network \(id). There are one or more ports still in use on the network.",
            type: "NetworkInUse")
    }
    static func subnetInUse(_ id: UUID128) -> ResourceError {
        .conflict(
            "Unable to complete operation on subnet \(id): One or more ports have an IP allocation from this subnet.",
            type: "SubnetInUse")
    }
    static func gatewayInUse(_ address: String, port: String) -> ResourceError {
        .conflict(
            "Current gateway ip \(address) already in use by port \(port). Unable to update.", type: "GatewayIpInUse")
    }
    static func noAddresses(_ network: UUID128) -> ResourceError {
        .conflict("No more IP addresses available on network \(network).", type: "IpAddressGenerationFailure")
    }
    static func noAddresses(subnet: UUID128) -> ResourceError {
        .conflict("No more IP addresses available for subnet \(subnet).", type: "IpAddressGenerationFailure")
    }
    static func addressInUse(_ address: IPAddress, network: UUID128) -> ResourceError {
        .conflict(
            "Unable to complete operation for network \(network). The IP address \(address) is in use.",
            type: "IpAddressInUse")
    }
    static func invalidAddress(_ address: IPAddress, subnet: UUID128) -> ResourceError {
        .badRequest(
            "IP address \(address) is not a valid IP for the specified subnet \(subnet).", type: "InvalidIpForSubnet")
    }
    static func invalidAddress(_ address: IPAddress, network: UUID128) -> ResourceError {
        .badRequest(
            "IP address \(address) is not a valid IP for any of the subnets on the specified network \(network).",
            type: "InvalidIpForNetwork")
    }
    static func macInUse(_ mac: MACAddress, network: UUID128) -> ResourceError {
        .conflict(
            "Unable to complete operation for network \(network). The mac address \(mac) is in use.",
            type: "MacAddressInUse")
    }

    // MARK: ports

    /// The guest keeps the hardware address with which its interface was attached.
    static func portBound(_ port: UUID128, old: String, new: MACAddress) -> ResourceError {
        .conflict(
            """
            Unable to complete operation on port \(port), port is already bound, port type: ovs, old_mac \(old), new_mac \(new).
            """,
            type: "PortBound")
    }

    static func portInUse(_ port: UUID128, network: UUID128, device: String) -> ResourceError {
        .conflict(
            "Unable to complete operation on port \(port) for network \(network). Port already has an attached device \(device).",
            type: "PortInUse")
    }
    static func servicePort(_ port: UUID128, owner: String) -> ResourceError {
        .conflict(
            "Port \(port) cannot be deleted directly via the port API: has device owner \(owner).", type: "ServicePortInUse")
    }

    // MARK: routers

    static func routerInUse(_ router: UUID128) -> ResourceError {
        .conflict("Router \(router) still has ports", type: "RouterInUse")
    }
    static func interfaceNotFound(_ router: UUID128, port: String) -> ResourceError {
        .notFound("Router \(router) does not have an interface with id \(port)", type: "RouterInterfaceNotFound")
    }
    static func interfaceNotFound(_ router: UUID128, subnet: String) -> ResourceError {
        .notFound("Router \(router) has no interface on subnet \(subnet)", type: "RouterInterfaceNotFoundForSubnet")
    }
    static func interfaceUsedByFloatingIP(_ router: UUID128, subnet: UUID128) -> ResourceError {
        .conflict(
            "Router interface for subnet \(subnet) on router \(router) cannot be deleted, as it is required by one or more floating IPs.",
            type: "RouterInterfaceInUseByFloatingIP")
    }
    static func interfaceUsedByRoute(_ router: UUID128, subnet: UUID128) -> ResourceError {
        .conflict(
            "Router interface for subnet \(subnet) on router \(router) cannot be deleted, as it is required by one or more routes.",
            type: "RouterInterfaceInUseByRoute")
    }
    static func gatewayUsedByFloatingIP(_ router: UUID128) -> ResourceError {
        .conflict(
            "Gateway cannot be updated for router \(router), since a gateway to external network is required by one or more floating IPs.",
            type: "RouterExternalGatewayInUseByFloatingIp")
    }
    static func invalidRoutes(_ routes: String, _ reason: String) -> ResourceError {
        .badRequest("Invalid format for routes: \(routes), \(reason)", type: "InvalidRoutes")
    }

    // MARK: floating IPs

    static func notReachable(network: UUID128, subnet: UUID128, port: UUID128) -> ResourceError {
        .notFound(
            """
            External network \(network) is not reachable from subnet \(subnet). Therefore, cannot associate Port \
            \(port) with a Floating IP.
            """,
            type: "ExternalGatewayForFloatingIPNotFound")
    }
    static func alreadyAssociated(_ floating: String, port: UUID128, fixed: String) -> ResourceError {
        .conflict(
            """
            Cannot associate floating IP \(floating) with port \(port) using fixed IP \(fixed), as that fixed IP \
            already has a floating IP.
            """,
            type: "FloatingIPPortAlreadyAssociated")
    }

    // MARK: security groups

    static func groupInUse(_ id: UUID128) -> ResourceError {
        .conflict("Security Group \(id) in use.", type: "SecurityGroupInUse")
    }
    static let defaultGroupExists = ResourceError.conflict(
        "Default security group already exists.", type: "SecurityGroupDefaultAlreadyExists")
    static let defaultGroupStays = ResourceError.conflict(
        "Insufficient rights for removing default security group.", type: "SecurityGroupCannotRemoveDefault")
    static let defaultGroupKeepsName = ResourceError.conflict(
        "Updating default security group not allowed.", type: "SecurityGroupCannotUpdateDefault")
    static func ruleExists(_ id: String) -> ResourceError {
        .conflict("Security group rule already exists. Rule id is \(id).", type: "SecurityGroupRuleExists")
    }
}
