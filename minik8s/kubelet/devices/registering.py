"""Which registrations of device plugins are refused, and in which words. Pure."""

from __future__ import annotations

import re

VERSION = "v1beta1"
LONGEST_NAME = 63
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def fault(version: str, resource: str, endpoint: str) -> str:
    """What is wrong with a plugin's registration; "" for nothing."""
    if version != VERSION:
        return f'requested API version "{version}" is not supported by kubelet. Supported version is "{VERSION}"'
    if problem := resource_fault(resource):
        return f'the ResourceName "{resource}" is invalid: {problem}'
    if not endpoint or "/" in endpoint or endpoint in (".", "..", "kubelet.sock"):
        return f'the endpoint "{endpoint}" is invalid: it must be the name of a socket beside kubelet.sock'
    return ""


def resource_fault(resource: str) -> str:
    """Extended resources: a domain that is not Kubernetes' own, a slash, a name."""
    domain, slash, name = resource.partition("/")
    if not slash:
        return "it must have a domain, as in vendor.example/foo"
    if domain == "kubernetes.io" or domain.endswith(".kubernetes.io") or domain.startswith("requests."):
        return "its domain must not be kubernetes.io nor begin with requests."
    if not _DOMAIN.fullmatch(domain) or len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        return "it must be a domain, a slash, and letters, digits, '-', '_' or '.', as in vendor.example/foo"
    return ""
