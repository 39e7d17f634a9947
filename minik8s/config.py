"""Settings: one dataclass, read from defaults, then a YAML file, then the environment, then flags; nowhere else.

Each field is one option: `data_dir` is `--data-dir` on the command line, `dataDir` in the file and `MINIK8S_DATA_DIR`
in the environment. The help text in a field's metadata is what `minik8s run --help` and the documentation show.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

ROLES = ("all", "master", "worker")
RUNTIMES = ("docker", "fake")
INGRESS = ("auto", "off")
LARGEST_POD_PREFIX = 24  # each node gets a /24 of it
LARGEST_SERVICE_PREFIX = 27  # the API server is the 1st address, DNS the 10th, and some are for services
LONGEST_NAME = 52  # a certificate's common name, `system:node:NAME`, has 64 characters at the most (X.509)
NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"  # of a domain name
FAKE_DEVICE = re.compile(
    r"(?!(?:[^/]*\.)?kubernetes\.io/)(?!requests\.)"
    rf"((?:(?:{LABEL})\.)*(?:{LABEL})/[A-Za-z0-9](?:[-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?)=([1-9][0-9]{{0,2}})"
)
SETTINGS_FILE = "config.yaml"  # in the data folder: what the agent was last run with
LOG_FOLDER = "log"  # in the data folder: what the agent has to say


class ConfigError(ValueError):
    """A setting is wrong; the message names it, where it came from, and what would be right."""


def _option(default: Any, help: str, *, choices: tuple[str, ...] = (), metavar: str = "") -> Any:
    return field(default=default, metadata={"help": help, "choices": choices, "metavar": metavar})


@dataclass(frozen=True)
class Config:
    role: str = _option("all", "What this process hosts: the control plane, a node, or both.", choices=ROLES)
    data_dir: Path = _option(Path("/var/lib/minik8s"), "Folder of all state of this agent.", metavar="DIR")
    listen: str = _option("0.0.0.0:6443", "Address and port of the API server.", metavar="ADDR:PORT")
    advertise: str = _option("", "Address that others reach this master at (default: --node-ip).", metavar="ADDR")
    node_name: str = _option("", "Name of this node (default: the host's name in lower case).", metavar="NAME")
    node_ip: str = _option("", "Address of this node (default: the source of its default route).", metavar="ADDR")
    store: str = _option(
        "sqlite", "Where objects are kept: sqlite, sqlite:PATH, etcd://HOST:PORT,… or memory.", metavar="STORE"
    )
    runtime: str = _option("docker", "What runs containers; 'fake' only pretends.", choices=RUNTIMES)
    docker_host: str = _option("", "Address of the Docker Engine (default: DOCKER_HOST or its socket).", metavar="URL")
    pod_cidr: str = _option("10.244.0.0/16", "Addresses of pods; each node gets a /24 of it.", metavar="CIDR")
    pod_network: str = _option(
        "auto",
        "Way to pods of other nodes: routes within a subnet and VXLAN (UDP 8472) beyond, or one for all; alike on all.",
        choices=("auto", "routes", "vxlan"),
    )
    service_cidr: str = _option("10.96.0.0/12", "Addresses of services; DNS is the 10th.", metavar="CIDR")
    cluster_domain: str = _option("cluster.local", "Domain of cluster names.", metavar="DOMAIN")
    host_dns: bool = _option(False, "Let this host itself resolve the cluster's names, too, until it is switched off.")
    kubelet_port: int = _option(10250, "Port of this node's kubelet (logs, exec …).", metavar="PORT")
    ingress: str = _option("auto", "nginx for Ingress and DNS objects: from the first on, or never.", choices=INGRESS)
    ingress_image: str = _option("minik8s/nginx:1", "Image of that nginx (scripts/images makes it).", metavar="IMAGE")
    ingress_http_port: int = _option(80, "Port of every node on which it answers HTTP.", metavar="PORT")
    ingress_https_port: int = _option(443, "Port of every node on which it answers HTTPS.", metavar="PORT")
    dashboard_listen: str = _option(
        "127.0.0.1:8080", "Where the dashboard listens: HTTP on loopback, else HTTPS; or 'off'.", metavar="ADDR:PORT"
    )
    dashboard_write: bool = _option(False, "Let the dashboard change what its user may change; else it only shows.")
    device_plugins: Path = _option(
        Path("/var/lib/kubelet/device-plugins"),
        "Folder of kubelet.sock, at which device plugins register.",
        metavar="DIR",
    )
    fake_device: str = _option(
        "",
        "Devices of this node that only pretend, e.g. vendor.example/foo=4; several with commas.",
        metavar="NAME=NUMBER",
    )
    gpu_jobs: bool = _option(True, "Run GpuJobs on Slurm clusters, from the master.")
    functions: bool = _option(True, "Run Functions: scaled on the master, called at each node's gateway.")
    function_pool: int = _option(
        1, "Idle pods that wait for functions without an Environment, in each namespace that has such.", metavar="N"
    )
    gateway_listen: str = _option(
        "0.0.0.0:8081", "Where this node's gateway of functions listens, or 'off'.", metavar="ADDR:PORT"
    )
    gateway_tls: bool = _option(False, "Let the gateway speak HTTPS, with this node's certificate of the cluster's CA.")
    gateway_queue: int = _option(
        100, "Calls of a function that may wait at a gateway beyond what all its replicas take; then 429.", metavar="N"
    )
    workflows: bool = _option(True, "Run WorkflowRuns, on the master.")
    workflow_http_allow: str = _option(
        "", "Networks of the master that HTTP tasks of workflows may reach, too, e.g. 127.0.0.0/8.", metavar="CIDR"
    )
    join: str = _option("", "Master to join, for --role worker (default port 6443).", metavar="ADDR[:PORT]")
    token: str = _option("", "Token printed by 'minik8s init' or 'minik8s token create'.", metavar="TOKEN")
    replicas: int = _option(1, "With --runtime fake: how many nodes to simulate.", metavar="N")
    node_monitor_grace: float = _option(20.0, "How long a node may be silent until it is NotReady.", metavar="TIME")
    node_lease_interval: float = _option(5.0, "Time between a node's heartbeats.", metavar="TIME")
    default_toleration: float = _option(
        300.0, "How long pods stay on a node that is NotReady, unless they say otherwise.", metavar="TIME"
    )
    node_lost_after: float = _option(
        0.0, "Sets the three above so that a lost node's pods are replaced within this time, e.g. 7s.", metavar="TIME"
    )
    cluster_signing_duration: float = _option(
        365 * 86400.0, "Life of certificates; each is renewed after two thirds of it.", metavar="TIME"
    )
    log_level: str = _option("info", "Least level that is logged.", choices=("debug", "info", "warning", "error"))
    log_format: str = _option("auto", "auto: console on a terminal, else json.", choices=("auto", "console", "json"))

    @property
    def hosts_master(self) -> bool:
        return self.role in ("all", "master")

    @property
    def hosts_node(self) -> bool:
        return self.role in ("all", "worker")

    @property
    def listen_address(self) -> tuple[str, int]:
        return split_address(self.listen, 6443)

    @property
    def dashboard_address(self) -> tuple[str, int]:
        return split_address(self.dashboard_listen, 8080)

    @property
    def gateway_address(self) -> tuple[str, int]:
        return split_address(self.gateway_listen, 8081)

    @property
    def server(self) -> str:
        """URL of the API server as this agent's own clients use it."""
        if not self.hosts_master:
            host, port = split_address(self.join, 6443)
            return f"https://{host}:{port}"
        host, port = self.listen_address
        return f"https://{'127.0.0.1' if host in ('0.0.0.0', '') else host}:{port}"

    @property
    def dns_ip(self) -> str:
        return str(ipaddress.ip_network(self.service_cidr)[10])

    @property
    def kubernetes_ip(self) -> str:
        """The first address of the service range: the API server as a Service."""
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def name(self) -> str:
        return self.node_name or socket.gethostname().split(".")[0].lower()

    @property
    def ip(self) -> str:
        """This node's address as it is now: as it was told, or the one from which the master is reached."""
        if self.node_ip or self.hosts_master or not self.join:
            return self.node_ip or default_ip()
        address = source_towards(*split_address(self.join, 6443))
        return default_ip() if address.startswith("127.") else address

    @property
    def advertised(self) -> str:
        return self.advertise or self.ip

    def path(self, *parts: str) -> Path:
        return self.data_dir.joinpath(*parts)


def load(
    flags: Mapping[str, Any] | None = None, *, file: Path | None = None, environ: Mapping[str, str] = os.environ
) -> Config:
    """The settings in force. `flags` by field name, None or absent = not given. Raises ConfigError."""
    values = {} if file is None else _from_file(file)
    known = {f.name: f for f in fields(Config)}
    for name in known:
        text = environ.get(f"MINIK8S_{name.upper()}")
        if text is not None:
            values[name] = (text, f"environment variable MINIK8S_{name.upper()}")
    for name, value in (flags or {}).items():
        if value is not None and name in known:
            values[name] = (value, f"option --{name.replace('_', '-')}")
    parsed = {name: _parse(known[name], value, origin) for name, (value, origin) in values.items()}
    config = Config(**{**loss_profile(parsed.get("node_lost_after", 0.0)), **parsed})
    _check(config, {name: origin for name, (_, origin) in values.items()})
    return config


def loss_profile(lost_after: float) -> dict[str, float]:
    """Settings with which a lost node's pods are replaced `lost_after` seconds later; none for 0. Pure.

    Of seven parts four are the silence that is waited for, in which four heartbeats have failed; at its end the pods
    leave their Services and are evicted. The other three are for schedulers, engines and images.
    """
    if lost_after <= 0:
        return {}
    part = lost_after / 7
    return {"node_lease_interval": part, "node_monitor_grace": 4 * part, "default_toleration": 0.0}


def resume(flags: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """As `load`, but a data folder that has been used goes on with the settings it was used with."""
    given = (flags or {}).get("data_dir") or environ.get("MINIK8S_DATA_DIR") or Config.data_dir
    saved = Path(given).expanduser().absolute() / SETTINGS_FILE
    return load(flags, file=saved if saved.exists() else None, environ=environ)


def settings(config: Config) -> dict[str, Any]:
    """What differs from the defaults, as a settings file has it: `{"listen": …, "nodeName": …}`."""
    usual = {f.name: f.default for f in fields(Config)} | loss_profile(config.node_lost_after)
    values = {name: getattr(config, name) for name, value in usual.items() if getattr(config, name) != value}
    return {_camel(name): str(value) if isinstance(value, Path) else value for name, value in values.items()}


def save(config: Config) -> None:
    """Keep the settings in the data folder, so that the next start resumes with them. JSON is YAML."""
    path = config.path(SETTINGS_FILE)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    # A join token is used once and is a secret: it is not kept.
    kept = {key: value for key, value in settings(config).items() if key not in ("dataDir", "token")}
    with temporary.open("w") as file:
        file.write(json.dumps(kept, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())  # or a power cut might leave an empty file, and all defaults in force
    temporary.replace(path)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        document = _document(file.read_text()) or {}
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not a text file (UTF-8)") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: expected a map of settings, e.g. 'nodeName: worker-1'")
    names = {_camel(f.name): f.name for f in fields(Config)}
    unknown = [key for key in document if key not in names]
    if unknown:
        import difflib

        near = difflib.get_close_matches(str(unknown[0]), names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
        raise ConfigError(f"{file}: unknown setting {unknown[0]!r}; {hint}")
    return {names[key]: (value, f"{file}, {key}") for key, value in document.items() if value is not None}


def _document(text: str) -> Any:
    """Of YAML. Raises ValueError. What `save` has written is read without the library: each start is 30 ms shorter."""
    with suppress(ValueError):
        return json.loads(text)
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(str(error)) from None


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _parse(option: Any, value: Any, origin: str) -> Any:
    """A value of the option's type, from text or from what YAML made of it."""
    kind: type = type(option.default)
    parsed: Any = None
    if isinstance(option.default, Path):
        parsed = Path(value).expanduser().absolute() if isinstance(value, str | Path) and str(value) else None
    elif kind is bool:
        parsed = value if isinstance(value, bool) else _TRUTHS.get(str(value).lower())
    elif not isinstance(value, bool | list | dict) and not (kind is int and isinstance(value, float)):
        with suppress(TypeError, ValueError):
            parsed = seconds(value) if kind is float else kind(value)
    if parsed is None or (kind is float and not math.isfinite(parsed)):
        raise ConfigError(f"{origin}: {value!r} is not {_KINDS.get(kind, 'a folder')}")
    choices = option.metadata["choices"]
    if choices and parsed not in choices:
        raise ConfigError(f"{origin}: {value!r} is none of {', '.join(choices)}")
    return parsed


_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_KINDS: Mapping[type, str] = {
    bool: "true or false",
    str: "a text",
    int: "a whole number",
    float: "a time, e.g. 7s, 5m or 24h",
}
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Any) -> float:
    """Seconds of 7, `7`, `7s`, `500ms`, `5m`, `24h`, `365d`. Raises ValueError."""
    match = re.fullmatch(r"(-?[0-9.]+(?:e[0-9]+)?)(ms|[smhd]?)", str(value).strip())
    if match is None:
        raise ValueError(f"{value!r} is not a time")
    return float(match[1]) * _UNITS[match[2]]


def _check(config: Config, origins: Mapping[str, str]) -> None:
    """What the types cannot say; each fault is told with the place that the value came from."""

    def wrong(name: str, why: str) -> ConfigError:
        return ConfigError(f"{origins.get(name, '--' + name.replace('_', '-'))}: {why}")

    for name, smallest in (("pod_cidr", LARGEST_POD_PREFIX), ("service_cidr", LARGEST_SERVICE_PREFIX)):
        try:
            network = ipaddress.IPv4Network(getattr(config, name))
        except ValueError as error:
            raise wrong(name, f"{error}; write an IPv4 network, e.g. 10.244.0.0/16") from None
        if network.prefixlen > smallest:
            raise wrong(name, f"{network} is too small: at least a /{smallest} is needed")
    if ipaddress.ip_network(config.pod_cidr).overlaps(ipaddress.ip_network(config.service_cidr)):
        raise ConfigError(f"--pod-cidr {config.pod_cidr} and --service-cidr {config.service_cidr} overlap")
    for name in ("node_ip", "advertise"):
        text = getattr(config, name)
        try:
            ipaddress.ip_address(text or "127.0.0.1")
        except ValueError:
            raise wrong(name, f"{text!r} is not an address, e.g. 192.168.1.10") from None
    optional = (name for name in ("dashboard_listen", "gateway_listen") if getattr(config, name) != "off")
    for name in ("listen", "join", *optional):
        try:
            split_address(getattr(config, name), 6443)
        except ConfigError as error:
            raise wrong(name, str(error)) from None
    named = config.hosts_node or config.node_name
    if named and (len(config.name) > LONGEST_NAME or not NODE_NAME.fullmatch(config.name)):
        why = f"{config.name!r} cannot be the name of a node: at most {LONGEST_NAME} lower case letters, digits, "
        raise wrong("node_name", why + "'-' and '.', between letters or digits; choose another --node-name")
    if not NODE_NAME.fullmatch(config.cluster_domain):
        raise wrong("cluster_domain", f"{config.cluster_domain!r} is not a domain, e.g. cluster.local")
    for name in ("kubelet_port", "ingress_http_port", "ingress_https_port"):
        if not 1 <= getattr(config, name) <= 65535:
            raise wrong(name, f"{getattr(config, name)} is not a port from 1 to 65535")
    if config.ingress_http_port == config.ingress_https_port:
        raise wrong("ingress_https_port", f"{config.ingress_https_port} is that of HTTP already")
    for name in ("replicas", "node_monitor_grace", "node_lease_interval", "cluster_signing_duration"):
        if not getattr(config, name) > 0:
            raise wrong(name, f"{getattr(config, name)} is not more than 0")
    for name in ("default_toleration", "node_lost_after", "function_pool", "gateway_queue"):
        if getattr(config, name) < 0:
            raise wrong(name, f"{getattr(config, name)} is less than 0")
    try:
        for text in filter(None, config.workflow_http_allow.split(",")):
            ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise wrong("workflow_http_allow", f"{error}; write networks with commas, e.g. 127.0.0.0/8") from None
    if config.role == "worker" and not config.join:
        raise ConfigError("--role worker needs --join ADDR[:PORT], the master to belong to")
    if config.replicas != 1 and config.runtime != "fake":
        raise wrong("replicas", "it simulates nodes, and needs --runtime fake")
    try:
        fake_devices(config.fake_device)
    except ConfigError as error:
        raise wrong("fake_device", str(error)) from None


def fake_devices(text: str) -> dict[str, int]:
    """{"vendor.example/foo": 4} of `vendor.example/foo=4`. Raises ConfigError."""
    found: dict[str, int] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        match = FAKE_DEVICE.fullmatch(word)
        if match is None:
            raise ConfigError(
                f"{word!r}: write NAME=NUMBER, a name with a domain other than kubernetes.io and 1 to 999, "
                "as in vendor.example/foo=4"
            )
        found[match[1]] = int(match[2])
    return found


def split_address(text: str, default_port: int) -> tuple[str, int]:
    """("10.0.0.1", 6443) of `10.0.0.1`, `10.0.0.1:7000`, `[::1]:7000`, `:7000`. Raises ConfigError."""
    host, separator, port = text.rpartition(":")
    if not separator or (text.count(":") > 1 and not text.startswith("[")):
        host, port = text, str(default_port)
    if not port.isdigit() or not 0 <= int(port) < 65536:
        raise ConfigError(f"{text!r}: {port!r} is not a port")
    return host.strip("[]"), int(port)


def default_ip() -> str:
    """The address that the kernel would send from towards the outside; loopback on a machine without a route."""
    return source_towards("192.0.2.1", 9)  # TEST-NET-1


def source_towards(host: str, port: int) -> str:
    """The address that the kernel would send from to `host`; loopback if there is no way there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port))  # connecting UDP sends nothing
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
