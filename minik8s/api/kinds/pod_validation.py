"""What makes a pod spec wrong beyond its types (names, references between its parts, resources, probes), and what of a
pod may change once it exists. Messages are those that kubectl users know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from minik8s.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from minik8s.api.kinds.placement_validation import validate_affinity, validate_spread, validate_tolerations
from minik8s.api.kinds.security_validation import validate_security, validate_sysctls
from minik8s.api.kinds.validation import (
    DNS_LABEL,
    DNS_LABEL_HINT,
    DNS_SUBDOMAIN,
    DNS_SUBDOMAIN_HINT,
    PORT_NAME,
    QUALIFIED,
    choice,
    is_ip,
    port_number,
    validate_labels,
    validate_quantity,
)
from minik8s.api.kinds.volume_validation import (
    ENV_FIELDS,
    NATIVE_RESOURCES,
    validate_field,
    validate_mounts,
    validate_resource_field,
    validate_volumes,
)
from minik8s.api.quantity import parse_quantity
from minik8s.api.resource import Json

ENV_NAME = re.compile(r"[^=\x00]+")
PROTOCOLS = ("SCTP", "TCP", "UDP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
RESTART_POLICIES = ("Always", "Never", "OnFailure")
CHANGEABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
    "previously negative),`spec.tolerations` (only additions to existing tolerations)"
)
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")


def validate_spec(spec: Json, path: str, *, template: bool = False) -> Iterator[Cause]:
    """Faults of a pod spec at `path` (`spec`, `spec.template.spec`)."""
    volumes: set[str] = set()
    yield from validate_volumes(spec.get("volumes") or (), f"{path}.volumes", volumes)
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: set[str] = set()
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        if template and spec.get(kind) and kind == "ephemeralContainers":
            yield forbidden(f"{path}.ephemeralContainers", "ephemeral containers not allowed in pod template")
        for index, container in enumerate(spec.get(kind) or ()):
            yield from _container(container, f"{path}.{kind}[{index}]", kind, names, volumes)
    yield from _host_ports(spec, path)
    yield from choice(spec, path, "restartPolicy", RESTART_POLICIES)
    yield from _times(spec, path)
    yield from _names(spec, path)
    yield from _dns(spec, path)
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        yield invalid(f"{path}.shareProcessNamespace", True, "ShareProcessNamespace and HostPID cannot both be enabled")
    yield from validate_security(spec.get("securityContext") or {}, f"{path}.securityContext")
    yield from validate_sysctls(spec, path)
    if spec.get("schedulingGates") and spec.get("nodeName"):
        yield forbidden(f"{path}.nodeName", "cannot be set until all schedulingGates have been cleared")
    yield from validate_labels(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    yield from validate_tolerations(spec.get("tolerations") or (), f"{path}.tolerations")
    yield from validate_affinity(spec.get("affinity") or {}, f"{path}.affinity")
    yield from validate_spread(spec.get("topologySpreadConstraints") or (), f"{path}.topologySpreadConstraints")


def _times(spec: Json, path: str) -> Iterator[Cause]:
    grace, deadline = spec.get("terminationGracePeriodSeconds", 0), spec.get("activeDeadlineSeconds")
    if grace < 0:
        yield invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        yield invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")


def _names(spec: Json, path: str) -> Iterator[Cause]:
    for name in ("serviceAccountName", "nodeName", "priorityClassName"):
        if spec.get(name) and not DNS_SUBDOMAIN.fullmatch(spec[name]):
            yield invalid(f"{path}.{name}", spec[name], DNS_SUBDOMAIN_HINT)
    for name in ("hostname", "subdomain"):
        if spec.get(name) and not DNS_LABEL.fullmatch(spec[name]):
            yield invalid(f"{path}.{name}", spec[name], DNS_LABEL_HINT)


def _dns(spec: Json, path: str) -> Iterator[Cause]:
    """What a pod resolves names by: the policy, servers of its own, additions to its hosts file."""
    yield from choice(spec, path, "dnsPolicy", DNS_POLICIES)
    servers, here = (spec.get("dnsConfig") or {}).get("nameservers") or (), f"{path}.dnsConfig.nameservers"
    if spec.get("dnsPolicy") == "None" and not servers:
        yield required(here, "must provide at least one DNS nameserver when `dnsPolicy` is None")
    for index, server in enumerate(servers):
        if not is_ip(server):
            yield invalid(f"{here}[{index}]", server, "must be a valid IP address")
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        here = f"{path}.hostAliases[{index}]"
        if not is_ip(alias.get("ip", "")):
            yield invalid(f"{here}.ip", alias.get("ip", ""), "must be a valid IP address")
        for number, host in enumerate(alias.get("hostnames") or ()):
            if not DNS_SUBDOMAIN.fullmatch(host):
                yield invalid(f"{here}.hostnames[{number}]", host, DNS_SUBDOMAIN_HINT)


def validate_pod_update(pod: Json, old: Json) -> Iterator[Cause]:
    """After creation only images, deadlines (shorter), tolerations (more) and gates (fewer) may change."""
    new_spec, old_spec = _without_images(pod), _without_images(old)
    yield from _deadline_update(*(spec.pop("activeDeadlineSeconds", None) for spec in (new_spec, old_spec)))
    new_gates, old_gates = (spec.pop("schedulingGates", None) or [] for spec in (new_spec, old_spec))
    if any(gate not in old_gates for gate in new_gates):
        yield forbidden("spec.schedulingGates", "only deletion is allowed, but found new scheduling gates")
    new_tolerations, old_tolerations = (
        [_but_seconds(toleration) for toleration in spec.pop("tolerations", None) or ()]
        for spec in (new_spec, old_spec)
    )
    if any(toleration not in new_tolerations for toleration in old_tolerations):
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    if new_spec.get("nodeName") and not old_spec.get("nodeName"):
        del new_spec["nodeName"]
        yield forbidden("spec.nodeName", "may only be set through the binding subresource")
    if _pruned(new_spec) != _pruned(old_spec):
        changed = sorted(k for k in {*new_spec, *old_spec} if _pruned(new_spec.get(k)) != _pruned(old_spec.get(k)))
        yield forbidden("spec", f"{CHANGEABLE}: changed {', '.join(changed)}")


def _without_images(pod: Json) -> Json:
    """A copy of a pod's spec without what may change freely."""
    spec = {key: value for key, value in (pod.get("spec") or {}).items() if key != "ephemeralContainers"}
    for kind in ("initContainers", "containers"):
        if spec.get(kind):
            spec[kind] = [{**container, "image": ""} for container in spec[kind]]
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        spec["terminationGracePeriodSeconds"] = 1
    return spec


def _deadline_update(new: int | None, old: int | None) -> Iterator[Cause]:
    """A deadline may be set, and come earlier; it neither goes nor moves away."""
    if old is not None and new is None:
        yield invalid("spec.activeDeadlineSeconds", new, "must not update from a positive integer to nil value")
    elif old is not None and new is not None and new > old:
        yield invalid("spec.activeDeadlineSeconds", new, "must be less than or equal to previous value")


def _but_seconds(toleration: Json) -> Json:
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}


def _pruned(value: Any) -> Any:
    """Without empty parts: absent and empty are the same."""
    if isinstance(value, dict):
        return {k: p for k, v in value.items() if (p := _pruned(v)) not in (None, {}, [], "")}
    return [_pruned(v) for v in value] if isinstance(value, list) else value


def _container(c: Json, path: str, kind: str, names: set[str], volumes: set[str]) -> Iterator[Cause]:
    name = c.get("name", "")
    if not name:
        yield required(f"{path}.name")
    elif not DNS_LABEL.fullmatch(name):
        yield invalid(f"{path}.name", name, DNS_LABEL_HINT)
    elif name in names:
        yield duplicate(f"{path}.name", name)
    names.add(name)
    image = c.get("image", "")
    if not image:
        yield required(f"{path}.image")
    elif image != image.strip():
        yield invalid(f"{path}.image", image, "must not have leading or trailing whitespace")
    yield from choice(c, path, "imagePullPolicy", PULL_POLICIES)
    yield from choice(c, path, "terminationMessagePolicy", ("FallbackToLogsOnError", "File"))
    yield from _ports(c.get("ports") or (), f"{path}.ports")
    for index, variable in enumerate(c.get("env") or ()):
        yield from validate_env(variable, f"{path}.env[{index}]")
    for index, source in enumerate(c.get("envFrom") or ()):
        if not source.get("configMapRef") and not source.get("secretRef"):
            yield invalid(f"{path}.envFrom[{index}]", "", "must specify one of: `configMapRef` or `secretRef`")
    yield from validate_mounts(c.get("volumeMounts") or (), f"{path}.volumeMounts", volumes)
    yield from validate_resources(c.get("resources") or {}, f"{path}.resources")
    yield from validate_security(c.get("securityContext") or {}, f"{path}.securityContext")
    plain_init = kind == "initContainers" and c.get("restartPolicy") != "Always"
    if c.get("restartPolicy") and kind != "initContainers":
        yield forbidden(f"{path}.restartPolicy", "may not be set for non-init containers")
    elif c.get("restartPolicy") not in (None, "Always"):
        yield not_supported(f"{path}.restartPolicy", c["restartPolicy"], ("Always",))
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if c.get(probe) is None:
            continue
        if plain_init or kind == "ephemeralContainers":
            yield forbidden(f"{path}.{probe}", "may not be set for init containers without restartPolicy=Always"
                            if plain_init else "may not be set for ephemeral containers")  # fmt: skip
        yield from _probe(c[probe], f"{path}.{probe}", single_success=probe != "readinessProbe")
    for hook in ("postStart", "preStop"):
        handler = (c.get("lifecycle") or {}).get(hook)
        if handler is not None:
            if plain_init:
                yield forbidden(f"{path}.lifecycle", "may not be set for init containers without restartPolicy=Always")
            yield from _handler(handler, f"{path}.lifecycle.{hook}", ("exec", "httpGet", "tcpSocket", "sleep"))


def _ports(ports: Any, path: str) -> Iterator[Cause]:
    names: set[str] = set()
    for index, port in enumerate(ports):
        here, name = f"{path}[{index}]", port.get("name")
        if name:
            if not PORT_NAME.fullmatch(name):
                yield invalid(f"{here}.name", name, "must be at most 15 lower case alphanumeric characters or '-', "
                              "with at least one letter")  # fmt: skip
            elif name in names:
                yield duplicate(f"{here}.name", name)
            names.add(name)
        if not port.get("containerPort"):
            yield required(f"{here}.containerPort")
        else:
            yield from port_number(port["containerPort"], f"{here}.containerPort")
        if port.get("hostPort"):
            yield from port_number(port["hostPort"], f"{here}.hostPort")
        if port.get("hostIP") and not is_ip(port["hostIP"]):
            yield invalid(f"{here}.hostIP", port["hostIP"], "must be a valid IP address")
        yield from choice(port, here, "protocol", PROTOCOLS)


def _host_ports(spec: Json, path: str) -> Iterator[Cause]:
    seen: set[tuple[Any, ...]] = set()
    for i, container in enumerate(spec.get("containers") or ()):
        for j, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            here = f"{path}.containers[{i}].ports[{j}]"
            if spec.get("hostNetwork") and port["hostPort"] != port.get("containerPort"):
                yield invalid(f"{here}.containerPort", port.get("containerPort"),
                              "must match `hostPort` when `hostNetwork` is true")  # fmt: skip
            key = (port.get("protocol"), port.get("hostIP", ""), port["hostPort"])
            if key in seen:
                yield duplicate(f"{here}.hostPort", f"{key[0]}/{key[1]}/{key[2]}".replace("//", "/"))
            seen.add(key)


def validate_env(variable: Json, path: str) -> Iterator[Cause]:
    name = variable.get("name", "")
    if not name:
        yield required(f"{path}.name")
    elif not ENV_NAME.fullmatch(name):
        yield invalid(f"{path}.name", name, "a valid environment variable name must not contain '='")
    source = variable.get("valueFrom")
    if source is None:
        return
    if variable.get("value"):
        yield invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty")
    if len([key for key in source if source[key] is not None]) != 1:
        yield invalid(f"{path}.valueFrom", "", "must specify exactly one of: `fieldRef`, `resourceFieldRef`, "
                      "`configMapKeyRef` or `secretKeyRef`")  # fmt: skip
    for reference in ("configMapKeyRef", "secretKeyRef"):
        for name in ("name", "key"):
            if source.get(reference) is not None and not source[reference].get(name):
                yield required(f"{path}.valueFrom.{reference}.{name}")
    yield from validate_field(source.get("fieldRef"), f"{path}.valueFrom.fieldRef", ENV_FIELDS)
    yield from validate_resource_field(source.get("resourceFieldRef"), f"{path}.valueFrom.resourceFieldRef")


def validate_resources(resources: Json, path: str) -> Iterator[Cause]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            here = f"{path}.{kind}[{name}]"
            if not QUALIFIED.fullmatch(name):
                yield invalid(here, name, "must be a qualified resource name")
            elif "/" not in name and name not in NATIVE_RESOURCES and not name.startswith("hugepages-"):
                yield invalid(here, name, "must be a standard resource for containers")
            faults = list(validate_quantity(value, here))
            yield from faults
            if not faults and "/" in name and parse_quantity(value).denominator != 1:
                yield invalid(here, value, "must be an integer")
    for name, asked in requests.items():
        limit = limits.get(name)
        if limit is None:
            if "/" in name:
                yield required(f"{path}.limits", f"limit must be set for non overcommitable resource {name}")
            continue
        try:
            more = parse_quantity(asked) - parse_quantity(limit)
        except ValueError:
            continue
        if "/" in name and more:
            yield invalid(f"{path}.requests", str(asked), f"must be equal to {name} limit of {limit}")
        elif more > 0:
            yield invalid(f"{path}.requests", str(asked), f"must be less than or equal to {name} limit of {limit}")


def _probe(probe: Json, path: str, *, single_success: bool) -> Iterator[Cause]:
    yield from _handler(probe, path, ("exec", "httpGet", "tcpSocket", "grpc"))
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(name, 0) < 0:
            yield invalid(f"{path}.{name}", probe[name], "must be greater than or equal to 0")
    if single_success and probe.get("successThreshold", 1) != 1:
        yield invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")


def _handler(handler: Json, path: str, kinds: tuple[str, ...]) -> Iterator[Cause]:
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        yield required(path, "must specify a handler type")
    for extra in given[1:]:
        yield forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")
    for kind in given[:1]:
        if kind == "exec" and not handler["exec"].get("command"):
            yield required(f"{path}.exec.command")
        if kind in ("httpGet", "tcpSocket", "grpc"):
            port = handler[kind].get("port")
            if port in (None, "", 0):
                yield required(f"{path}.{kind}.port")
            elif isinstance(port, int):
                yield from port_number(port, f"{path}.{kind}.port")
        if kind == "httpGet":
            yield from choice(handler[kind], f"{path}.httpGet", "scheme", ("HTTP", "HTTPS"))
