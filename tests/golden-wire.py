#!/usr/bin/env python3
"""Writes fixtures/wire, from docs/protocol.md and nothing of the code (little-endian)."""
import pathlib
import struct

WIRE = pathlib.Path(__file__).parent.parent / "fixtures" / "wire"
COOKIE = bytes(range(0xA0, 0xB0))
ALL = 2**64 - 1  # to the end of the file; unknown
SESSION, WINDOWS = 1, 2  # the flags of an extension
EXTENTS = 1  # what it accepts
NO_FOLLOW, BELOW = 1, 2  # those of a question


def question(operation, flags, offset=0, length=ALL, number=0, path=b""):
    """Operation, flags, number, length of the path, offset, length, path. In a request, the path is elsewhere."""
    return struct.pack("<HHHHQQ", operation, flags, number, len(path), offset, length) + path


def request(asked, version=1, flags=0, accepts=0):
    """Reply queue, path, NUL; at the next multiple of 8: magic, version, flags, accepts, cookie, question."""
    return struct.pack("<i4s8sHHI16s", 7, b"abc", b"mqfs-req", version, flags, accepts, COOKIE) + asked


def entry(kind, mode, size, mtime, errno, device, inode, offset, length, owner, special=0, name=b"", target=b""):
    """Magic, version, kind, mode, size, mtime (s, ns), errno, device, inode, offset, length, then uid, gid and
    links, special, the lengths of name and target, reserved, name, target."""
    return (
        struct.pack("<8sHHIQqIi", b"mqfs-met", 1, kind, mode, size, *mtime, errno)
        + struct.pack("<QQQQIIQ", device, inode, offset, length, *owner)
        + struct.pack("<QHHI", special, len(name), len(target), 0) + name + target
    )


def end(checksum, count, flags=0):
    """Magic, version, flags, CRC-32, bytes."""
    return struct.pack("<8sHHIQ", b"mqfs-end", 1, flags, checksum, count)


def failure(text, errno, cookie=b""):
    """Text, NUL, to the next multiple of 8, then magic, version, reserved, errno, cookie."""
    return text.ljust((len(text) + 8) // 8 * 8, b"\0") + struct.pack("<8sHHi", b"mqfs-err", 1, 0, errno) + cookie


def window(segment, offset, length, padding):
    """Segment, offset, length, reserved, then padding."""
    return struct.pack("<iIII", segment, offset, length, 0) + bytes(padding)


def frame(kind, number, text):
    """Length, type, number of the question, text."""
    return struct.pack("<IHH", len(text), kind, number) + text


NEVER, THEN, OWNER = (0, 0), (1700000000, 5), (1000, 100, 1)
file = entry(1, 0o100644, 5000, THEN, 0, 0xFE01, 42, 1000, 4000, OWNER)
link = entry(3, 0o120777, 6, THEN, 0, 0xFE01, 43, 0, ALL, OWNER, 0, b"link", b"../abc")
golden = {
    # i32 reply queue, path, NUL, then padding to the size of the field
    "request-plain-260": struct.pack("<i256s", 7, b"/etc/hostname"),
    "request-plain-4100": struct.pack("<i4096s", 7, b"/etc/hostname"),
    "request-plain-short": struct.pack("<i", 7) + b"/etc/hostname\0",
    "request-version-9": request(question(3, 0), version=9),
    "request-windows": request(question(1, 0), flags=SESSION | WINDOWS),
    "request-extents": request(question(1, 0), accepts=EXTENTS),
    "request-below": request(question(2, BELOW)),
    # magic, version, reserved, pid, start time, pid and time namespace, cookie, request queue, reserved
    "lease": struct.pack(
        "<8sHHiQQQ16siI", b"mqfs-own", 1, 0, 4711, 123456789, 0xEFFFFFFC, 0xEFFFFFFA, COOKIE, 1000, 0
    ),
    "meta-file": file,
    "meta-proc": entry(1, 0o100444, 0, (-1, 0), 0, 23, 99, 0, ALL, OWNER),
    "entry-link": link,
    "entry-device": entry(6, 0o020666, 0, THEN, 0, 5, 4, 0, ALL, (0, 0, 1), 0x103, b"null"),
    "entry-unknown": entry(0, 0, 0, NEVER, 13, 0, 0, 0, ALL, (0, 0, 0), 0, b"a\nb\xff"),
    "end": end(0xCBF43926, 9),
    "end-changed": end(0, 0, flags=1),
    "failure": failure(b"Permission denied", 13),
    "failure-request": failure(b"Permission denied", 13, COOKIE),
    "failure-plain": b"Permission denied\0\0\0\0\0\0\0",
    "window": window(32769, 0x26000, 155648, 3000),
    # hole and data of one extent, and a hole at the end
    "extents": struct.pack("<QQQQ", 2**40, 5000, 2**62, 0),
    # the answers to a fetch, to one that failed, to a stat; a fetch in shared memory; a farewell
    "frames": frame(4, 0, file) + frame(2, 0, b"1234") + frame(2, 0, b"56789")
    + frame(3, 0, end(0xCBF43926, 9)) + frame(1, 1, failure(b"Permission denied", 13))
    + frame(4, 2, link) + frame(3, 2, end(0, 0)) + frame(4, 3, file)
    + frame(6, 3, window(32769, 0x26000, 155648, 3000)) + frame(3, 3, end(0xCBF43926, 155648))
    + frame(5, 0, struct.pack("<Q", 4)),
}
for name, asked in {
    "fetch": (1, 0, 0, ALL),
    "range": (1, 0, 4096, 100),
    "stat": (2, 0),
    "stat-link": (2, NO_FOLLOW),
    "list": (3, 0),
    "enter": (4, 0),
    "unknown": (9, 0x8000),
}.items():
    golden[f"request-{name}"] = request(question(*asked))
    golden[f"request-{name}-session"] = request(question(*asked), flags=SESSION)
    golden[f"question-{name}"] = question(*asked, path=b"abc")
    below = asked[0], asked[1] | BELOW, *asked[2:]
    golden[f"question-{name}-below"] = question(*below, number=0x0102, path=b"a/\xff")

for old in WIRE.glob("*.bin"):
    old.unlink()
for name, text in golden.items():
    (WIRE / f"{name}.bin").write_bytes(text)
