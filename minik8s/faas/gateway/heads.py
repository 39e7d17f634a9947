"""Heads of messages that were read lately. A peer mostly says what it said before, byte by byte: then nothing needs to
be parsed, and nothing can be understood otherwise than the first time. Pure.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

END: Final = b"\r\n\r\n"
LONGEST: Final = 2048  # bytes of a head that is remembered
KEPT: Final = 256  # heads; the one learnt first goes first
SMALL: Final = 16 * 1024  # bytes of what comes at once; of more the body would be copied once more than by the parser


class Head(Protocol):
    """What a head has been understood to be; `length`: of the body behind it, in bytes."""

    length: int | None


H = TypeVar("H", bound=Head)


class Heads(Generic[H]):
    """By the bytes of a whole head, the blank line included."""

    def __init__(self) -> None:
        self._known: dict[bytes, H] = {}

    def whole(self, data: bytes) -> tuple[H, bytes] | None:
        """What the head says, and the body, if `data` is one message to its last byte whose head is known."""
        end = data.find(END) + len(END)
        found = self._known.get(data[:end])
        if found is None or len(data) - end != found.length:
            return None
        return found, data[end:]

    def learn(self, data: bytes, head: H) -> None:
        """`data` begins with it; the parser may have passed over empty lines before it, and lines that end otherwise
        than they should. Of such we would not see where they end, so they are not remembered."""
        text = data[: data.find(END) + len(END)]
        lines = text.count(b"\r\n")
        clean = text.endswith(END) and text[:2] != b"\r\n" and text.count(b"\r") == text.count(b"\n") == lines
        if clean and len(text) <= LONGEST:
            if len(self._known) >= KEPT:
                del self._known[next(iter(self._known))]
            self._known[text] = head
