import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// The hardware types, and the conductors.
struct DriverRoutes: Sendable {
    let bareMetal: BareMetal

    var resource: Resource {
        let (all, one) = ("/v1/drivers", "/v1/drivers/{driver}")
        return Resource(
            "driver",
            routes: [
                Route(
                    .get, all, action: "baremetal:driver:get", rule: NodePolicy.admin,
                    answer: .form(.object([.required("drivers", .many(.object([], additional: .allowed)))])), "List drivers"
                ) { context in
                    try context.authorize(target: .none)
                    let types: [HardwareType]
                    switch context.query["type"] {
                    case nil, "", "dynamic": types = bareMetal.hardware.types
                    // Classic drivers are those before hardware types.
                    case "classic": types = []
                    case let type?:
                        throw ResourceError.badRequest("The parameter type must be classic or dynamic, not '\(type.prefix(64))'.")
                    }
                    let isDetailed = try context.query.flag("detail") ?? false
                    return .json(200, ["drivers": .array(types.map { DriverRoutes.document($0, context, isDetailed: isDetailed) })])
                },
                Route(
                    .get, one, action: "baremetal:driver:get", rule: NodePolicy.admin, answer: .form(.object([], additional: .allowed)),
                    "Show a driver"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(200, DriverRoutes.document(try type(context), context, isDetailed: true))
                },
                Route(
                    .get, one + "/properties", action: "baremetal:driver:get_properties", rule: NodePolicy.admin,
                    answer: .form(.textMap), "Show the settings that a driver needs for a node"
                ) { context in
                    try context.authorize(target: .none)
                    let type = try type(context)
                    return .json(200, .object(JSONObject(type.properties.map { ($0.name, .string($0.meaning)) })))
                },
                Route(
                    .get, "/v1/conductors", action: "baremetal:conductor:get", rule: NodePolicy.admin, versions: .minor(49),
                    answer: .form(.object([.required("conductors", .many(.object([], additional: .allowed)))])), "List conductors"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(200, ["conductors": [conductor(context)]])
                },
                Route(
                    .get, "/v1/conductors/{hostname}", action: "baremetal:conductor:get", rule: NodePolicy.admin, versions: .minor(49),
                    answer: .form(.object([], additional: .allowed)), "Show a conductor"
                ) { context in
                    try context.authorize(target: .none)
                    guard context.parameter("hostname") == DriverRoutes.conductorName else {
                        throw ResourceError.notFound("Conductor \(context.parameter("hostname").prefix(64)) could not be found.")
                    }
                    return .json(200, conductor(context))
                },
            ])
    }

    /// Every replica works on all nodes, so clients see the replicas as one conductor.
    private static let conductorName = "wolke-bare-metal"

    private func conductor(_ context: RequestContext) -> JSONValue {
        [
            "hostname": .string(DriverRoutes.conductorName), "conductor_group": "", "alive": true,
            "drivers": JSONValue(bareMetal.hardware.types.map(\.name)), "created_at": nil, "updated_at": nil,
            "links": DriverRoutes.links(context, "conductors/\(DriverRoutes.conductorName)"),
        ]
    }

    private func type(_ context: RequestContext) throws -> HardwareType {
        let name = context.parameter("driver")
        guard let type = bareMetal.hardware.types.first(where: { $0.name == name }) else {
            throw ResourceError.notFound("Could not find the following driver(s) or hardware type(s): \(name.prefix(64)).")
        }
        return type
    }

    private static func document(_ type: HardwareType, _ context: RequestContext, isDetailed: Bool) -> JSONValue {
        var document: JSONObject = [
            "name": .string(type.name), "hosts": [.string(conductorName)], "links": links(context, "drivers/\(type.name)"),
        ]
        if context.version(atLeast: 1, 14) { document["properties"] = links(context, "drivers/\(type.name)/properties") }
        if context.version(atLeast: 1, 30) {
            document["type"] = "dynamic"
            for interface in HardwareInterface.allCases where isDetailed && context.version >= interface.since {
                document["default_\(interface.member)"] = .string(type.usual(interface))
                document["enabled_\(interface.rawValue)_interfaces"] = JSONValue(type.interfaces[interface] ?? [])
            }
        }
        return .object(document)
    }

    private static func links(_ context: RequestContext, _ path: String) -> JSONValue {
        [
            ["rel": "self", "href": .string("\(context.publicURL)/v1/\(path)")],
            ["rel": "bookmark", "href": .string("\(context.publicURL)/\(path)")],
        ]
    }
}
