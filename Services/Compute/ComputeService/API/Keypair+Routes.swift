import Authorization
import ComputeCore
import Cryptography
import Database
import JSON
import Kernel
import WebAPI

extension ResourceKind {
    static let keypairs = ResourceKind(
        "keypair",
        table: Table(
            "keypairs t", key: "t.name", keyType: .text, defaultSort: [("name", false)],
            fields: [
                Field("name", sortable: true), Field("public_key"), Field("fingerprint"), Field("type", versions: .from(2)),
                Field("user_id"), Field("id", .number), Field("created_at", .timestampMicroseconds),
                Field("deleted", .boolean, "false"), Field("deleted_at", .json, "NULL"), Field("updated_at", .json, "NULL"),
            ]),
        envelope: .nested, visibility: Visibility { "t.user_id = \(try $0.caller.userID)" },
        grammar: .compute(ignoring: ["user_id"], hasFields: false), pages: .next.from(Microversion(2, 35)), bytesPerRow: 1536
    ) { .notFound("Keypair \($0.prefix(255)) not found") }

    /// The fields in lists.
    static let keypairSummaries = keypairs.showing(["name", "public_key", "fingerprint", "type"])
}

/// Key pairs: public keys that users keep for their servers.
struct KeypairRoutes: Sendable {
    let compute: Compute

    private static let path = "/v2.1/os-keypairs"

    var resource: Resource {
        let path = KeypairRoutes.path
        return Resource(
            "keypair",
            routes: [
                Route(
                    .get, path, action: "os_compute_api:os-keypairs:index", rule: "rule:admin_or_owner", answer: .list(.keypairSummaries),
                    "List key pairs", handler: list),
                Route(
                    .post, path, action: "os_compute_api:os-keypairs:create", rule: "rule:admin_or_owner",
                    body: .json(KeypairRoutes.schema), status: 201, "Import or generate a key pair", handler: create),
                Route(
                    .get, path + "/{keypair_name}", action: "os_compute_api:os-keypairs:show", rule: "rule:admin_or_owner",
                    answer: .one(.keypairs), "Show a key pair", handler: show),
                Route(
                    .delete, path + "/{keypair_name}", action: "os_compute_api:os-keypairs:delete", rule: "rule:admin_or_owner",
                    status: 204, "Delete a key pair", handler: delete),
            ])
    }

    private static let schema = BodySchema.wrapped(
        "keypair",
        .object([
            .init("name", .trimmedName, required: true), .init("public_key", .nullable(.text(16_384)), versions: .through(91)),
            .init("public_key", .text(16_384), required: true, versions: .from(92)),
            .init("type", .enumeration(["ssh", "x509"]), versions: .from(2)),
            .init("user_id", .nullable(.text), versions: .from(10)),
        ]))

    /// The owner of the key pairs: the caller, or since 2.10 another user if policy allows it.
    private func user(_ context: RequestContext, _ asked: String?) throws -> Authorized<String> {
        let caller = try context.caller
        let user = context.version(atLeast: 2, 10) ? asked ?? caller.userID : caller.userID
        return try context.authorize(user, target: ["user_id": user])
    }

    private func list(_ context: RequestContext) async throws -> Response {
        let user = try user(context, context.query["user_id"]).value
        let request = try ResourceKind.keypairSummaries.listRequest(context)
        return try await compute.database.read {
            try ResourceKind.keypairSummaries.list($0, context, request, scope: "t.user_id = \(user)").response
        }
    }

    private static func missing(_ name: String, _ user: String) -> ResourceError {
        .notFound("Keypair \(name.prefix(255)) not found for user \(user)")
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let user = try user(context, context.query["user_id"]).value
        let name = context.parameter("keypair_name")
        return try await compute.database.read { connection in
            let condition: SQL = "t.user_id = \(user) AND t.name = \(name)"
            guard let found = try ResourceKind.keypairs.oneOrNone(connection, context, where: condition) else {
                throw KeypairRoutes.missing(name, user)
            }
            return found.response
        }
    }

    private func create(_ context: RequestContext) async throws -> Response {
        let keypair = context.body["keypair"] ?? [:]
        let user = try user(context, keypair["user_id"]?.stringValue).value
        let name = keypair["name"]?.stringValue ?? ""
        try KeypairRoutes.check(name: name, modern: context.version(atLeast: 2, 92))
        let type = KeypairStore.KeyType(rawValue: keypair["type"]?.stringValue ?? "") ?? .ssh
        // Stored unchanged, including a trailing newline; otherwise Terraform would see a different key than it sent.
        var publicKey = keypair["public_key"]?.stringValue ?? ""
        var privateKey: String?
        if publicKey.isEmpty {
            guard keypair["public_key"]?.stringValue == nil, !context.version(atLeast: 2, 92) else {
                throw ResourceError.badRequest("Invalid input for field/attribute public_key. It must not be empty.")
            }
            (publicKey, privateKey) = try await generate(type, user: user)
        }
        let fingerprint = try type.fingerprint(of: publicKey)
        let now = compute.ambient.now
        let (stored, generated) = (publicKey, privateKey)
        let project = try context.caller.projectID
        let draft = KeypairStore.Draft(user: user, name: name, type: type, fingerprint: fingerprint, publicKey: stored)
        let decision = try context.authorize(draft, target: ["user_id": user])
        return try await context.write(compute.database) { connection in
            try KeypairStore.insert(connection, decision, limitsOf: project, quota: compute.quota, at: now)
            var answer: JSONObject = [
                "name": .string(name), "public_key": .string(stored), "fingerprint": .string(fingerprint),
                "user_id": .string(user),
            ]
            if context.version(atLeast: 2, 2) { answer["type"] = .string(type.rawValue) }
            if let generated { answer["private_key"] = .string(generated) }
            let status = context.version(atLeast: 2, 2) ? 201 : 200
            return Change(
                .json(status, ["keypair": .object(answer)]), "keypair", name,
                content: ["name": .string(name), "fingerprint": .string(fingerprint)], holdsSecret: generated != nil)
        }
    }

    private static func check(name: String, modern: Bool) throws {
        let extra: [UInt8] = modern ? [45, 95, 32, 64, 46] : [45, 95, 32]
        let fine =
            !name.isEmpty
            && name.utf8.allSatisfy {
                $0 >= 48 && $0 <= 57 || $0 >= 65 && $0 <= 90 || $0 >= 97 && $0 <= 122 || extra.contains($0)
            }
        guard fine else {
            throw ResourceError.badRequest("Keypair data is invalid: Keypair name contains unsafe characters: '\(name.prefix(64))'")
        }
    }

    private func generate(_ type: KeypairStore.KeyType, user: String) async throws -> (publicKey: String, privateKey: String) {
        if type == .ssh { return try generate(comment: "Generated-by-Wolke") }
        let ambient = compute.ambient
        let serial = ambient.random.next() >> 1
        let now = Int(ambient.now.seconds)
        let generated = try await KeypairRoutes.threads.run {
            try ClientCertificate(user: String(user.prefix(64)), serial: serial, notBefore: now, lifetime: KeypairRoutes.lifetime)
        }
        return (CertificateText.text(generated.certificate), generated.privateKey)
    }

    /// RSA keys are generated one at a time, because each occupies a processor for about 100 ms.
    private static let threads = WorkerThreads(name: "keys", count: 1)
    /// Ten years in seconds, as in Nova.
    private static let lifetime = 3650 * 86_400

    private func generate(comment: String) throws -> (publicKey: String, privateKey: String) {
        let key = try SigningKey(compute.ambient.random.bytes(SigningKey.byteCount))
        let publicKey = key.publicKey.bytes
        let file = SSHFormat.ed25519PrivateKey(
            seed: key.bytes, publicKey: publicKey, comment: comment,
            check: UInt32(truncatingIfNeeded: compute.ambient.random.next()))
        let text = "ssh-ed25519 \(Base64.encode(SSHFormat.ed25519Blob(publicKey: publicKey))) \(comment)"
        return (text, file)
    }

    private func delete(_ context: RequestContext) async throws -> Response {
        let user = try user(context, context.query["user_id"])
        let name = context.parameter("keypair_name")
        return try await context.write(compute.database) { connection in
            guard try KeypairStore.delete(connection, named: name, of: user) else { throw KeypairRoutes.missing(name, user.value) }
            return Change(.empty(context.version(atLeast: 2, 2) ? 204 : 202), "keypair", name)
        }
    }
}
