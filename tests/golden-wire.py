#!/usr/bin/env python3
"""Writes fixtures/wire, from docs/protocol.md and nothing of the code (little-endian)."""
import pathlib
import struct

WIRE = pathlib.Path(__file__).parent.parent / "fixtures" / "wire"
COOKIE = bytes(range(0xA0, 0xB0))
ALL = 2**64 - 1  # to the end of the file; unknown

golden = {
    # i32 reply queue, path, NUL, then padding to the size of the field
    "request-plain-260.bin": struct.pack("<i256s", 98304, b"/etc/hostname"),
    "request-plain-4100.bin": struct.pack("<i4096s", 98304, b"/etc/hostname"),
    "request-plain-short.bin": struct.pack("<i", 98304) + b"/etc/hostname\0",
    # ... NUL, to the next multiple of 8, then magic, version, operation, flags, cookie, offset, length
    "request-whole.bin": struct.pack("<i20s", 98304, b"/etc/hostname")
    + struct.pack("<8sHHI16sQQ", b"mqfs-req", 1, 1, 0, COOKIE, 0, ALL),
    "request-range.bin": struct.pack("<i4s", 7, b"abc")
    + struct.pack("<8sHHI16sQQ", b"mqfs-req", 1, 1, 0, COOKIE, 4096, 100),
    # ... operation 2 has behind that: start and CRC-32 of what arrived, reserved
    "request-resume.bin": struct.pack("<i4s", 7, b"abc")
    + struct.pack("<8sHHI16sQQQII", b"mqfs-req", 1, 2, 0, COOKIE, 4096, ALL, 1000, 0xCBF43926, 0),
    # ... operation 3: whether links are followed, reserved
    "request-stat.bin": struct.pack("<i4s", 7, b"abc") + struct.pack("<8sHHI16sII", b"mqfs-req", 1, 3, 0, COOKIE, 1, 0),
    # ... operations 4 and 5: bytes and CRC-32 of what arrived, length of the path, reserved; the path
    "request-list.bin": struct.pack("<i4s", 7, b"abc")
    + struct.pack("<8sHHI16sQIHH", b"mqfs-req", 1, 4, 0, COOKIE, ALL, 0, 4, 0) + b"name",
    "request-tree.bin": struct.pack("<i4s", 7, b"abc")
    + struct.pack("<8sHHI16sQIHH", b"mqfs-req", 1, 5, 0, COOKIE, ALL, 0, 0, 0),
    "request-tree-rest.bin": struct.pack("<i4s", 7, b"abc")
    + struct.pack("<8sHHI16sQIHH", b"mqfs-req", 1, 5, 0, COOKIE, 1000, 0xCBF43926, 12, 0) + b"dir/sub/name",
    "request-version-9.bin": struct.pack("<i4s", 7, b"abc")
    + struct.pack("<8sHHI16s", b"mqfs-req", 9, 3, 5, COOKIE),
    # magic, version, reserved, pid, start time, pid and time namespace, cookie, request queue, reserved
    "lease.bin": struct.pack(
        "<8sHHiQQQ16siI", b"mqfs-own", 1, 0, 4711, 123456789, 0xEFFFFFFC, 0xEFFFFFFA, COOKIE, 1000, 0
    ),
    # magic, version, kind, mode, size, mtime (s, ns), reserved, device, inode, offset, length
    "meta.bin": struct.pack("<8sHHIQqIIQQQQ", b"mqfs-met", 1, 1, 0o100644, 5000, 1700000000, 5, 0, 0xFE01, 42, 1000, 4000),
    "meta-unknown-size.bin": struct.pack("<8sHHIQqIIQQQQ", b"mqfs-met", 1, 1, 0o100444, 0, -1, 0, 0, 23, 99, 0, ALL),
    # magic, version, flags, CRC-32, bytes
    "end.bin": struct.pack("<8sHHIQ", b"mqfs-end", 1, 0, 0xCBF43926, 9),
    "end-changed.bin": struct.pack("<8sHHIQ", b"mqfs-end", 1, 1, 0, 0),
    # length, type, reserved; META: ... then uid, gid, links, special, lengths of name and target, reserved, those
    "packed.bin": struct.pack("<IHH", 114, 4, 0)
    + struct.pack("<8sHHIQqIIQQQQ", b"mqfs-met", 1, 3, 0o120777, 6, 1700000000, 5, 0, 0xFE01, 43, 0, ALL)
    + struct.pack("<IIQQHHI", 1000, 100, 1, 0, 4, 6, 0) + b"link" + b"../abc"
    # DATA, END
    + struct.pack("<IHH", 9, 2, 0) + b"123456789"
    + struct.pack("<IHH", 24, 3, 0) + struct.pack("<8sHHIQ", b"mqfs-end", 1, 0, 0xCBF43926, 9),
    "failure-plain.bin": b"Permission denied\0\0\0\0\0\0\0",
    # text, NUL, to the next multiple of 8, then magic, version, reserved, errno
    "failure.bin": b"Permission denied\0\0\0\0\0\0\0" + struct.pack("<8sHHi", b"mqfs-err", 1, 0, 13),
}
for name, text in golden.items():
    (WIRE / name).write_bytes(text)
