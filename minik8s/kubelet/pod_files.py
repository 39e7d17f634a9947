"""The texts that a pod finds in /etc: hosts, resolv.conf, hostname. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from minik8s.api.kinds.pod import Pod

MAX_NAMESERVERS = 3  # resolver(5)
MAX_SEARCHES, MAX_SEARCH_LENGTH = 32, 2048  # Kubernetes' bounds
HOSTNAME_LIMIT = 63  # characters, of the kernel's 64
LOCAL_HOSTS = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)


class DNS(NamedTuple):
    """What the cluster and the node offer."""

    cluster_ip: str = ""
    cluster_domain: str = "cluster.local"
    host_nameservers: tuple[str, ...] = ()
    host_searches: tuple[str, ...] = ()
    host_options: tuple[str, ...] = ()


def pod_hostname(pod: Pod) -> str:
    return (pod.spec.hostname or pod.metadata.name)[:HOSTNAME_LIMIT].rstrip("-.")


def pod_fqdn(pod: Pod, domain: str) -> str:
    """`host.subdomain.ns.svc.domain`, or "" for a pod without subdomain."""
    if not pod.spec.subdomain:
        return ""
    return f"{pod_hostname(pod)}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc.{domain}"


def hosts_file(pod: Pod, ip: str, domain: str, host_file: str) -> str:
    """/etc/hosts. With hostNetwork the host's own, plus the pod's aliases."""
    if pod.spec.hostNetwork:
        lines = ["# Kubernetes-managed hosts file (host network).", host_file.rstrip("\n")]
    else:
        names = "\t".join(name for name in (pod_fqdn(pod, domain), pod_hostname(pod)) if name)
        lines = ["# Kubernetes-managed hosts file.", *LOCAL_HOSTS]
        lines += [f"{ip}\t{names}"] if ip else []
    if pod.spec.hostAliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join((alias.ip, *alias.hostnames)) for alias in pod.spec.hostAliases]
    return "\n".join(lines) + "\n"


def parse_resolv_conf(text: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """(nameservers, searches, options) of a resolv.conf."""
    servers: list[str] = []
    searches: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        word, *rest = line.split("#")[0].split(";")[0].split() or [""]
        if word == "nameserver" and rest:
            servers.append(rest[0])
        elif word in ("search", "domain"):
            searches = tuple(domain.rstrip(".") or "." for domain in rest)
        elif word == "options":
            options += rest
    return tuple(servers), searches, tuple(options)


def resolv_conf(pod: Pod, dns: DNS) -> str:
    """By dnsPolicy, then what dnsConfig adds."""
    policy, namespace, domain = pod.spec.dnsPolicy, pod.metadata.namespace, dns.cluster_domain
    by_cluster = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.hostNetwork)
    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    if policy == "None":
        pass  # all comes from dnsConfig
    elif by_cluster and dns.cluster_ip:  # without a cluster DNS as Default
        servers = (dns.cluster_ip,)
        searches = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *dns.host_searches)
        options = ("ndots:5",)
    else:
        servers, searches, options = dns.host_nameservers, dns.host_searches, dns.host_options
    config = pod.spec.dnsConfig
    if config is not None:
        servers += tuple(config.nameservers)
        searches += tuple(config.searches)
        given = {o.name: f"{o.name}:{o.value}" if o.value is not None else o.name for o in config.options}
        options = (*(o for o in options if o.split(":")[0] not in given), *given.values())
    lines = [f"nameserver {server}" for server in _unique(servers)[:MAX_NAMESERVERS]]
    searches = _fitting(_unique(searches))
    lines += [f"search {' '.join(searches)}"] if searches else []
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join(lines) + "\n"


def _unique(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _fitting(searches: Sequence[str]) -> tuple[str, ...]:
    """As many as are allowed: in number, and in characters of the whole line."""
    fitting = searches[:MAX_SEARCHES]
    while len(" ".join(fitting)) > MAX_SEARCH_LENGTH:
        fitting = fitting[:-1]
    return tuple(fitting)
