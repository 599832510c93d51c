import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

extension Servers {
    /// Explains the state and the host of a server.
    struct Why: APICommand {
        static let configuration = CommandConfiguration(
            abstract: "Explain a server: its state, its fault, the scheduler's decision, the last action.",
            discussion: "Operators also see hosts; `-o json` prints the scheduler's record from the API.")
        @Argument(help: "The server.") var server: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let object = try await api.find(kind, server)
            let id = try kind.id(object)
            let record = try await scheduling(api, id)
            guard output.format == .table else {
                print(try output.object(record ?? [:], fields: nil), terminator: "")
                return
            }
            let newest = record?["scheduling"]?.arrayValue?.first
            let isNowhere = newest?["result"]?.stringValue == "rejected"
            // The decision is more precise than the fault that it caused.
            var text = state(object, fault: !isNowhere)
            if let newest {
                let time = newest["created_at"]?.stringValue ?? "?"
                text += "\nThe scheduler's decision of \(time): \(SchedulingText.outcome(newest))\n" + SchedulingText.steps(newest)
                if let now = record?["now"], !now.isNull {
                    text += "\nAsked now: \(SchedulingText.outcome(now))\n"
                }
            } else if record != nil {
                text += "\nThe scheduler has no record of this decision (it may have expired).\n"
            }
            print(text + (try await lastAction(api, id, details: !isNowhere)), terminator: "")
        }

        private func state(_ object: JSONValue, fault showsFault: Bool) -> String {
            let task = object["OS-EXT-STS:task_state"]?.stringValue.map { ", and it is \($0)" } ?? ""
            let host = object["OS-EXT-SRV-ATTR:host"]?.stringValue.map { " on \($0)" } ?? ""
            var text = "Server \(kind.title(object)) is \(object["status"]?.stringValue ?? "in no known state")\(host)\(task).\n"
            if showsFault, let fault = object["fault"], let message = fault["message"]?.stringValue {
                text += "Fault, at \(fault["created"]?.stringValue ?? "?"): \(message)\n"
                if let details = fault["details"]?.stringValue, !details.isEmpty { text += details + "\n" }
            }
            return text
        }

        /// Nil if the cloud does not support the request.
        private func scheduling(_ api: CloudAPI, _ id: String) async throws -> JSONValue? {
            do {
                return try await api.client.get(.compute, kind.path(id: id) + "/os-wolke-scheduling", microversion: kind.microversion)
            } catch let error as ResourceError where error.code == .notFound {
                return nil
            }
        }

        private func lastAction(_ api: CloudAPI, _ id: String, details showsDetails: Bool) async throws -> String {
            let actions = try await api.client.list(
                service: .compute, path: kind.path(id: id) + "/os-instance-actions", key: "instanceActions", microversion: kind.microversion
            )
            guard let last = actions.first, let request = last["request_id"]?.stringValue else { return "" }
            var text = "\nThe last action was \(last["action"]?.stringValue ?? "?") at \(last["start_time"]?.stringValue ?? "?")"
            text += last["message"]?.stringValue.map { ": \($0)\n" } ?? ".\n"
            let detail = try await api.client.get(
                .compute, kind.path(id: id) + "/os-instance-actions/\(request)", microversion: kind.microversion)
            for event in detail["instanceAction"]?["events"]?.arrayValue ?? [] {
                text += "  \(event["event"]?.stringValue ?? "?"): \(event["result"]?.stringValue ?? "not complete")\n"
                if showsDetails, let details = event["details"]?.stringValue { text += "    \(details)\n" }
            }
            return text
        }
    }

    /// `server create --dry-run`: asks the scheduler instead of creating the server.
    static func preview(_ options: CreateOptions, _ api: CloudAPI, _ output: OutputOptions) async throws -> Bool {
        guard options.dryRun else { return false }
        let answer = try await api.client.post(
            .compute, "/os-wolke-scheduling", try await body(options, api), microversion: microversion)
        let scheduling = answer["scheduling"] ?? .null
        if output.format == .table {
            print(SchedulingText.outcome(scheduling))
            print(SchedulingText.together(scheduling) + SchedulingText.steps(scheduling), terminator: "")
        } else {
            print(try output.object(scheduling, fields: nil), terminator: "")
        }
        let all = scheduling["servers"]?.arrayValue ?? [scheduling]
        guard all.allSatisfy({ $0["result"]?.stringValue == "scheduled" }) else { throw ExitCode(1) }
        return true
    }
}

/// Describes the scheduler's answers and records.
enum SchedulingText {
    /// A short description: the host, how many would fit, or why there is none.
    static func outcome(_ answer: JSONValue) -> String {
        guard answer["result"]?.stringValue == "scheduled" else { return answer["message"]?.stringValue ?? "No host was found." }
        let isTrial = answer["dry_run"]?.boolValue == true
        var text =
            answer["host"]?.stringValue.map { isTrial ? "It would go to \($0)." : "It goes to \($0)." }
            ?? (isTrial ? "There is a host for it." : "A host was found.")
        if let fits = answer["fits"]?.intValue {
            text += fits == 1 ? " One like it would fit now." : " \(fits) like it would fit now."
        }
        return isTrial ? text + " Nothing is claimed." : text
    }

    /// For several servers: how many would find a host, and which.
    static func together(_ answer: JSONValue) -> String {
        guard let servers = answer["servers"]?.arrayValue else { return "" }
        let placed = servers.filter { $0["result"]?.stringValue == "scheduled" }
        let share = placed.isEmpty ? "none" : placed.count == servers.count ? "all" : String(placed.count)
        var text = "Of \(servers.count) servers \(share) would find a host"
        var counts: [String: Int] = [:]
        for host in placed.compactMap({ $0["host"]?.stringValue }) { counts[host, default: 0] += 1 }
        if !counts.isEmpty {
            text += ": " + counts.sorted { $0.key < $1.key }.map { "\($0.value) on \($0.key)" }.joined(separator: ", ")
        }
        return text + ".\n"
    }

    /// The filters in order; for operators also the reason for each host.
    static func steps(_ answer: JSONValue) -> String {
        let filters = answer["filters"]?.arrayValue ?? []
        guard let first = filters.first else { return "" }
        var rows = [["(all hosts)", first["hosts_before"]?.intValue.map { String($0) } ?? "?", ""]]
        rows += filters.map { filter in
            let reasons = (filter["reasons"]?.objectValue?.members ?? []).map { "\($0.value.description) × \($0.name)" }
            return [
                filter["name"]?.stringValue ?? "?", filter["hosts_after"]?.intValue.map { String($0) } ?? "?",
                reasons.joined(separator: ", "),
            ]
        }
        var text = "\n" + TableText.list(["Filter", "Hosts left", "Refused"], rows)
        let notes = answer["operator"]?.arrayValue ?? []
        guard !notes.isEmpty else { return text }
        text +=
            "\n"
            + TableText.list(
                ["Host", "Refused by", "Because"],
                notes.map { note in ["host", "filter", "reason"].map { note[$0]?.stringValue ?? "" } })
        return text
    }
}
