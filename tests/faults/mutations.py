"""Changes to the bytes of a valid file that keep what a parser looks at first: checksums, lengths and packing fit."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import zipfile
import zlib

NUMBERS = ("-1", "0", "1e999", "NaN", "9" * 30, "2147483648", "0.5", "true", "null", "1e-320")
WORDS = (
    '""',
    '"' + "a" * 5000 + '"',
    r'"\u0000"',
    r'"\ud800"',
    r'"\u202e"',
    '"../../x"',
    "[]",
    "{}",
    "[" * 3000,
    '"é"',
)
INTERESTING = (0, 1, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[A-Za-z_]+')
MOST = 1 << 20  # bytes of a changed file


def mutate(content: bytes, draw: random.Random) -> bytes:
    """One to four changes of `content`, by its format."""
    for _ in range(draw.randint(1, 4)):
        content = _once(content, draw)[:MOST]
    return content


def _once(content: bytes, draw: random.Random) -> bytes:
    if content and draw.random() < 0.6:
        for magic, change in FORMATS:
            if content.startswith(magic):
                try:
                    return change(content, draw)
                except Exception:  # it is no whole file of its format any more
                    break
        if _is_text(content):
            return _text(content, draw)
        if content[8:9] == b"{":
            return _safetensors(content, draw)
    return _bytes(content, draw)


def _bytes(content: bytes, draw: random.Random) -> bytes:
    data, at = bytearray(content), draw.randrange(len(content) + 1)
    how = draw.randrange(6)
    if how == 0 and data:
        data[at % len(data)] ^= 1 << draw.randrange(8)
    elif how == 1:
        width = draw.choice((1, 2, 4, 8))
        number = draw.choice(INTERESTING) % 256**width
        data[at : at + width] = number.to_bytes(width, draw.choice(("little", "big")))
    elif how == 2:
        del data[at : at + draw.randint(1, 64)]
    elif how == 3:
        data[at:at] = data[at : at + draw.randint(1, 64)]
    elif how == 4:
        del data[at:]
    else:
        data[at:at] = draw.randbytes(draw.randint(1, 8))
    return bytes(data)


def _is_text(content: bytes) -> bool:
    return not any(byte < 9 for byte in content[:200])


def _text(content: bytes, draw: random.Random) -> bytes:
    """One word, number or line replaced, repeated or left out."""
    found = list(TOKEN.finditer(content))
    if not found or draw.random() < 0.2:
        lines = content.splitlines(keepends=True)
        at = draw.randrange(len(lines)) if lines else 0
        lines[at : at + 1] = draw.choice(([], lines[at : at + 1] * 2, [b"\xff\xfe\n"], [b"\0\n"], [b"\n"]))
        return b"".join(lines)
    token = draw.choice(found)
    new = draw.choice((*NUMBERS, *WORDS)).encode()
    if draw.random() < 0.3:
        new = draw.choice(found)[0]
    return content[: token.start()] + new + content[token.end() :]


def _zip(content: bytes, draw: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = draw.choice(names)
        for name in names:
            inside = old.read(name)
            new.writestr(name, _once(inside, draw) if name == chosen else inside, draw.choice((0, 8)))
    return out.getvalue()


def _gzip(content: bytes, draw: random.Random) -> bytes:
    return gzip.compress(_once(gzip.decompress(content), draw), 1)


def _png(content: bytes, draw: random.Random) -> bytes:
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    which = draw.randrange(len(chunks))
    kind, inside = chunks[which]
    if kind == b"IDAT" and draw.random() < 0.5:
        inside = zlib.compress(_bytes(zlib.decompress(inside), draw))
    else:
        inside = _bytes(inside, draw)
    chunks[which] = (kind, inside)
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return content[:8] + b"".join(packed)


def _npy(content: bytes, draw: random.Random) -> bytes:
    (length,) = struct.unpack("<H", content[8:10])
    header = content[10 : 10 + length]
    new = draw.choice((b"(9999999999,)", b"(-1,)", b"()", b"(3, 0)", b"'|O'", b"'<f8'", b"'<U9'", b"'>i2'", b"True"))
    header = re.sub(draw.choice((rb"\([^)]*\)", rb"'[<>|=][^']*'", rb"False")), lambda _: new, header)
    return content[:8] + struct.pack("<H", len(header)) + header + content[10 + length :]


def _safetensors(content: bytes, draw: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = _text(content[8 : 8 + length], draw)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _tar(content: bytes, draw: random.Random) -> bytes:
    """A field of the first header, its checksum put right."""
    at, width = draw.choice(((0, 100), (124, 12), (156, 1), (157, 100), (345, 155)))
    head = bytearray(content[:512])
    head[at : at + width] = _bytes(bytes(head[at : at + width]), draw)[:width].ljust(width, b"\0")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + content[512:]


def nested(depth: int) -> bytes:
    """JSON that is nested deeper than any parser's stack."""
    return json.dumps({"a": 0}).encode().replace(b"0", b"[" * depth + b"]" * depth)


FORMATS = ((b"PK", _zip), (b"\x1f\x8b", _gzip), (b"\x89PNG", _png), (b"\x93NUMPY", _npy))
