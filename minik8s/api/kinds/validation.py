"""Rules that many kinds share: names, labels, quantities, ports, choices; told in words that kubectl users know."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from minik8s.api.errors import Cause, invalid, not_supported
from minik8s.api.quantity import parse_quantity
from minik8s.api.resource import Json

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_LABEL_HINT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
DNS_SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
DNS_SUBDOMAIN_HINT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def validate_labels(labels: Json, path: str) -> Iterator[Cause]:
    """Labels, or what must look like them: a node selector, the labels of a selector."""
    for key, value in labels.items():
        if not QUALIFIED.fullmatch(key):
            yield invalid(path, key, "a key is [prefix/]name, the name at most 63 characters of letters, digits, '-_.'")
        if not LABEL_VALUE.fullmatch(value):
            yield invalid(f"{path}[{key}]", value, "a value is at most 63 letters, digits, '-', '_' and '.', "
                          "between letters or digits")  # fmt: skip


def validate_quantity(value: Any, path: str) -> Iterator[Cause]:
    try:
        if parse_quantity(value) < 0:
            yield invalid(path, value, "must be greater than or equal to 0")
    except ValueError as error:
        yield invalid(path, value, str(error))


def port_number(value: Any, path: str) -> Iterator[Cause]:
    if not 1 <= value <= 65535:
        yield invalid(path, value, "must be between 1 and 65535, inclusive")


def choice(obj: Json, path: str, name: str, choices: tuple[str, ...]) -> Iterator[Cause]:
    value = obj.get(name)
    if value not in (None, "") and value not in choices:
        yield not_supported(f"{path}.{name}", value, choices)


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
