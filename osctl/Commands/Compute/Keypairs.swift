import ArgumentParser
import Client
import JSON
import ServiceCatalog

enum Keypairs: Noun {
    static let kind = Kind(
        command: ["keypair"], noun: "keypair", service: .compute, path: "/os-keypairs", member: "keypair",
        collection: "keypairs", microversion: Servers.microversion, naming: .byPath, idField: "name",
        columns: [
            OutputColumn("Name", "keypair.name"), OutputColumn("Type", "keypair.type"), OutputColumn("Fingerprint", "keypair.fingerprint"),
        ])
    static let verbs: [any ParsableCommand.Type] = [List<Self>.self, Show<Self>.self, Create.self, Delete<Self>.self]

    /// Since 2.92 the user provides the key; without one, an older version of the API generates the pair.
    struct Create: APICommand {
        static let configuration = CommandConfiguration(
            abstract: "Import a public key, or generate a key pair.",
            discussion: """
                Without --public-key, the cloud generates the pair and the private key is printed once. Save it: the \
                cloud does not store it.
                """)
        @Argument(help: "The keypair's name.") var name: String
        @Option(help: ArgumentHelp("A file with the public key, such as ~/.ssh/id_ed25519.pub.", valueName: "file"), completion: .file())
        var publicKey: String?
        @Option(
            help: ArgumentHelp("Write the private key to this new file instead of printing it.", valueName: "file"), completion: .file())
        var privateKey: String?
        @Option(help: "ssh, or x509: a certificate for guests with Windows.") var type = "ssh"
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        private static let lastGeneratingVersion = "2.91"

        func execute(_ api: CloudAPI) async throws {
            if let privateKey, Machine.exists(privateKey) {
                throw CommandFailure("The file \(privateKey) already exists and is not overwritten.")
            }
            var members: JSONObject = ["name": .string(name), "type": .string(type)]
            if let publicKey {
                let text = try UserFile.text(publicKey)
                members["public_key"] = .string(type == "ssh" ? text.split(whereSeparator: \.isNewline).first.map(String.init) ?? "" : text)
            }
            let answer = try await api.client.post(
                .compute, kind.path, kind.body(members), microversion: publicKey == nil ? Create.lastGeneratingVersion : kind.microversion)
            let keypair = try kind.object(answer)
            guard let key = keypair["private_key"]?.stringValue else {
                print(try output.object(keypair, fields: nil), terminator: "")
                return
            }
            if let privateKey {
                try Machine.write(privateKey, key, mode: 0o600)
                Machine.write(to: 2, "The private key is in \(privateKey).\n")
            } else if output.format == .table {
                print(key, terminator: key.hasSuffix("\n") ? "" : "\n")
            } else {
                print(try output.object(keypair, fields: nil), terminator: "")
            }
        }
    }
}
