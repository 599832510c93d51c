import Cryptography
import Kernel
import Testing

/// The published examples of each algorithm.
@Suite struct CryptographyTests {
    private func bytes(_ hex: String) throws -> [UInt8] { try #require(Hexadecimal.decode(hex)) }

    @Test(arguments: [
        (HashAlgorithm.md5, "900150983cd24fb0d6963f7d28e17f72"),
        (.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            .sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
    ]) func hashesOfABC(algorithm: HashAlgorithm, expected: String) {
        #expect(Hexadecimal.encode(algorithm.hash(Array("abc".utf8))) == expected)
        let pieces = IncrementalHash(algorithm)
        for piece in ["a", "", "bc"] { pieces.update(Array(piece.utf8)) }
        #expect(Hexadecimal.encode(pieces.finish()) == expected)
    }

    @Test("RFC 4231 and RFC 2202") func authenticationCodes() throws {
        let data = Array("what do ya want for nothing?".utf8)
        let key = Array("Jefe".utf8)
        #expect(
            Hexadecimal.encode(HashAlgorithm.sha256.authenticationCode(for: data, key: key))
                == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        #expect(
            Hexadecimal.encode(HashAlgorithm.sha1.authenticationCode(for: data, key: key)) == "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
        #expect(
            Hexadecimal.encode(HashAlgorithm.sha256.authenticationCode(for: [], key: []))
                == "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad")
    }

    @Test("RFC 5869, test cases 1 and 3") func derivedKeys() throws {
        let secret = [UInt8](repeating: 0x0b, count: 22)
        let key = try HashAlgorithm.sha256.deriveKey(
            from: secret, salt: try bytes("000102030405060708090a0b0c"), info: try bytes("f0f1f2f3f4f5f6f7f8f9"), count: 42)
        #expect(
            Hexadecimal.encode(key) == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
        let plain = try HashAlgorithm.sha256.deriveKey(from: secret, salt: [], info: [], count: 42)
        #expect(
            Hexadecimal.encode(plain) == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8")
        #expect(throws: CryptographyError.self) {
            try HashAlgorithm.sha256.deriveKey(from: secret, salt: [], info: [], count: 255 * 32 + 1)
        }
    }

    @Test("RFC 8439, section 2.8.2") func sealedData() throws {
        let key = try SealingKey(try bytes("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"))
        let text = Array(
            "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.".utf8)
        let (nonce, context) = (try bytes("070000004041424344454647"), try bytes("50515253c0c1c2c3c4c5c6c7"))
        let sealed = try key.seal(text, nonce: nonce, context: context)
        let expected =
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
            + "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116"
        #expect(Hexadecimal.encode(sealed) == Hexadecimal.encode(nonce) + expected + "1ae10b594f09e26a7e902ecbd0600691")
        #expect(try key.open(sealed, context: context) == text)
        #expect(try key.open(try key.seal([], nonce: nonce, context: []), context: []) == [])
        #expect(throws: CryptographyError.self) { try key.open(sealed, context: context + [0]) }
        #expect(throws: CryptographyError.self) { try key.open(Array(sealed.prefix(27)), context: context) }
        for place in [0, 12, sealed.count - 1] {
            var changed = sealed
            changed[place] ^= 1
            #expect(throws: CryptographyError.self) { try key.open(changed, context: context) }
        }
        #expect(throws: CryptographyError.self) { try key.seal(text, nonce: [1, 2, 3], context: []) }
        #expect(throws: CryptographyError.self) { try SealingKey([1, 2, 3]) }
    }

    @Test("RFC 8032, section 7.1, test 2") func signatures() throws {
        let key = try SigningKey(try bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
        #expect(Hexadecimal.encode(key.publicKey.bytes) == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        let signature = try key.signature(for: [0x72])
        #expect(
            Hexadecimal.encode(signature)
                == "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        )
        let verifier = try VerificationKey(key.publicKey.bytes)
        #expect(verifier.isValid(signature, for: [0x72]))
        #expect(!verifier.isValid(signature, for: [0x73]))
        #expect(!verifier.isValid(Array(signature.dropLast()), for: [0x72]))
        #expect(!verifier.isValid([], for: [0x72]))
        #expect(throws: CryptographyError.self) { try SigningKey([1]) }
    }
}
