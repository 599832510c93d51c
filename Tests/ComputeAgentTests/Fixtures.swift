import JSON
import Kernel

@testable import ComputeAgentCore

/// Servers as the plane describes them.
enum Fixture {
    static let serverID = "11111111-2222-3333-4444-555555555555"
    static let volumeID = "aaaaaaaa-0000-0000-0000-000000000001"
    static let portID = "bbbbbbbb-0000-0000-0000-000000000001"
    static let networkID = "cccccccc-0000-0000-0000-000000000001"

    static let volume: JSONValue = [
        "volume_id": .string(volumeID), "attachment_id": "dddddddd-0000-0000-0000-000000000001", "device": "vdb",
        "boot_index": nil,
        "connection": ["driver": "file", "path": "/srv/volumes/one.raw", "format": "raw", "read_only": false],
    ]
    static let port: JSONValue = [
        "id": .string(portID), "network_id": .string(networkID), "mac_address": "fa:16:3e:00:00:01", "mtu": 1442,
        "fixed_ips": [
            ["ip_address": "10.0.0.5", "subnet_id": "s", "cidr": "10.0.0.0/24", "gateway_ip": "10.0.0.1"]
        ],
        "vif_type": "ovs",
        "metadata_port": [
            "id": "eeeeeeee-0000-0000-0000-000000000001", "mac_address": "fa:16:3e:00:00:02",
            "fixed_ips": [["ip_address": "10.0.0.2", "cidr": "10.0.0.0/24"]],
        ],
        "tag": nil, "port_security_enabled": true,
    ]

    static func document(_ changes: JSONObject = [:]) -> JSONValue {
        var document: JSONObject = [
            "id": .string(serverID), "name": "web", "project_id": "p", "user_id": "u", "generation": 1, "epoch": 1,
            "power": "running", "operation": nil, "vcpus": 1, "memory_mb": 128, "root_gb": 1, "ephemeral_gb": 0,
            "swap_mb": 0, "extra_specs": [:], "hardware_checked": true,
            "image": [
                "id": "ffffffff-0000-0000-0000-000000000001", "checksum": "abc", "os_hash_algo": "sha512",
                "os_hash_value": "def", "disk_format": "qcow2", "size": 1000, "min_disk": 0, "properties": [:],
            ],
            "volumes": [], "ports": [port],
            "metadata": [
                "uuid": .string(serverID), "hostname": "web.novalocal", "name": "web", "launch_index": 0,
                "availability_zone": "nova", "public_keys": ["mykey": "ssh-ed25519 AAAA me\n"], "meta": ["a": "b"],
            ],
            "network_data": [:], "user_data": "IyEvYmluL3NoCg==", "config_drive": false, "hostname": "web",
        ]
        for (name, value) in changes.members { document[name] = value }
        return .object(document)
    }

    static func server(_ changes: JSONObject = [:]) throws -> DesiredServer {
        try DesiredServer.decode(document(changes))
    }
}
