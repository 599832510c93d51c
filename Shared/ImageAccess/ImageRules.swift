package import Authorization
import Kernel

/// The rules of the Image service by action, for its routes and for every service that decides who may use an image.
package enum ImageRules {
    private static let write = "rule:project_member_or_admin"
    private static let seen =
        "role:reader and (project_id:%(project_id)s or project_id:%(member_id)s or 'public':%(visibility)s or 'community':%(visibility)s)"
    private static let read = "rule:admin_required or (\(seen))"
    // Members decide about their own membership; other projects that can see the image do not.
    private static let member = "rule:admin_required or (role:member and project_id:%(member_id)s)"

    /// The default rules, which the operator's `image.policy_file` can override.
    package static let defaults: [String: String] = [
        "get_images": "rule:admin_required or role:reader", "add_image": write, "get_image": read, "modify_image": write,
        "delete_image": write, "modify_image_tag": write, "delete_image_tag": write, "deactivate": write, "reactivate": write,
        "upload_image": write, "download_image": read, "download_deactivated_image": "rule:admin_required",
        "get_members": read, "add_member": write, "get_member": read, "modify_member": member, "delete_member": write,
        "publicize_image": "rule:admin_required", "communitize_image": write, "see_all_images": "rule:admin_required",
        "get_image_location": "!", "get_image_tasks": read, "import_image": write, "stage_image": write,
        "stores_info_detail": "rule:admin_required", "copy_image": "rule:admin_required", "delete_image_location": write,
        "add_task": "rule:admin_required",
        "cache_image": "rule:admin_required", "cache_list": "rule:admin_required", "cache_delete": "rule:admin_required",
        "cache_clean": "rule:admin_required", "cache_prune": "rule:admin_required",
    ].merging(open.map { ($0, "@") }) { $1 }
        .merging(definitionReads.map { ($0, definition) }) { $1 }.merging(definitionWrites.map { ($0, "rule:admin_required") }) { $1 }

    /// Public namespaces of metadata definitions, and those of the caller's project.
    private static let definition =
        "rule:admin_required or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"

    private static let definitionReads = [
        "get_metadef_namespaces", "get_metadef_namespace", "get_metadef_objects", "get_metadef_object", "get_metadef_properties",
        "get_metadef_property", "get_metadef_tags", "get_metadef_tag", "list_metadef_resource_types", "get_metadef_resource_type",
    ]

    private static let definitionWrites = [
        "add_metadef_namespace", "modify_metadef_namespace", "delete_metadef_namespace", "add_metadef_object", "modify_metadef_object",
        "delete_metadef_object", "add_metadef_property", "modify_metadef_property", "remove_metadef_property", "add_metadef_tag",
        "add_metadef_tags", "modify_metadef_tag", "delete_metadef_tag", "delete_metadef_tags",
        "add_metadef_resource_type_association", "remove_metadef_resource_type_association",
    ]

    /// Actions allowed to every caller, because their responses belong to no project.
    private static let open =
        [
            "get_tasks", "get_task", "get_import_info", "get_stores_info", "get_usage",
        ] + schemas.map { "get_schema_\($0)" }

    private static let schemas =
        ["image", "images", "member", "members", "task", "tasks"]
        + [
            "namespace", "namespaces", "object", "objects", "property", "properties", "resource_type", "resource_types", "tag", "tags",
        ].map { "metadefs_\($0)" }

    /// The default rule of an action; an action without a rule is denied.
    package static func rule(_ action: String) -> String { defaults[action] ?? "!" }

    /// The attributes of an image for its rules.
    ///
    /// - Parameter member: the caller's project, if it is a member of the image.
    package static func target(owner: String, visibility: String, member: String?) -> PolicyTarget {
        [
            "project_id": owner, "tenant_id": owner, "owner": owner, "member_id": visibility == "shared" ? member : nil,
            "visibility": visibility,
        ]
    }
}
