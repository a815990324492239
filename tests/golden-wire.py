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
    "failure-plain.bin": b"Permission denied\0\0\0\0\0\0\0",
    # text, NUL, to the next multiple of 8, then magic, version, reserved, errno
    "failure.bin": b"Permission denied\0\0\0\0\0\0\0" + struct.pack("<8sHHi", b"mqfs-err", 1, 0, 13),
}
for name, text in golden.items():
    (WIRE / name).write_bytes(text)
