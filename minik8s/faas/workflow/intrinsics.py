"""The intrinsic functions of the Amazon States Language, `States.Format('Hello {}', $.name)`. Pure.

What is random in the language is drawn from a source that the execution hands in, so that a run repeated after a crash
draws the same again.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import random
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from minik8s.faas.workflow.errors import INTRINSIC_FAILURE, StateError

LIMIT = 10_000  # characters that Base64 and Hash take
LONGEST = 1_000  # elements that ArrayRange makes
LARGEST = 2**63 - 1  # of whole numbers that functions take
DEEPEST = 10  # calls within calls
PREFIX = "States."

_TOKEN = re.compile(
    r"""\s*(?: (?P<call>States\.[A-Za-z0-9]+)\s*\(
         | (?P<string>'(?:[^'\\]|\\.)*')
         | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
         | (?P<word>null|true|false)
         | (?P<path>\$) )\s*""",
    re.VERBOSE,
)
# A path goes on to a comma, a parenthesis or a space that is in no brackets, where it may hold a filter.
_PATH_PART = re.compile(
    r"""(?P<open>[\[(]) | (?P<close>[\])]) | '(?:[^'\\]|\\.)*' | "(?:[^"\\]|\\.)*" | .""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"null": None, "true": True, "false": False}


class InvalidCall(ValueError):
    """The text is no call of an intrinsic function; says what is wrong."""


class Literal(NamedTuple):
    """`raw` is a string before its backslashes were resolved: Format looks for braces that are not escaped."""

    value: Any
    raw: str = ""


class Read(NamedTuple):
    path: str


class Called(NamedTuple):
    name: str
    arguments: tuple[Literal | Read | Called, ...]


Part = Literal | Read | Called


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Called:
    """Raises InvalidCall."""
    part, end = _parse(text, 0, 1)
    if not isinstance(part, Called) or end != len(text):
        raise InvalidCall(f"{text!r} is no call of an intrinsic function: unexpected {text[end:][:20]!r}")
    return part


def paths(call: Called) -> list[str]:
    """All paths that a call reads."""
    found = []
    for part in call.arguments:
        if isinstance(part, Read):
            found.append(part.path)
        elif isinstance(part, Called):
            found += paths(part)
    return found


def _parse(text: str, at: int, depth: int) -> tuple[Part, int]:
    token = _TOKEN.match(text, at)
    if token is None:
        raise InvalidCall(f"{text!r}: expected a string in single quotes, a number, a path or a call at {text[at:]!r}")
    if token["string"] is not None:
        raw = token["string"][1:-1]
        return Literal(re.sub(r"\\(.)", r"\1", raw), raw), token.end()
    if token["number"] is not None:
        return Literal(json.loads(token["number"])), token.end()
    if token["word"] is not None:
        return Literal(_WORDS[token["word"]]), token.end()
    if token["path"] is not None:
        return _parse_path(text, token.start("path"))
    return _parse_call(text, token["call"].removeprefix(PREFIX), token.end(), depth)


def _parse_path(text: str, at: int) -> tuple[Read, int]:
    end, depth = at, 0
    while (part := _PATH_PART.match(text, end)) is not None:
        if not depth and (part[0] in ",()" or part[0].isspace()):
            break
        depth += (part["open"] is not None) - (part["close"] is not None)
        end = part.end()
    following = end
    while text[following : following + 1].isspace():
        following += 1
    return Read(text[at:end]), following


def _parse_call(text: str, name: str, at: int, depth: int) -> tuple[Called, int]:
    if name not in FUNCTIONS:
        raise InvalidCall(f"States.{name} is no intrinsic function; there are {', '.join(sorted(FUNCTIONS))}")
    if depth > DEEPEST:
        raise InvalidCall(f"{text!r}: more than {DEEPEST} calls within each other")
    arguments: list[Part] = []
    while not text.startswith(")", at):
        if arguments:
            if not text.startswith(",", at):
                raise InvalidCall(f"{text!r}: expected a comma or a closing parenthesis at {text[at:]!r}")
            at += 1
        part, at = _parse(text, at, depth + 1)
        arguments.append(part)
    least, most, _ = FUNCTIONS[name]
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} or more"
        raise InvalidCall(f"States.{name} takes {wanted} arguments, not {len(arguments)}")
    end = at + 1
    while text[end : end + 1].isspace():
        end += 1
    return Called(name, tuple(arguments)), end


def evaluate(call: Called, read: Callable[[str], Any], rng: random.Random) -> Any:
    """The value of a call; `read` resolves paths. StateError with States.IntrinsicFailure."""
    arguments: list[Any] = []
    for part in call.arguments:
        if isinstance(part, Literal):
            arguments.append(part.raw if call.name == "Format" and not arguments and part.raw else part.value)
        else:
            arguments.append(read(part.path) if isinstance(part, Read) else evaluate(part, read, rng))
    try:
        return FUNCTIONS[call.name][2](rng, *arguments)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise StateError(INTRINSIC_FAILURE, f"States.{call.name}: {error}") from None


# -- the functions; wrong arguments are ValueErrors


def _kind(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise ValueError(f"{what} is expected, not {json.dumps(value)[:80]}")
    return value


def _integer(value: Any, what: str) -> int:
    # Halves go away from zero, as in Step Functions, and not to the even number, as Python's round has it.
    found = math.trunc(value + math.copysign(0.5, value)) if isinstance(value, float) else int(_kind(value, int, what))
    if abs(found) > LARGEST:
        raise ValueError(f"{what} is expected, of at most 64 bits")
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _format(rng: random.Random, template: Any, *values: Any) -> str:
    parts = re.split(r"(?<!\\)\{\}", _kind(template, str, "a template"))
    if len(parts) != len(values) + 1:
        raise ValueError(f"the template has {len(parts) - 1} places for {len(values)} values")
    texts = [re.sub(r"\\(.)", r"\1", part) for part in parts]
    return texts[0] + "".join(_text(value) + text for value, text in zip(values, texts[1:], strict=True))


def _string_to_json(rng: random.Random, text: Any) -> Any:
    # Not by json.loads, which lets in what no document can hold: NaN and infinity.
    return msgspec.json.decode(_kind(text, str, "a string with JSON")) if str(text).strip() else None


def _partition(rng: random.Random, array: Any, size: Any) -> list[Any]:
    step = _integer(size, "a size")
    if step < 1:
        raise ValueError("the size must be at least 1")
    return [array[at : at + step] for at in range(0, len(_kind(array, list, "an array")), step)]


def _range(rng: random.Random, first: Any, last: Any, step: Any) -> list[int]:
    low, high, by = (_integer(value, "a number") for value in (first, last, step))
    if by == 0:
        raise ValueError("the step must not be 0")
    found = range(low, high + (1 if by > 0 else -1), by)
    if len(found) > LONGEST:
        raise ValueError(f"more than {LONGEST} elements")
    return list(found)


def _get_item(rng: random.Random, array: Any, index: Any) -> Any:
    at = _integer(index, "an index")
    if at < 0:
        raise ValueError("the index must not be negative")
    return _kind(array, list, "an array")[at]


def _unique(rng: random.Random, array: Any) -> list[Any]:
    found: dict[str, Any] = {}
    for value in _kind(array, list, "an array"):
        found.setdefault(_canonical(value), value)
    return list(found.values())


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _limited(text: Any) -> str:
    if len(_kind(text, str, "a string")) > LIMIT:
        raise ValueError(f"more than {LIMIT} characters")
    return str(text)


def _hash(rng: random.Random, data: Any, algorithm: Any) -> str:
    names: Mapping[Any, str] = {
        "MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"
    }  # fmt: skip
    if algorithm not in names:
        raise ValueError(f"the algorithm must be one of {', '.join(names)}")
    return hashlib.new(names[algorithm], _limited(_text(data)).encode(), usedforsecurity=False).hexdigest()


def _merge(rng: random.Random, first: Any, second: Any, deep: Any) -> dict[str, Any]:
    if deep is not False:
        raise ValueError("only shallow merging is defined: the third argument must be false")
    return {**_kind(first, dict, "an object"), **_kind(second, dict, "an object")}


def _random(rng: random.Random, low: Any, high: Any, seed: Any = None) -> int:
    start, end = _integer(low, "a number"), _integer(high, "a number")
    if start >= end:
        raise ValueError("the first number must be below the second")
    source = rng if seed is None else random.Random(_integer(seed, "a seed"))  # the language asks for no secrecy
    return source.randrange(start, end)


def _add(rng: random.Random, first: Any, second: Any) -> int:
    return _integer(first, "a number") + _integer(second, "a number")


def _split(rng: random.Random, text: Any, delimiters: Any) -> list[str]:
    """Each character of `delimiters` separates; none does where it is empty."""
    separators = re.escape(_kind(delimiters, str, "a delimiter"))
    parts = re.split(f"[{separators}]", _kind(text, str, "a string")) if separators else [text]
    return [part for part in parts if _kind(part, str, "a string")]


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


ANY = 1_000
# name: fewest and most arguments, and what it does
FUNCTIONS: dict[str, tuple[int, int, Callable[..., Any]]] = {
    "Format": (1, ANY, _format),
    "StringToJson": (1, 1, _string_to_json),
    "JsonToString": (1, 1, lambda rng, value: _json(value)),
    "Array": (0, ANY, lambda rng, *values: list(values)),
    "ArrayPartition": (2, 2, _partition),
    "ArrayContains": (
        2,
        2,
        lambda rng, array, value: _canonical(value) in map(_canonical, _kind(array, list, "an array")),
    ),
    "ArrayRange": (3, 3, _range),
    "ArrayGetItem": (2, 2, _get_item),
    "ArrayLength": (1, 1, lambda rng, array: len(_kind(array, list, "an array"))),
    "ArrayUnique": (1, 1, _unique),
    "Base64Encode": (1, 1, lambda rng, text: base64.b64encode(_limited(text).encode()).decode()),
    "Base64Decode": (1, 1, lambda rng, text: base64.b64decode(_limited(text), validate=True).decode()),
    "Hash": (2, 2, _hash),
    "JsonMerge": (3, 3, _merge),
    "MathRandom": (2, 3, _random),
    "MathAdd": (2, 2, _add),
    "StringSplit": (2, 2, _split),
    "UUID": (0, 0, _uuid),
}
