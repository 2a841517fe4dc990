"""Decodes HPACK blocks with python3-hpack, for test/http2/hpack-peer.test.ts.

Each line of input is a connection: blocks in hexadecimal, separated by commas. The answer is one line of JSON: for each block
[fields in hexadecimal, octets in the table], and null in place of the first one that is a compression error.
"""

import json
import sys

from hpack import Decoder
from hpack.exceptions import HPACKError

for line in sys.stdin:
    decoder = Decoder(max_header_list_size=1 << 30)
    answer = []
    for block in line.rstrip("\n").split(","):
        try:
            fields = decoder.decode(bytes.fromhex(block), raw=True)
        # hpack 4.0.0 lets some errors of the octets through as they are.
        except (HPACKError, IndexError):
            answer.append(None)
            break
        named = [[bytes(name).hex(), bytes(value).hex()] for name, value in fields]
        answer.append([named, decoder.header_table._current_size])
    print(json.dumps(answer), flush=True)
