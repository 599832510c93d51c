"""Disk images made of bytes: valid ones, and hostile ones that attack the program that opens them (see Shared/TestKit/HostileImages.swift)."""

import struct

MIB, GIB = 1 << 20, 1 << 30


def put(image, offset, data):
    image[offset : offset + len(data)] = data


def extension(kind, text):
    data = text.encode()
    return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def qcow2(size=MIB, incompatible=0, backing=None, extensions=b"", snapshots=0, crypt=0, version=3, entries=None):
    cluster = 65536
    image = bytearray(4 * cluster)
    entries = entries if entries is not None else max(1, min(1 << 31, -(-size // (8192 * cluster))))
    put(image, 0, struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 1024 if backing else 0, len(backing or ""), 16, size, crypt, entries, 3 * cluster,
        cluster, 1, snapshots, 0))
    put(image, 72, struct.pack(">QQQII", incompatible, 0, 0, 4, 112))
    put(image, 112, extensions)
    if backing:
        put(image, 1024, backing.encode())
    put(image, cluster, struct.pack(">Q", 2 * cluster))
    put(image, 2 * cluster, struct.pack(">4H", 1, 1, 1, 1))
    return bytes(image)


def qcow2_data_file(path):
    """Its first cluster is in the named file."""
    image = bytearray(qcow2(incompatible=4, extensions=extension(0x44415441, path))) + bytearray(65536)
    put(image, 3 * 65536, struct.pack(">Q", 4 * 65536 | 1 << 63))
    put(image, 4 * 65536, struct.pack(">Q", 1 << 63))
    put(image, 2 * 65536 + 8, struct.pack(">H", 1))
    return bytes(image)


def descriptor(kind="monolithicSparse", parent="ffffffff", more="", extents='RW 20480 SPARSE "disk.vmdk"'):
    return (
        f'# Disk DescriptorFile\nversion=1\nCID=bc609ba4\nparentCID={parent}\ncreateType="{kind}"\n{more}\n'
        f"# Extent description\n{extents}\n\n# The Disk Data Base\n#DDB\n\n"
    ).encode()


def vmdk(text=None, capacity=20480):
    image = bytearray(128 * 512)
    put(image, 0, struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", 1, 3, capacity, 128, 1, 20, 512, 21, 21, 128, 0, b"\n \r\n", 0))
    put(image, 512, text or descriptor())
    return bytes(image)


def flat(path, sectors=128):
    text = descriptor("monolithicFlat", extents=f'RW {sectors} FLAT "{path}" 0')
    return text + b"\0" * (4096 - len(text))


def vdi(size=10 * MIB, kind=1, parent=b""):
    image = bytearray(1024)
    put(image, 0x40, struct.pack("<IIII", 0xBEDA107F, 0x10001, 0x180, kind))
    put(image, 0x154, struct.pack("<II", 512, 1024))
    put(image, 0x168, struct.pack("<I", 512))
    put(image, 0x170, struct.pack("<QIII", size, MIB, 0, 10))
    put(image, 0x1B8, parent)
    put(image, 512, b"\xff" * 40)
    return bytes(image)


def vhd(size=10 * MIB, kind=3, creator=b"win ", geometry=(301, 4, 17), last=None):
    def footer(size, geometry):
        data = bytearray(512)
        put(data, 0, struct.pack(">8sIIQI4sII", b"conectix", 2, 0x10000, 512, 0, creator, 0, 0))
        put(data, 40, struct.pack(">QQHBBI", size, size, *geometry, kind))
        put(data, 64, struct.pack(">I", ~sum(data) & 0xFFFFFFFF))
        return bytes(data)

    header = bytearray(1024)
    put(header, 0, struct.pack(">8sQQIII", b"cxsparse", (1 << 64) - 1, 1536, 0x10000, 5, 2 * MIB))
    return footer(size, geometry) + bytes(header) + b"\xff" * 20 + bytes(492) + (last or footer(size, geometry))


def partitioned(image):
    """With a partition table (MBR, GPT), which makes a disk of it for one reader; the rest is an image for another."""
    image = bytearray(image)
    put(image, 510, b"\x55\xaa")
    put(image, 512, b"EFI PART")
    return bytes(image)


def sound():
    """Name, format and size of the disk in the image."""
    return [
        ("raw", "raw", b"a disk of text".ljust(4096, b"\0"), 4096),
        ("qcow2", "qcow2", qcow2(), MIB),
        ("vmdk", "vmdk", vmdk(), 10 * MIB),
        ("vdi", "vdi", vdi(), 10 * MIB),
        ("vhd", "vhd", vhd(), 10 * MIB),
    ]


def hostile(canary):
    """Name, `disk_format` and bytes. Images that really refer to the canary come first."""
    def changed(image, offset, kind, value):
        image = bytearray(image)
        put(image, offset, struct.pack(kind, value))
        return bytes(image)

    fields = [  # of a qcow2 header
        ("version 1", 4, ">I", 1), ("version 4", 4, ">I", 4), ("clusters of 2 bytes", 20, ">I", 1),
        ("clusters of 2^63 bytes", 20, ">I", 63), ("no size", 24, ">Q", 0), ("an odd size", 24, ">Q", MIB + 1),
        ("2^63 bytes", 24, ">Q", 1 << 63), ("2^64 - 1 bytes", 24, ">Q", (1 << 64) - 1), ("AES", 32, ">I", 1),
        ("a table outside", 40, ">Q", 1 << 40), ("a table at the end of the address space", 40, ">Q", (1 << 64) - 65536),
        ("reference counts outside", 48, ">Q", 1 << 40), ("4 billion clusters of reference counts", 56, ">I", (1 << 32) - 1),
        ("a corrupt bit", 72, ">Q", 2), ("a raw data file", 88, ">Q", 2), ("an unknown autoclear feature", 88, ">Q", 4),
        ("reference counts of 2^32 bits", 96, ">I", 32),
    ]
    others = [
        ("VMDK of 1 EiB", "vmdk", vmdk(capacity=1 << 51)),
        ("VMDK with an unknown flag", "vmdk", changed(vmdk(), 8, "<I", 1 << 30)),
        ("VMDK grains of 2^40 sectors", "vmdk", changed(vmdk(), 20, "<Q", 1 << 40)),
        ("VMDK grain directory outside", "vmdk", changed(vmdk(), 56, "<Q", 1 << 30)),
        ("VHD of 1 EiB", "vhd", vhd(size=1 << 60)),
        ("VDI of 1 EiB", "vdi", vdi(size=1 << 60)),
        ("VDI map outside", "vdi", changed(vdi(), 0x154, "<I", 1 << 30)),
        ("VDI blocks of 1 byte", "vdi", changed(vdi(), 0x178, "<I", 1)),
        ("qcow2 header only", "qcow2", qcow2()[:65536]),
        ("half a qcow2 header", "qcow2", qcow2()[:60]),
    ]
    comment = descriptor(parent="bc609ba4", more=f'# note: parentFileNameHint="{canary}.flat"')
    return [
        ("parent in a VMDK comment", "vmdk", vmdk(comment)),
        ("flat extent in a raw image", "raw", flat(canary)),
        ("qcow2 backing file", "qcow2", qcow2(backing=canary, extensions=extension(0xE2792ACA, "raw"))),
        ("qcow2 data file", "qcow2", qcow2_data_file(canary)),
        ("flat extent", "vmdk", flat(canary)),
        ("VMDK of capacity 0", "vmdk", vmdk(flat(canary)[:2000], capacity=0)),
        ("VMDK extent with a path", "vmdk", vmdk(descriptor(extents=f'RW 20480 SPARSE "{canary}"'))),
        ("VMDK larger than its extent", "vmdk", vmdk(capacity=40960)),
        ("COWD", "vmdk", b"COWD" + bytes(4092)),
        ("qcow2 JSON backing file", "qcow2", qcow2(backing='json:{"driver":"file","filename":"%s"}' % canary)),
        ("qcow2 of 1 EiB", "qcow2", qcow2(size=1 << 60)),
        ("qcow2 with a small table", "qcow2", qcow2(size=1 << 40, entries=1)),
        ("qcow2 with a huge table", "qcow2", qcow2(entries=(1 << 32) - 1)),
        ("qcow2 with snapshots", "qcow2", qcow2(snapshots=1 << 20)),
        ("qcow2 encrypted", "qcow2", qcow2(crypt=2)),
        ("qcow2 with an unknown feature", "qcow2", qcow2(incompatible=1 << 40)),
        ("qcow2 as raw", "raw", qcow2(backing=canary)),
        ("qcow2 as iso", "iso", qcow2(backing=canary)),
        ("VHD differencing", "vhd", vhd(kind=4)),
        ("VHD with another geometry", "vhd", vhd(creator=b"vpc ", geometry=(65000, 16, 255))),
        ("VHD with two footers", "vhd", vhd(last=vhd(size=20 * GIB)[:512])),
        ("VDI with a parent", "vdi", vdi(parent=b"\x01" * 16)),
        ("VDI larger than its blocks", "vdi", vdi(size=20 * GIB)),
        ("VDI differencing", "vdi", vdi(kind=4)),
        ("QED", "raw", b"QED\0" + bytes(4092)),
        ("LUKS", "raw", b"LUKS\xba\xbe\0\x01" + bytes(4088)),
        ("parallels", "raw", b"WithoutFreeSpace" + bytes(4080)),
        ("VHDX as raw", "raw", b"vhdxfile" + bytes(4088)),
        ("GPT and qcow2", "raw", partitioned(qcow2(backing=canary))),
        ("GPT and qcow2 data file", "raw", partitioned(qcow2_data_file(canary))),
        ("MBR and flat extent", "raw", partitioned(flat(canary))),
        ("GPT and VDI", "raw", partitioned(vdi())),
        ("GPT and VMDK", "raw", partitioned(vmdk())),
        ("GPT and QED", "raw", partitioned(b"QED\0" + bytes(4092))),
        ("GPT and LUKS", "raw", partitioned(b"LUKS\xba\xbe\0\x01" + bytes(4088))),
        *((f"qcow2 with {name}", "qcow2", changed(qcow2(), offset, kind, value)) for name, offset, kind, value in fields),
        *others,
    ]
