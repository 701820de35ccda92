"""An answer's JSON in a third of its bytes, for radios.   beside: wire/answer.py   asked for: wire/request.py, link.py

Raw DEFLATE (RFC 1951) that begins with a dictionary both shores know: the words that every answer is made of. The
dictionary is part of the format (`docs/fragment-format.md`, section 7) and never changes.
"""

from __future__ import annotations

import zlib
from typing import Final

from splitcodec.errors import LinkGarbled
from splitcodec.wire.answer import MAX_BYTES

MEDIA_TYPE: Final = "application/x-brief"
"""What a shortened answer is called over HTTP."""
DICTIONARY: Final = (
    b'-large@4-small@3-tiny@2","level":01235679","score":0.,"box":[0.,0.]},{"index":,"label":""}],'
    b'"segment":{"size":[,],"png":"iVBORw0KGgoAAAANSUhEUgAAA","classes":[{"index":0,"label":"","share":0.}]}},'
    b'"answers":{"detect":[{"index":0,"label":"","score":0.,"detect":,"segment":,"p":0.0},{"index":'
    b'{"bundle":"efficientnet-lite0@5","level":4,"answers":{"classify":[{"index":1,"label":"","p":0.9}]},'
    b'"ms":{"decode":0.3,"decoder":10.1,"tail":6.1}}'
)


def shorten(answer: bytes) -> bytes:
    """Return an answer's JSON shortened."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return packer.compress(answer) + packer.flush()


def restore(data: bytes) -> bytes:
    """Return the JSON that was shortened, at most 1 MiB. Raises LinkGarbled for what `shorten` does not write."""
    opener = zlib.decompressobj(-zlib.MAX_WBITS, DICTIONARY)
    try:
        answer = opener.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise LinkGarbled(f"not a shortened answer: {data[:20].hex()} ({error}); is this an edge?") from None
    if len(answer) > MAX_BYTES:
        raise LinkGarbled(f"a shortened answer of more than {MAX_BYTES} bytes; is this an edge?")
    if not opener.eof or opener.unused_data:
        raise LinkGarbled(f"a shortened answer of {len(data)} bytes that ends too early or too late; is this an edge?")
    return answer
