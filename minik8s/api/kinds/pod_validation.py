"""What makes a pod spec wrong beyond its types: names, references between its parts, quantities, probes; and what of a
pod may change once it exists. Messages are those that kubectl users know.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from minik8s.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from minik8s.api.quantity import parse_quantity
from minik8s.api.resource import Json

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_LABEL_HINT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
ENV_NAME = re.compile(r"[^=\x00]+")
QUALIFIED = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
PROTOCOLS = ("SCTP", "TCP", "UDP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
RESTART_POLICIES = ("Always", "Never", "OnFailure")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
NATIVE_RESOURCES = ("cpu", "memory", "ephemeral-storage")
VOLUME_SOURCES_LIMIT = "may not specify more than 1 volume type"


def validate_spec(spec: Json, path: str, *, template: bool = False) -> Iterator[Cause]:
    """Faults of a pod spec at `path` (`spec`, `spec.template.spec`)."""
    volumes: set[str] = set()
    yield from _volumes(spec.get("volumes") or (), f"{path}.volumes", volumes)
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    names: set[str] = set()
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        if template and spec.get(kind) and kind == "ephemeralContainers":
            yield forbidden(f"{path}.ephemeralContainers", "ephemeral containers not allowed in pod template")
        for index, container in enumerate(spec.get(kind) or ()):
            yield from _container(container, f"{path}.{kind}[{index}]", kind, names, volumes)
    yield from _host_ports(spec, path)
    yield from _choice(spec, path, "restartPolicy", RESTART_POLICIES)
    yield from _choice(spec, path, "dnsPolicy", DNS_POLICIES)
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        yield invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        yield invalid(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
    if spec.get("dnsPolicy") == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        yield required(
            f"{path}.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
        )
    for name in ("hostname", "subdomain"):
        if spec.get(name) and not DNS_LABEL.fullmatch(spec[name]):
            yield invalid(f"{path}.{name}", spec[name], DNS_LABEL_HINT)
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        if not _is_ip(alias.get("ip", "")):
            yield invalid(f"{path}.hostAliases[{index}].ip", alias.get("ip", ""), "must be a valid IP address")
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        yield invalid(f"{path}.shareProcessNamespace", True, "ShareProcessNamespace and HostPID cannot both be enabled")
    yield from _tolerations(spec.get("tolerations") or (), f"{path}.tolerations")
    yield from _affinity(spec.get("affinity") or {}, f"{path}.affinity")
    yield from _spread(spec.get("topologySpreadConstraints") or (), f"{path}.topologySpreadConstraints")


def validate_pod_update(pod: Json, old: Json) -> Iterator[Cause]:
    """After creation only images, deadlines (shorter), tolerations (more) and gates (fewer) may change."""
    new_spec, old_spec = dict(pod.get("spec") or {}), dict(old.get("spec") or {})
    for spec in (new_spec, old_spec):
        for kind in ("initContainers", "containers"):
            if spec.get(kind):
                spec[kind] = [{**c, "image": ""} for c in spec[kind]]
        spec.pop("activeDeadlineSeconds", None)
        spec.pop("ephemeralContainers", None)
        spec.pop("schedulingGates", None)
        if spec.get("terminationGracePeriodSeconds", 0) < 0:
            spec["terminationGracePeriodSeconds"] = 1
    old_tolerations, new_tolerations = old_spec.pop("tolerations", None) or [], new_spec.pop("tolerations", None) or []
    if old_spec.get("schedulerName") and not old_spec.get("nodeName"):
        new_spec["nodeName"] = old_spec.get("nodeName")  # the binding subresource sets it; an update cannot
        old_spec["nodeName"] = old_spec.get("nodeName")
        if (pod.get("spec") or {}).get("nodeName"):
            yield forbidden("spec.nodeName", "may only be set through the binding subresource")
    if any(t not in new_tolerations for t in old_tolerations):
        yield forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds")
    if _pruned(new_spec) != _pruned(old_spec):
        changed = sorted(k for k in {*new_spec, *old_spec} if _pruned(new_spec.get(k)) != _pruned(old_spec.get(k)))
        yield forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative),`spec.tolerations` (only additions to existing tolerations): "
            f"changed {', '.join(changed)}",
        )


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
    yield from _choice(c, path, "imagePullPolicy", PULL_POLICIES)
    yield from _choice(c, path, "terminationMessagePolicy", ("FallbackToLogsOnError", "File"))
    yield from _ports(c.get("ports") or (), f"{path}.ports")
    for index, variable in enumerate(c.get("env") or ()):
        yield from _env(variable, f"{path}.env[{index}]")
    for index, source in enumerate(c.get("envFrom") or ()):
        if not source.get("configMapRef") and not source.get("secretRef"):
            yield invalid(f"{path}.envFrom[{index}]", "", "must specify one of: `configMapRef` or `secretRef`")
    yield from _mounts(c.get("volumeMounts") or (), f"{path}.volumeMounts", volumes)
    yield from _resources(c.get("resources") or {}, f"{path}.resources")
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
            yield from _port_number(port["containerPort"], f"{here}.containerPort")
        if port.get("hostPort"):
            yield from _port_number(port["hostPort"], f"{here}.hostPort")
        if port.get("hostIP") and not _is_ip(port["hostIP"]):
            yield invalid(f"{here}.hostIP", port["hostIP"], "must be a valid IP address")
        yield from _choice(port, here, "protocol", PROTOCOLS)


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


def _port_number(value: Any, path: str) -> Iterator[Cause]:
    if not 1 <= value <= 65535:
        yield invalid(path, value, "must be between 1 and 65535, inclusive")


def _env(variable: Json, path: str) -> Iterator[Cause]:
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
        if source.get(reference) is not None and not source[reference].get("key"):
            yield required(f"{path}.valueFrom.{reference}.key")


def _mounts(mounts: Any, path: str, volumes: set[str]) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        here = f"{path}[{index}]"
        name, target = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            yield required(f"{here}.name")
        elif name not in volumes:
            yield Cause(f"{here}.name", "FieldValueNotFound", f'Not found: "{name}"')
        if not target:
            yield required(f"{here}.mountPath")
        elif target in seen:
            yield invalid(f"{here}.mountPath", target, "must be unique")
        seen.add(target)
        sub = mount.get("subPath", "")
        if sub.startswith("/"):
            yield invalid(f"{here}.subPath", sub, "must be a relative path")
        if ".." in sub.split("/"):
            yield invalid(f"{here}.subPath", sub, "must not contain '..'")
        if sub and mount.get("subPathExpr"):
            yield invalid(f"{here}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")


def _volumes(volumes: Any, path: str, names: set[str]) -> Iterator[Cause]:
    for index, volume in enumerate(volumes):
        here, name = f"{path}[{index}]", volume.get("name", "")
        if not name:
            yield required(f"{here}.name")
        elif not DNS_LABEL.fullmatch(name):
            yield invalid(f"{here}.name", name, DNS_LABEL_HINT)
        elif name in names:
            yield duplicate(f"{here}.name", name)
        names.add(name)
        sources = [key for key in volume if key != "name" and volume[key] is not None]
        for extra in sources[1:]:
            yield forbidden(f"{here}.{extra}", VOLUME_SOURCES_LIMIT)
        yield from _volume_source(volume, here)


def _volume_source(volume: Json, path: str) -> Iterator[Cause]:
    host = volume.get("hostPath")
    if host is not None:
        if not host.get("path"):
            yield required(f"{path}.hostPath.path")
        elif ".." in host["path"].split("/"):
            yield invalid(f"{path}.hostPath.path", host["path"], "must not contain '..'")
        types = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
        if host.get("type", "") not in types:
            yield not_supported(f"{path}.hostPath.type", host["type"], types)
    if volume.get("configMap") is not None and not volume["configMap"].get("name"):
        yield required(f"{path}.configMap.name")
    if volume.get("secret") is not None and not volume["secret"].get("secretName"):
        yield required(f"{path}.secret.secretName")
    lists = [
        (f"{path}.{kind}", (volume.get(kind) or {}).get("items")) for kind in ("configMap", "secret", "downwardAPI")
    ]
    for index, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
        here = f"{path}.projected.sources[{index}]"
        lists += [(f"{here}.{kind}", (source.get(kind) or {}).get("items")) for kind in source if source.get(kind)]
        token = source.get("serviceAccountToken")
        if token is not None:
            lists.append((f"{here}.serviceAccountToken", [token]))
            if token.get("expirationSeconds", 3600) < 600:
                yield invalid(f"{here}.serviceAccountToken.expirationSeconds", token["expirationSeconds"],
                              "may not specify a duration less than 10 minutes")  # fmt: skip
    for here, items in lists:
        for index, item in enumerate(items or ()):
            target = item.get("path", "")
            if not target:
                yield required(f"{here}.items[{index}].path")
            elif target.startswith("/") or ".." in target.split("/"):
                yield invalid(f"{here}.items[{index}].path", target, "must be a relative path without '..'")
    limit = (volume.get("emptyDir") or {}).get("sizeLimit")
    if limit is not None:
        yield from validate_quantity(limit, f"{path}.emptyDir.sizeLimit")


def _resources(resources: Json, path: str) -> Iterator[Cause]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for kind, values in (("limits", limits), ("requests", requests)):
        for name, value in values.items():
            here = f"{path}.{kind}[{name}]"
            if not QUALIFIED.fullmatch(name):
                yield invalid(here, name, "must be a qualified resource name")
            elif "/" not in name and name not in NATIVE_RESOURCES and not name.startswith("hugepages-"):
                yield invalid(here, name, "must be a standard resource for containers")
            yield from validate_quantity(value, here)
    for name, asked in requests.items():
        limit = limits.get(name)
        if limit is None:
            if "/" in name:
                yield required(f"{path}.limits", f"limit must be set for non overcommitable resource {name}")
            continue
        try:
            more = parse_quantity(asked) > parse_quantity(limit)
        except ValueError:
            continue
        if more:
            yield invalid(f"{path}.requests", str(asked), f"must be less than or equal to {name} limit of {limit}")


def validate_quantity(value: Any, path: str) -> Iterator[Cause]:
    try:
        if parse_quantity(value) < 0:
            yield invalid(path, value, "must be greater than or equal to 0")
    except ValueError as error:
        yield invalid(path, value, str(error))


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
                yield from _port_number(port, f"{path}.{kind}.port")
        if kind == "httpGet":
            yield from _choice(handler[kind], f"{path}.httpGet", "scheme", ("HTTP", "HTTPS"))


def _tolerations(tolerations: Any, path: str) -> Iterator[Cause]:
    for index, t in enumerate(tolerations):
        here = f"{path}[{index}]"
        yield from _choice(t, here, "operator", ("Equal", "Exists"))
        yield from _choice(t, here, "effect", ("NoExecute", "NoSchedule", "PreferNoSchedule"))
        if not t.get("key") and t.get("operator", "Equal") != "Exists":
            yield invalid(f"{here}.operator", t.get("operator", ""), "operator must be Exists when `key` is empty, "
                          "which means \"match all values and all keys\"")  # fmt: skip
        if t.get("operator") == "Exists" and t.get("value"):
            yield invalid(f"{here}.operator", t["value"], "value must be empty when `operator` is 'Exists'")
        if t.get("tolerationSeconds") is not None and t.get("effect") != "NoExecute":
            yield invalid(f"{here}.effect", t.get("effect", ""),
                          "effect must be 'NoExecute' when `tolerationSeconds` is set")  # fmt: skip


def _affinity(affinity: Json, path: str) -> Iterator[Cause]:
    needed = (affinity.get("nodeAffinity") or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    if needed is not None and not needed.get("nodeSelectorTerms"):
        yield required(
            f"{path}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
            "must have at least one node selector term",
        )
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        for index, term in enumerate(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            if not term.get("topologyKey"):
                yield required(f"{path}.{kind}.requiredDuringSchedulingIgnoredDuringExecution[{index}].topologyKey",
                               "can not be empty")  # fmt: skip
        for index, weighted in enumerate(rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            here = f"{path}.{kind}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
            if not 1 <= weighted.get("weight", 0) <= 100:
                yield invalid(f"{here}.weight", weighted.get("weight"), "must be in the range 1-100")


def _spread(constraints: Any, path: str) -> Iterator[Cause]:
    for index, constraint in enumerate(constraints):
        here = f"{path}[{index}]"
        if constraint.get("maxSkew", 0) <= 0:
            yield invalid(f"{here}.maxSkew", constraint.get("maxSkew"), "must be greater than zero")
        if not constraint.get("topologyKey"):
            yield required(f"{here}.topologyKey", "can not be empty")
        choices = ("DoNotSchedule", "ScheduleAnyway")
        if constraint.get("whenUnsatisfiable") not in choices:
            yield not_supported(f"{here}.whenUnsatisfiable", constraint.get("whenUnsatisfiable"), choices)


def _choice(obj: Json, path: str, name: str, choices: tuple[str, ...]) -> Iterator[Cause]:
    value = obj.get(name)
    if value not in (None, "") and value not in choices:
        yield not_supported(f"{path}.{name}", value, choices)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
