import Authorization
import WebAPI

/// Snapshots of volumes in use that a storage driver asks Compute for, because the volumes are files on a file system of the hosts.
enum AssistedSnapshotRoutes {
    static let resource: Resource = {
        let path = "/v2.1/os-assisted-volume-snapshots"
        func route(_ method: Method, _ path: String, _ action: String, body: RouteBody = .none) -> Route {
            .unavailable(
                method, path, action: "os_compute_api:os-assisted-volume-snapshots:\(action)", rule: Rule.admin, body: body,
                "Storage drivers make no snapshots by Compute here: Block Storage makes those of attached volumes (POST /v3/snapshots)."
            ) { try $0.authorize(target: .none) }
        }
        return Resource(
            "assisted-volume-snapshot",
            routes: [
                route(.post, path, "create", body: .json(.wrapped("snapshot", .any))),
                route(.delete, path + "/{snapshot_id}", "delete"),
            ])
    }()
}
