from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.quantity import (
    canonical,
    cpu_millis,
    format_quantity,
    parse_quantity,
    style_of,
    to_bytes,
    to_count,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0), ("1", 1), ("+1", 1), ("-1", -1), ("1.", 1), (".5", Fraction(1, 2)), ("0.5", Fraction(1, 2)),
        ("500m", Fraction(1, 2)), ("1n", Fraction(1, 10**9)), ("1u", Fraction(1, 10**6)),
        ("1k", 1000), ("1M", 10**6), ("1G", 10**9), ("1T", 10**12), ("1P", 10**15), ("1E", 10**18),
        ("1Ki", 1024), ("1Mi", 2**20), ("1Gi", 2**30), ("1Ti", 2**40), ("1Pi", 2**50), ("1Ei", 2**60),
        ("1.5Gi", 3 * 2**29), ("1e3", 1000), ("1E3", 1000), ("1.2e-1", Fraction(3, 25)), ("12e+2", 1200),
        (2, 2), (0.1, Fraction(1, 10)), (1e-5, Fraction(1, 10**5)), (1e22, 2**63 - 1),
        ("0.1n", Fraction(1, 10**9)), ("-0.1n", Fraction(-1, 10**9)), ("10E", 2**63 - 1), ("-9Ei", -(2**63 - 1)),
        ("1e999999999", 2**63 - 1), ("1e-999999999", Fraction(1, 10**9)), (10**400, 2**63 - 1),
    ],
)  # fmt: skip
def test_parse_is_exact_within_the_limits(text: str | int | float, number: Fraction | int) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "bad",
    ["", " 1", "1 ", "m", "1K", "1mi", "1KI", "1ki", "1.2.3", "--1", "1e", "1e3Ki", "0x10", "1_000", "1,5", "١",
     "NaN", "inf", "1\n", "9" * 101, True, None, [], float("nan"), float("inf")],
)  # fmt: skip
def test_what_is_no_quantity_is_refused_in_words(bad: object) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", "500m"), ("0", "0"), ("0Gi", "0"), ("1000", "1k"), ("1500", "1500"), ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"), ("100Mi", "100Mi"), ("0.5Ki", "512"), ("1000Ki", "1000Ki"), ("2000e3", "2e6"),
        ("0.1e0", "100e-3"), ("1e0", "1"), ("-1.5", "-1500m"), ("1000000n", "1m"), ("1E", "1E"), ("1000P", "1E"),
        ("1025.0001Ki", "1049601"), ("-2Ki", "-2Ki"), (4, "4"), (0.25, "250m"), ("128974848", "128974848"),
        ("129e6", "129e6"), ("129M", "129M"), ("123Mi", "123Mi"), ("1Ei", "1Ei"),
    ],
)  # fmt: skip
def test_canonical_text_is_kubernetes_own(text: str | int | float, expected: str) -> None:
    assert canonical(text) == expected


def test_derived_units_round_up() -> None:
    assert (cpu_millis("1"), cpu_millis("250m"), cpu_millis("0.0001"), cpu_millis(2)) == (1000, 250, 1, 2000)
    assert (to_bytes("1Ki"), to_bytes("100m"), to_bytes("64Mi")) == (1024, 1, 64 * 2**20)
    assert to_count("110") == 110


@given(
    st.decimals(min_value=-(10**9), max_value=10**9, places=6).map(lambda d: f"{d:f}"),
    st.sampled_from(["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-3", "e+6"]),
)
def test_canonical_keeps_the_number_and_is_stable(number: str, suffix: str) -> None:
    text = number + suffix
    again = canonical(text)
    # A binary number that no suffix divides is written without one, and read as decimal next time: as in Kubernetes.
    assert canonical(again) == again or (style_of(text), style_of(again)) == ("binary", "decimal")
    assert parse_quantity(canonical(again)) == parse_quantity(again)
    if style_of(text) == "binary" and abs(parse_quantity(text)) >= 1024:
        assert abs(parse_quantity(again) - parse_quantity(text)) < 1  # whole bytes, rounded away from zero
    else:
        assert parse_quantity(again) == parse_quantity(text)


@given(st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from(["decimal", "binary", "exponent"]))
def test_whole_numbers_survive_every_style(number: int, style: str) -> None:
    assert parse_quantity(format_quantity(number, style)) == number  # type: ignore[arg-type]
