"""A quantity is an exact number with a suffix, as people write CPU, memory and counts: `500m`, `1.5Gi`, `1e3`, `2`.

Numbers are exact fractions, never floats. Two limits are Kubernetes' own (resource.Quantity): nothing finer than one
nano, rounded away from zero, and nothing beyond 2^63-1 in size, capped. Three styles exist, told by the suffix, and a
canonical text in each: no fraction, the largest suffix that keeps the number exact (`1500m`, `1536Mi`, `12e6`).
"""

from __future__ import annotations

import functools
import math
import re
from fractions import Fraction
from typing import Final, Literal

Style = Literal["decimal", "binary", "exponent"]
Written = str | int | float  # how JSON and YAML may carry a quantity
ZERO: Final = Fraction(0)

_LIMIT: Final = Fraction(2**63 - 1)
_NANO: Final = 10**9
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX: Final = {power: suffix for suffix, power in _DECIMAL.items()}
_SHAPE: Final = re.compile(
    r"(?P<number>[+-]?(?:[0-9]{1,100}(?:\.[0-9]{0,100})?|\.[0-9]{1,100}))"
    r"(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE](?P<exponent>[+-]?[0-9]{1,9})|)"
)


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Fraction, Style]:
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text[:80]!r} is not a quantity: write a number with no suffix, one of n u m k M G T P E, "
            "one of Ki Mi Gi Ti Pi Ei, or an exponent, e.g. 500m, 64Mi, 1e3"
        )
    number, suffix, exponent = Fraction(match["number"]), match["suffix"], match["exponent"]
    if exponent is not None:
        # beyond these the limits below decide anyway; clamped so that `1e999999999` costs nothing
        number *= Fraction(10) ** max(-150, min(150, int(exponent)))
        return _within_limits(number), "exponent"
    if suffix in _BINARY:
        return _within_limits(number * 2 ** _BINARY[suffix]), "binary"
    return _within_limits(number * Fraction(10) ** _DECIMAL[suffix]), "decimal"


def _within_limits(number: Fraction) -> Fraction:
    if number.denominator != 1:
        number = Fraction(_away_from_zero(number * _NANO), _NANO)
    return max(-_LIMIT, min(_LIMIT, number))


def _away_from_zero(number: Fraction) -> int:
    return math.ceil(number) if number >= 0 else math.floor(number)


def _text(value: Written) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"a quantity is a number or a text such as 500m or 64Mi, not {value!r:.80}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a quantity is a finite number, not {value}")
    if isinstance(value, int) and abs(value) > _LIMIT:
        return str(int(_LIMIT) if value > 0 else -int(_LIMIT))
    return value if isinstance(value, str) else repr(value)


def parse_quantity(value: Written) -> Fraction:
    """The exact number that `value` stands for: `500m` -> 1/2, `1Ki` -> 1024. ValueError says what is expected."""
    return _parse(_text(value))[0]


@functools.lru_cache(maxsize=4096)
def _scaled(text: str, factor: int) -> int:
    return _away_from_zero(_parse(text)[0] * factor)


def cpu_millis(value: Written) -> int:
    """CPU in thousandths of a core, rounded up: `1` -> 1000, `0.0001` -> 1."""
    return _scaled(_text(value), 1000)


def to_bytes(value: Written) -> int:
    """Memory or storage in whole bytes, rounded up: `1Ki` -> 1024, `100m` -> 1."""
    return _scaled(_text(value), 1)


def to_count(value: Written) -> int:
    """How many of a countable resource (pods, devices), rounded up."""
    return _scaled(_text(value), 1)


def style_of(value: Written) -> Style:
    """In which of the three styles `value` is written; a number without suffix is decimal."""
    return _parse(_text(value))[1]


def format_quantity(amount: Fraction | int, style: Style = "decimal") -> str:
    """The canonical text: `Fraction(3, 2)` -> `1500m`; binary 1572864 -> `1536Ki`, yet below 1024 as decimal."""
    number = _within_limits(Fraction(amount))
    if style == "binary" and abs(number) >= 1024:
        whole, power = _away_from_zero(number), 0
        while whole % 1024 == 0 and power < 60:
            whole, power = whole // 1024, power + 10
        return f"{whole}{next((suffix for suffix, bits in _BINARY.items() if bits == power), '')}"
    mantissa, power = int(number * _NANO), -9
    if mantissa == 0:
        return "0"
    while mantissa % 1000 == 0 and power < 18:
        mantissa, power = mantissa // 1000, power + 3
    if style == "exponent":
        return f"{mantissa}e{power}" if power else str(mantissa)
    return f"{mantissa}{_DECIMAL_SUFFIX[power]}"


def canonical(value: Written) -> str:
    """`value` in its own style's canonical text: `0.5` -> `500m`, `1024Ki` -> `1Mi`, `1000` -> `1k`. ValueError."""
    return _canonical(_text(value))


@functools.lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    number, style = _parse(text)
    return format_quantity(number, style)
