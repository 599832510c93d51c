import Kernel

/// A test guest that ends QEMU with a known exit code if, and only if, hardware virtualization really works.
///
/// `/dev/kvm` and libvirt's capabilities are not sufficient: on some hosts the firmware's first instructions run and a kernel's do not. The
/// probe therefore uses what a kernel uses: real mode, page tables, 64-bit long mode, SSE2, a locked 16-byte compare-and-exchange, a loop
/// of locked additions. Only then does it write the result to the debug port.
package enum KVMProbe {
    /// The value that the guest writes to port 0xf4.
    private static let answer = 0x2a
    /// `isa-debug-exit` ends QEMU with `answer * 2 + 1`.
    package static let expectedExitCode = answer * 2 + 1
    /// A working KVM needs a few hundredths of a second.
    package static let deadline = Duration.seconds(5)
    /// The firmware image that QEMU maps below 1 MiB: at least 64 KiB.
    private static let romSize = 65536
    private static let romBase = 0xf0000

    /*  The code at 0xf0000 (GNU as, Intel syntax):

        .code16                                        .code64
          cli; xor ax, ax                              long64:
          mov ds, ax; mov es, ax; mov ss, ax             mov eax, 0x10; mov ds, eax; mov es, eax; mov ss, eax
          mov sp, 0x7c00; cld                            mov edi, 0x8000; xor eax, eax; mov ecx, 16; rep stosb
          in al, 0x92; or al, 2; out 0x92, al            mov edi, 0x8000; xor edx, edx
          mov edi, 0x1000; mov cr3, edi                  movabs rbx, 0x1122334455667788
          xor eax, eax; mov ecx, 3072; rep stosd         movabs rcx, 0x99aabbccddeeff00
          mov dword ptr [0x1000], 0x2003                 lock cmpxchg16b [rdi]; jne fail
          mov dword ptr [0x2000], 0x3003                 cmp [rdi], rbx; jne fail; cmp [rdi+8], rcx; jne fail
          mov dword ptr [0x3000], 0x83                   movdqu xmm0, [rdi]; paddq xmm0, xmm0; movq rax, xmm0
          mov eax, cr4; or eax, 0x620; mov cr4, eax      add rbx, rbx; cmp rax, rbx; jne fail
          mov ecx, 0xc0000080; rdmsr                     xor eax, eax; mov ecx, 10000
          or eax, 0x100; wrmsr                         1: add eax, ecx; lock xadd [rdi], rax; dec ecx; jne 1b
          mov eax, cr0; and eax, ~4                      mov al, 0x2a; out 0xf4, al
          or eax, 0x80000003; mov cr0, eax             fail: hlt; jmp fail
          lgdt cs:[gdtr-0xf0000]                       gdt:  .quad 0, 0xaf9a000000ffff, 0xcf92000000ffff
          ljmp 0x08, long64                            gdtr: .word 23; .long gdt
    */
    private static let code = [
        "fa31c08ed88ec08ed0bc007cfce4920c02e69266bf001000000f22df6631c066b9000c000066f3ab66c7060010032000",
        "0066c70600200330000066c7060030830000000f20e0660d200600000f22e066b9800000c00f32660d000100000f300f",
        "20c06683e0fb660d030000800f22c02e0f0116100166ea7d000f000800b8100000008ed88ec08ed0bf0080000031c0b9",
        "10000000f3aabf0080000031d248bb887766554433221148b900ffeeddccbbaa99f0480fc70f753648391f753148394f",
        "08752bf30f6f07660fd4c066480f7ec04801db4839d8751631c0b91027000001c8f0480fc107ffc975f5b02ae6f4f4eb",
        "fd0f1f80000000000000000000000000ffff0000009aaf00ffff00000092cf001700f8000f00",
    ]

    /// The firmware image to give to QEMU's `-bios`.
    package static var rom: [UInt8] {
        var rom = [UInt8](repeating: 0, count: romSize)
        for (index, byte) in (Hexadecimal.decode(code.joined()) ?? []).enumerated() { rom[index] = byte }
        // The reset vector: a far jump to 0xf000:0.
        for (index, byte) in [UInt8]([0xea, 0x00, 0x00, 0x00, 0xf0]).enumerated() { rom[0xfff0 + index] = byte }
        return rom
    }

    /// QEMU's arguments for the probe with the given accelerator and processor.
    package static func arguments(accelerator: String, cpu: String, romPath: String) -> [String] {
        [
            "-accel", accelerator, "-cpu", cpu, "-M", "pc", "-m", "16", "-nodefaults", "-no-user-config", "-display",
            "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-bios", romPath,
        ]
    }
}
