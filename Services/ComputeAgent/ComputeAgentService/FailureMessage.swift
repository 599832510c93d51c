import Commands
import ComputeAgentCore
import Glibc
import Kernel

/// Describes a failure on this host for the server's owner. The error itself, with its paths, addresses and the output of
/// tools, is for operators.
enum FailureMessage {
    /// - Parameter activity: the worker's activity, such as `making its disks`.
    static func message(_ error: any Error, during activity: String?) -> String {
        switch error {
        case let failure as PermanentFailure: return failure.reason
        case let error as FileError where [ENOSPC, EDQUOT].contains(error.number): return noRoom
        case let error as CommandError where error.output.contains("No space left on device"): return noRoom
        default: return activity.map { "an error on its host while \($0)" } ?? "an error on its host"
        }
    }

    private static let noRoom = "its host lacks disk space for the server's disks"
}

extension AgentAction {
    /// The action for tenants, after "while".
    var activity: String {
        switch self {
        case .fetch: "fetching its image"
        case .discard, .provision: "making its disks"
        case .keep, .restore, .grow: "resizing its disks"
        case .plug, .unplug: "connecting its ports"
        case .define, .undefine: "defining it"
        case .start, .complete: "starting it"
        case .suspend: "pausing it"
        case .resume: "resuming it"
        case .save, .discardSave: "suspending it"
        case .shutdown, .destroy: "stopping it"
        case .extendVolumes: "extending a volume"
        case .attachVolume: "attaching a volume"
        case .detachVolume: "detaching a volume"
        case .attachPort: "attaching an interface"
        case .detachPort: "detaching an interface"
        case .removeFiles: "removing its files"
        }
    }
}
