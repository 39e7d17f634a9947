"""Header blocks of SPDY/3.1: names and values, packed by one zlib stream per direction that starts from a dictionary.

The dictionary is part of the protocol (SPDY/3.1, section 2.6.10.1): words with their length before them, then text.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from struct import pack, unpack_from

MAX_HEADERS = 64 * 1024  # bytes of one block, unpacked

_SPACED = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_WORDS = (*_SPACED.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _sized(text: bytes) -> bytes:
    return pack(">I", len(text)) + text


DICTIONARY = b"".join(_sized(word.encode()) for word in _WORDS) + _TEXT.encode()


class HeaderPacker:
    """One direction's outgoing blocks; their order matters, as each builds on those before it."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def pack(self, headers: Mapping[str, str]) -> bytes:
        pairs = (_sized(k.lower().encode("latin-1")) + _sized(v.encode("latin-1")) for k, v in headers.items())
        block = pack(">I", len(headers)) + b"".join(pairs)
        return self._zlib.compress(block) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderUnpacker:
    """One direction's incoming blocks. ValueError for what is none, or too large."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def unpack(self, data: bytes) -> dict[str, str]:
        """Names in lower case; a name's several values are joined by NUL, as on the wire."""
        try:
            block = self._zlib.decompress(data, MAX_HEADERS)
        except zlib.error as error:
            raise ValueError(f"headers that cannot be unpacked: {error}") from None
        if self._zlib.unconsumed_tail or len(block) < 4:
            raise ValueError(f"headers are cut, or longer than {MAX_HEADERS} bytes")
        texts, at = [], 4
        for _ in range(2 * unpack_from(">I", block)[0]):
            if at + 4 > len(block):
                raise ValueError("headers end too early")
            end = at + 4 + unpack_from(">I", block, at)[0]
            if end > len(block):
                raise ValueError("headers end too early")
            texts.append(block[at + 4 : end].decode("latin-1"))
            at = end
        return {name.lower(): value for name, value in zip(texts[::2], texts[1::2], strict=True)}
