"""BLAKE3 in plain Python, one function: slow, and independent of the libraries that the server uses.

Source: the BLAKE3 paper, sections 2.1 to 2.5 (no keyed mode, no extendable output).
"""

import struct

_IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT = 1, 2, 4, 8
_MASK = 0xFFFFFFFF


def _compress(chaining, words, counter, length, flags):
    v = list(chaining) + list(_IV[:4]) + [counter & _MASK, counter >> 32, length, flags]
    m = list(words)

    def rotate(x, n):
        return ((x >> n) | (x << (32 - n))) & _MASK

    def mix(a, b, c, d, x, y):
        v[a] = (v[a] + v[b] + x) & _MASK
        v[d] = rotate(v[d] ^ v[a], 16)
        v[c] = (v[c] + v[d]) & _MASK
        v[b] = rotate(v[b] ^ v[c], 12)
        v[a] = (v[a] + v[b] + y) & _MASK
        v[d] = rotate(v[d] ^ v[a], 8)
        v[c] = (v[c] + v[d]) & _MASK
        v[b] = rotate(v[b] ^ v[c], 7)

    for _ in range(7):
        for i in range(4):
            mix(i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1])
        for i in range(4):
            mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i])
        m = [m[p] for p in _PERMUTATION]
    return tuple(v[i] ^ v[i + 8] for i in range(8))


def _node(data, first_chunk, root):
    """The chaining value of the subtree over `data`, whose first chunk has number `first_chunk`."""
    if len(data) <= 1024:
        chaining = _IV
        blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
        for i, block in enumerate(blocks):
            flags = (_CHUNK_START if i == 0 else 0) | (_CHUNK_END if i == len(blocks) - 1 else 0)
            if root and i == len(blocks) - 1:
                flags |= _ROOT
            words = struct.unpack("<16I", block.ljust(64, b"\0"))
            chaining = _compress(chaining, words, first_chunk, len(block), flags)
        return chaining
    chunks = (len(data) + 1023) // 1024
    left_chunks = 1 << ((chunks - 1).bit_length() - 1)
    left = _node(data[: left_chunks * 1024], first_chunk, False)
    right = _node(data[left_chunks * 1024 :], first_chunk + left_chunks, False)
    return _compress(_IV, left + right, 0, 64, _PARENT | (_ROOT if root else 0))


def blake3_hex(data):
    return struct.pack("<8I", *_node(bytes(data), 0, True)).hex()


# The empty input is the one vector everybody knows by heart.
assert blake3_hex(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
