"""`minik8s doctor gpu`: which link is missing between a GPU of this machine and a pod that asks for one.

Card, driver, nvidia-smi, NVIDIA's container toolkit, Docker's runtime, the plugin's socket, its registration, capacity:
each needs those before it, so that what is told first is what to do first.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from minik8s.api.errors import StatusError
from minik8s.cli.agent import config_options, read_config
from minik8s.cli.connection import Choice, Cluster
from minik8s.cli.diagnosis import BAD, GOOD, POOR, Finding
from minik8s.cli.doctor import docker_answer, show
from minik8s.cli.wire import Unreachable
from minik8s.config import Config

Json = dict[str, Any]
VENDOR, DISPLAYS = "0x10de", ("0x0300", "0x0302")  # NVIDIA's number with the PCI-SIG; classes of graphics and 3D cards
RESOURCE = "nvidia.com/gpu"
SMI_SECONDS = 20.0
INSTALL = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit"


class GpuFacts(NamedTuple):
    cards: int = 0  # on the PCI bus
    driver: str = ""  # its version
    nodes: int = 0  # /dev/nvidia0 …
    smi: str = ""  # the GPUs, as nvidia-smi lists them
    smi_fault: str = ""
    toolkit: bool = False
    runtimes: tuple[str, ...] = ()  # of Docker
    docker_fault: str = ""
    folder: str = ""  # of device plugins
    listening: bool = False  # kubelet.sock is there, and answers
    sockets: tuple[str, ...] = ()  # of plugins
    plugin: str = ""  # Registered | Missing | Gone, "" = never seen
    capacity: str = ""
    allocatable: str = ""
    cluster_fault: str = ""


def findings(facts: GpuFacts) -> Iterator[Finding]:
    """One for each link, in their order. Pure."""
    if facts.cards or facts.nodes:
        yield Finding("card", GOOD, f"{max(facts.cards, facts.nodes)} GPU(s) of NVIDIA")
    else:
        yield Finding("card", BAD, "no GPU of NVIDIA on the PCI bus, and no /dev/nvidia0", "try another machine")
    if facts.driver:
        yield Finding("driver", GOOD, facts.driver)
    else:
        remedy = "install NVIDIA's driver (Debian: apt install nvidia-driver), then restart or modprobe nvidia"
        yield Finding("driver", BAD, "the kernel module nvidia is not loaded", remedy)
    if facts.smi:
        yield Finding("nvidia-smi", GOOD, facts.smi)
    else:
        remedy = "its version must be the driver's: install nvidia-smi of the same release, or restart the machine"
        yield Finding("nvidia-smi", BAD, facts.smi_fault, remedy)
    if facts.toolkit:
        yield Finding("toolkit", GOOD, "nvidia-container-runtime is installed")
    else:
        yield Finding("toolkit", BAD, "nvidia-container-runtime is not in PATH", f"see {INSTALL}")
    yield from _docker(facts)
    yield from _plugin(facts)


def _docker(facts: GpuFacts) -> Iterator[Finding]:
    if "nvidia" in facts.runtimes:
        yield Finding("docker", GOOD, f"runtimes {', '.join(facts.runtimes)}")
    elif facts.docker_fault:
        yield Finding("docker", BAD, facts.docker_fault, "start the Docker Engine")
    else:
        remedy = "nvidia-ctk runtime configure --runtime=docker; systemctl restart docker"
        detail = f"Docker has no runtime nvidia, only {', '.join(facts.runtimes)}"
        yield Finding("docker", POOR, detail, remedy + " (not needed for plugins that answer with CDI names)")


def _plugin(facts: GpuFacts) -> Iterator[Finding]:
    if facts.listening:
        yield Finding("socket", GOOD, f"{facts.folder}/kubelet.sock answers")
    else:
        remedy = "start the agent as root: minik8s start; if another folder is meant, --device-plugins"
        yield Finding("socket", BAD, f"nobody answers at {facts.folder}/kubelet.sock", remedy)
    if facts.cluster_fault:
        yield Finding("registration", POOR, facts.cluster_fault, "ask again with a KUBECONFIG that may see nodes")
        return
    if facts.plugin == "Registered":
        yield Finding("registration", GOOD, f"{RESOURCE} has its plugin")
    else:
        there = f"; sockets there: {', '.join(facts.sockets)}" if facts.sockets else ""
        detail = f"no plugin has registered {RESOURCE}" if not facts.plugin else f"the plugin of {RESOURCE} has gone"
        remedy = "run NVIDIA's device plugin as a DaemonSet with that folder mounted, and look at its log"
        yield Finding("registration", BAD, detail + there, remedy)
    if facts.capacity not in ("", "0") and facts.allocatable not in ("", "0"):
        yield Finding("capacity", GOOD, f"{facts.allocatable} of {facts.capacity} can be given to pods")
    else:
        remedy = "what its plugin's log says of health: Xid errors in dmesg make a GPU unhealthy"
        said = f"the node has {facts.capacity or 'no'} {RESOURCE}, of which {facts.allocatable or 'none'} can be given"
        yield Finding("capacity", BAD, said, remedy)


@click.command("gpu")
@config_options("data_dir", "docker_host", "device_plugins", "node_name")
@click.option("-o", "output", type=click.Choice(["json"]), help="Machine-readable form.")
@click.option("--kubeconfig", default="", help="Of the cluster (default: KUBECONFIG or this agent's).")
def gpu(config_file: Path | None, output: str | None, kubeconfig: str, **flags: str) -> None:
    """Say which link is missing between this machine's GPU and a pod: driver, toolkit, plugin, registration, capacity.

    Exit code 1 if pods cannot have a GPU here.
    """
    config = read_config(config_file, dict(flags))
    found = list(findings(look(config, kubeconfig)))
    if output:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=2))
    else:
        for finding in found:
            show(finding)
    if any(finding.state == BAD for finding in found):
        sys.exit(1)


# -- looking


def look(config: Config, kubeconfig: str = "") -> GpuFacts:
    """The facts of this machine and of its node; changes nothing."""
    folder = config.device_plugins
    return GpuFacts(
        cards=sum(map(_is_gpu, Path("/sys/bus/pci/devices").glob("*"))),
        driver=_line("/proc/driver/nvidia/version").removeprefix("NVRM version: "),
        nodes=len(list(Path("/dev").glob("nvidia[0-9]*"))),
        toolkit=shutil.which("nvidia-container-runtime") is not None,
        folder=str(folder),
        listening=_answers(folder / "kubelet.sock"),
        sockets=tuple(sorted(path.name for path in _sockets(folder) if path.name != "kubelet.sock")),
        **_smi(),
        **_engine(config.docker_host or os.environ.get("DOCKER_HOST", "") or "unix:///var/run/docker.sock"),
        **_node(config, kubeconfig),
    )


def _is_gpu(device: Path) -> bool:
    return _line(device / "vendor") == VENDOR and _line(device / "class")[:6] in DISPLAYS


def _line(path: Path | str) -> str:
    try:
        return Path(path).read_text().split("\n", 1)[0].strip()
    except OSError:
        return ""


def _smi() -> Json:
    if shutil.which("nvidia-smi") is None:
        return {"smi_fault": "nvidia-smi is not in PATH"}
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=False, timeout=SMI_SECONDS
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"smi_fault": f"nvidia-smi does not answer: {error}"}
    said = "; ".join(line.partition(" (UUID")[0] for line in (listed.stdout + listed.stderr).splitlines())
    return {"smi_fault": said or f"nvidia-smi: exit code {listed.returncode}"} if listed.returncode else {"smi": said}


def _engine(address: str) -> Json:
    try:
        return {"runtimes": tuple(sorted(docker_answer(address, "/info")["Runtimes"]))}
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return {"docker_fault": f"Docker does not answer at {address}: {error}"}


def _sockets(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if stat.S_ISSOCK(path.lstat().st_mode)]
    except OSError:
        return []


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _node(config: Config, kubeconfig: str) -> Json:
    own = config.path("admin.kubeconfig")
    chosen = kubeconfig or ("" if os.environ.get("KUBECONFIG") or not own.exists() else str(own))
    try:
        wire = Cluster(Choice(kubeconfig=chosen)).wire
        status = wire.get(f"/api/v1/nodes/{config.name}").get("status") or {}
        told = wire.get(f"/api/v1/nodes/{config.name}/proxy/devices")["resources"]
    except (StatusError, Unreachable, click.ClickException, KeyError) as error:
        return {"cluster_fault": f"node {config.name} cannot be asked: {error}"}
    return {
        "plugin": next((known["plugin"] for known in told if known["name"] == RESOURCE), ""),
        "capacity": (status.get("capacity") or {}).get(RESOURCE, ""),
        "allocatable": (status.get("allocatable") or {}).get(RESOURCE, ""),
    }
