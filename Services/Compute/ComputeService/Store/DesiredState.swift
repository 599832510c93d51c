import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Messaging
import Telemetry

/// Creates the desired states that are sent to the agents from the rows of the shared schema.
enum DesiredState {
    /// Records a new desired state: increments generation and epoch. A nil power keeps the current one; the operation is
    /// replaced.
    ///
    /// - Returns: the new generation.
    @discardableResult
    static func change(
        _ connection: Connection, server: String, power: DesiredPower? = nil, operation: JSONValue? = nil
    ) throws -> Int {
        try connection.query(
            """
            UPDATE servers SET power = coalesce(\(power?.rawValue), power),
                operation = coalesce(\(operation)::jsonb, operation), generation = generation + 1, epoch = epoch + 1
            WHERE id = \(server) RETURNING generation
            """
        ).first?.int("generation") ?? 0
    }

    /// Sends the server's desired state to its host when the transaction commits. Does nothing if the server has no host,
    /// or if its desired state was never published.
    static func publish(_ connection: Connection, server: String, first: Bool = false, ambient: Ambient) throws {
        let rows = try connection.query(
            """
            UPDATE servers SET published_at = \(ambient.databaseNow)
            WHERE id = \(server) AND host IS NOT NULL AND (\(first) OR published_at IS NOT NULL) RETURNING host
            """)
        if let host = try rows.first?.string("host") { try send(connection, server: server, host: host, ambient: ambient) }
    }

    /// Records and sends a new desired state for an accepted request that changes the server's row.
    ///
    /// - Parameter policy: the action of the decision.
    /// - Returns: the new generation.
    @discardableResult
    static func change(
        _ connection: Connection, of server: Authorized<ServerRecord>, for policy: String, ambient: Ambient
    ) throws -> Int {
        let id = try server.value(for: policy).id
        let generation = try change(connection, server: id)
        try publish(connection, server: id, ambient: ambient)
        return generation
    }

    /// The same as `portsChanged` for a request that names servers.
    ///
    /// - Parameter affected: the ones whose ports changed.
    static func portsChanged(
        _ connection: Connection, of servers: Authorized<[String]>, affected: Set<String>, ambient: Ambient
    ) throws -> [String: String] {
        let ids = try servers.value(for: "os_compute_api:os-server-external-events:create")
        return try portsChanged(connection, servers: ids.filter(affected.contains).sorted(), ambient: ambient)
    }

    /// Sends the desired state again for servers whose ports were changed through Network. The generation stays the same,
    /// because nothing else is required of the host; the higher epoch prevents a delayed earlier message from overriding
    /// this one.
    ///
    /// An unreadable row affects only that server: nothing is sent for it, and its changes count as not sent.
    ///
    /// - Parameter servers: ids; servers that do not exist or have no host are skipped.
    /// - Returns: the servers whose rows cannot be read, with the reasons.
    static func portsChanged(_ connection: Connection, servers: [String], ambient: Ambient) throws -> [String: String] {
        let rows = try connection.query(
            """
            UPDATE servers SET epoch = epoch + 1, published_at = \(ambient.databaseNow)
            WHERE id IN (SELECT id FROM servers WHERE id = ANY(\(servers)::uuid[]) AND host IS NOT NULL AND NOT deleted
                AND published_at IS NOT NULL ORDER BY id FOR UPDATE) RETURNING id, host
            """)
        let sent = try rows.map { (id: try $0.string("id"), host: try $0.string("host")) }
        // Mark changes before reading the ports, so that a change in between does not count as sent.
        try connection.execute(
            """
            UPDATE server_interfaces i SET port_change = c.number FROM published_port_changes c
            WHERE c.port_id = i.port_id AND c.number > i.port_change AND i.server_id = ANY(\(sent.map(\.id))::uuid[])
            """)
        let hosts = Dictionary(uniqueKeysWithValues: sent.map { ($0.id, $0.host) })
        var unreadable: [String: String] = [:]
        for server in try specs(connection, where: "s.id = ANY(\(sent.map(\.id))::uuid[])") {
            guard let host = hosts[server.id] else { continue }
            switch server.spec {
            case .success(let spec): try send(connection, spec, host: host, ambient: ambient)
            case .failure(let error): unreadable[server.id] = error.reason
            }
        }
        if !unreadable.isEmpty {
            try connection.execute(
                "UPDATE server_interfaces SET port_change = 0 WHERE server_id = ANY(\(unreadable.keys.sorted())::uuid[])")
        }
        return unreadable
    }

    /// The servers with changes of ports that were not sent to their hosts.
    ///
    /// - Parameter before: a time of the database; later changes are ignored, because Network's message about them may be in flight.
    static func serversWithUnsentPorts(_ connection: Connection, changedBefore before: SQL, limit: Int) throws -> [String] {
        try connection.query(
            """
            SELECT DISTINCT s.id FROM published_port_changes c JOIN server_interfaces i ON i.port_id = c.port_id
            JOIN servers s ON s.id = i.server_id
            WHERE c.number > i.port_change AND c.changed_at < \(before) AND s.host IS NOT NULL AND NOT s.deleted
                AND s.published_at IS NOT NULL
            ORDER BY s.id LIMIT \(limit)
            """
        ).map { try $0.string("id") }
    }

    /// Sends the server as its row is now.
    static func send(_ connection: Connection, server: String, host: String, ambient: Ambient) throws {
        guard let description = try load(connection, where: "s.id = \(server)").first else { return }
        try send(connection, try Enclosed(description.spec), host: host, ambient: ambient)
    }

    static func send(_ connection: Connection, _ server: Enclosed<ServerSpec>, host: String, ambient: Ambient) throws {
        try Outbox.add(connection, EnsureServer(server: server), to: .agent(host: host), ambient: ambient)
    }

    /// The complete set of servers that must be present on, or absent from, a host.
    static func all(_ connection: Connection, host: String) throws -> [Enclosed<ServerSpec>] {
        let belongs: SQL = "s.host = \(host) AND NOT s.deleted AND s.published_at IS NOT NULL"
        let absences = try connection.query(
            "SELECT desired FROM server_absences WHERE host = \(host) UNION ALL SELECT desired FROM server_arrivals WHERE host = \(host)")
        let servers = try specs(connection, where: belongs).map { server in
            switch server.spec {
            case .success(let spec): spec
            case .failure: unreadable(server.id)
            }
        }
        return try servers + absences.map { Enclosed(document: try $0.json("desired")) }
    }

    /// Why a server's row cannot be read.
    struct UnreadableServer: Error {
        let reason: String
    }

    /// A server's desired state, or why there is none.
    private typealias Described = (id: String, spec: Result<Enclosed<ServerSpec>, UnreadableServer>)

    /// The servers that match the condition, ordered by id. They are read together, and one by one only if a row cannot be read, so that it
    /// affects only that server.
    private static func specs(_ connection: Connection, where condition: SQL) throws -> [Described] {
        func read(_ condition: SQL) throws -> [Described] {
            try load(connection, where: condition).map { ($0.id, .success(try Enclosed($0.spec))) }
        }
        do { return try read(condition) } catch  where !(error is DatabaseError) {
            let ids = try connection.query("SELECT s.id FROM servers s WHERE \(condition) ORDER BY s.id").map { try $0.string("id") }
            return try ids.flatMap { id in
                do { return try read("s.id = \(id)") } catch  where !(error is DatabaseError) {
                    return [(id, .failure(UnreadableServer(reason: String("\(error)".prefix(500)))))]
                }
            }
        }
    }

    /// The agent gets the id alone, leaves the server unchanged and reports this.
    private static func unreadable(_ id: String) -> Enclosed<ServerSpec> { Enclosed(document: ["id": .string(id)]) }

    // MARK: loading

    /// At most four statements for any number of servers.
    static func load(_ connection: Connection, where condition: SQL) throws -> [ServerDescription] {
        let rows = try connection.query(
            """
            SELECT s.id, s.name, s.hostname, s.project_id, s.user_id, s.generation, s.epoch, s.power, s.operation, s.rescue,
                s.keeps_disks, s.disk_sources, s.root_is_copy,
                s.flavor, coalesce(s.root_image, s.image) AS image, \(ServerProperties.ofImage) AS image_properties, s.metadata,
                s.user_data, s.personality, s.config_drive, s.guest_password, s.key_name, s.key_data, s.key_type, s.availability_zone,
                s.launch_index, s.root_tag,
                \(HostAggregateStore.processorDefinitions) AS processor_definitions,
                EXISTS (SELECT 1 FROM server_interfaces i WHERE i.server_id = s.id) AS has_ports,
                EXISTS (SELECT 1 FROM server_volumes v WHERE v.server_id = s.id) AS has_volumes,
                EXISTS (SELECT 1 FROM server_jobs j WHERE j.server_id = s.id) AS has_jobs
            FROM servers s WHERE \(condition) ORDER BY s.id
            """)
        guard !rows.isEmpty else { return [] }
        let ids = { (column: String) in try rows.filter { try $0.bool(column) }.map { try $0.string("id") } }
        let ports = try self.ports(connection, servers: ids("has_ports"))
        let volumes = try self.volumes(connection, servers: ids("has_volumes"))
        let jobs = try HostJobs.load(connection, servers: ids("has_jobs"))
        return try rows.map { row in
            let id = try row.string("id")
            var description = ServerDescription(
                id: id, name: try row.string("name"), hostname: try row.string("hostname"),
                projectID: try row.string("project_id"), userID: try row.string("user_id"),
                generation: try row.int("generation"), epoch: try row.int("epoch"), power: try power(try row.string("power")),
                operation: try row.optionalValue("operation"), flavor: try row.value("flavor"),
                image: try row.optionalValue("image"),
                imageProperties: try row.value("image_properties"), rescue: try row.optionalValue("rescue"),
                keepsDisks: try row.bool("keeps_disks"), metadata: try row.object("metadata"),
                userData: try row.optionalString("user_data"), files: try row.value("personality"),
                configDrive: try row.bool("config_drive"),
                keyName: try row.optionalString("key_name"), keyData: try row.optionalString("key_data"),
                availabilityZone: try row.optionalString("availability_zone"),
                launchIndex: try row.int("launch_index"), ports: ports[id] ?? [], volumes: volumes[id] ?? [],
                jobs: jobs[id] ?? [])
            description.rootIsCopy = try row.bool("root_is_copy")
            description.diskSources = try row.optionalValue("disk_sources") ?? []
            description.keyType = try row.string("key_type")
            description.rootTag = try row.optionalString("root_tag")
            description.processorDefinitions = try row.optionalValue("processor_definitions")
            description.guestPassword = try row.optionalString("guest_password")
            return description
        }
    }

    /// Sends the desired state again because something changed that guests see only in their metadata: nothing is required of the
    /// host, and the server's generation stays the same.
    ///
    /// - Parameter policy: the action of the decision.
    static func refresh(
        _ connection: Connection, of server: Authorized<ServerRecord>, for policy: String, ambient: Ambient
    ) throws {
        let id = try server.value(for: policy).id
        try refresh(connection, server: id, ambient: ambient)
    }

    /// The same for an agent's report.
    static func refresh(_ connection: Connection, server: String, ambient: Ambient) throws {
        if let reason = try portsChanged(connection, servers: [server], ambient: ambient)[server] {
            throw ResourceError.internalError("the row of the server \(server) cannot be read: \(reason)")
        }
    }

    private static func power(_ text: String) throws -> DesiredPower {
        guard let power = DesiredPower(rawValue: text) else { throw ResourceError.internalError("servers.power is \(text)") }
        return power
    }

    private static func ports(_ connection: Connection, servers: [String]) throws -> [String: [PortDescription]] {
        if servers.isEmpty { return [:] }
        let rows = try connection.query(
            """
            SELECT i.server_id, i.tag, p.id, p.network_id, p.mac_address, n.mtu, p.port_security_enabled,
                (SELECT json_agg(json_build_object('address', f.ip_address, 'subnet_id', f.subnet_id, 'cidr', f.cidr,
                        'gateway', f.gateway_ip, 'dns', f.dns_nameservers, 'dhcp', f.enable_dhcp))
                    FROM published_port_addresses f WHERE f.port_id = p.id) AS addresses,
                (SELECT json_build_object('id', m.id, 'mac_address', m.mac_address, 'fixed_ips',
                        (SELECT coalesce(json_agg(json_build_object('ip_address', f.ip_address, 'cidr', f.cidr)), '[]')
                            FROM published_port_addresses f WHERE f.port_id = m.id))
                    FROM published_ports m WHERE m.network_id = p.network_id AND m.device_owner = 'network:distributed'
                    LIMIT 1) AS metadata_port,
                (SELECT json_agg(l.floating_ip_address ORDER BY l.floating_ip_address) FROM published_floating_ips l
                    WHERE l.port_id = p.id) AS floating_ips,
                (SELECT json_agg(g.name ORDER BY g.name) FROM published_port_security_groups m
                    JOIN published_security_groups g ON g.id = m.security_group_id WHERE m.port_id = p.id) AS security_groups
            FROM server_interfaces i JOIN published_ports p ON p.id = i.port_id JOIN published_networks n ON n.id = p.network_id
            WHERE i.server_id = ANY(\(servers)::uuid[]) AND i.state = 'attached' ORDER BY i.server_id, i.position
            """)
        var result: [String: [PortDescription]] = [:]
        for row in rows {
            let addresses = (try row.optionalJSON("addresses")?.arrayValue ?? []).map(address)
            var port = PortDescription(
                id: try row.string("id"), networkID: try row.string("network_id"),
                mac: try row.string("mac_address"), mtu: try row.int("mtu"), addresses: addresses,
                tag: try row.optionalString("tag"), metadataPort: try row.optionalValue("metadata_port"),
                isSecured: try row.bool("port_security_enabled"))
            port.floatingIPs = (try row.optionalJSON("floating_ips")?.arrayValue ?? []).compactMap(\.stringValue)
            port.securityGroups = (try row.optionalJSON("security_groups")?.arrayValue ?? []).compactMap(\.stringValue)
            result[try row.string("server_id"), default: []].append(port)
        }
        return result
    }

    private static func address(_ value: JSONValue) -> PortAddress {
        PortAddress(
            address: value["address"]?.stringValue ?? "", subnetID: value["subnet_id"]?.stringValue,
            cidr: value["cidr"]?.stringValue ?? "", gateway: value["gateway"]?.stringValue,
            nameServers: (value["dns"]?.arrayValue ?? []).compactMap(\.stringValue),
            usesDHCP: value["dhcp"]?.boolValue ?? true)
    }

    private static func volumes(_ connection: Connection, servers: [String]) throws -> [String: [VolumeDescription]] {
        if servers.isEmpty { return [:] }
        let rows = try connection.query(
            """
            SELECT v.server_id, v.volume_id, v.attachment_id, v.device, v.boot_index, v.connection, v.tag, p.size
            FROM server_volumes v LEFT JOIN published_volumes p ON p.id = v.volume_id
            WHERE v.server_id = ANY(\(servers)::uuid[]) AND v.connection IS NOT NULL AND v.state <> 'detaching'
            ORDER BY v.server_id, v.device
            """)
        var result: [String: [VolumeDescription]] = [:]
        for row in rows {
            result[try row.string("server_id"), default: []].append(
                VolumeDescription(
                    volumeID: try row.string("volume_id"), attachmentID: try row.optionalString("attachment_id") ?? "",
                    device: try row.string("device"), bootIndex: try row.optionalInt("boot_index"),
                    connection: Enclosed(document: try row.json("connection")), tag: try row.optionalString("tag"),
                    sizeGiB: try row.optionalInt("size")))
        }
        return result
    }
}

/// Expressions over rows of `servers`.
enum ServerProperties {
    /// The properties of the image as hosts and hardware see them, of a row `s`: releases before 0.2.0 wrote them into `image` only.
    static let ofImage: SQL = "coalesce(s.image_properties, nullif(s.image->'properties', 'null'), '{}')"
}
