"""Utilisation of NVIDIA accelerators, asked of `nvidia-smi` when somebody scrapes, under the names that DCGM gives it.

A machine without that program has none that we know of. Device plugins bring exporters of their own.
"""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from minik8s.log import get_logger
from minik8s.metrics import Number, family, labels

PROGRAM: Final = "nvidia-smi"
# What is asked for, DCGM's name of it (dcgm-exporter, etc/default-counters.csv), and what it tells.
_ASKED: Final = (
    ("utilization.gpu", "DCGM_FI_DEV_GPU_UTIL", "GPU utilization, in per cent."),
    ("utilization.memory", "DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization, in per cent."),
    ("memory.used", "DCGM_FI_DEV_FB_USED", "Framebuffer memory used, in MiB."),
    ("memory.free", "DCGM_FI_DEV_FB_FREE", "Framebuffer memory free, in MiB."),
    ("temperature.gpu", "DCGM_FI_DEV_GPU_TEMP", "GPU temperature, in degrees Celsius."),
    ("power.draw", "DCGM_FI_DEV_POWER_USAGE", "Power draw, in watts."),
)
_NAMES: Final = ("index", "uuid", "name")
COMMAND: Final = (
    PROGRAM,
    f"--query-gpu={','.join((*_NAMES, *(asked for asked, _, _ in _ASKED)))}",
    "--format=csv,noheader,nounits",
)

log = get_logger("accelerators")


class Accelerator(NamedTuple):
    number: str
    uuid: str
    name: str
    values: tuple[float | None, ...]  # in the order of what is asked for; None: this device does not tell


def present() -> bool:
    return shutil.which(PROGRAM) is not None


async def ask(patience: float) -> list[Accelerator]:
    """All devices; none, and a line in the log, where the program fails or takes longer than `patience` seconds."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(patience):
            out, err = await process.communicate()
    except TimeoutError:
        log.warning(
            "accelerators not measured",
            error=f"{PROGRAM} did not answer in {patience:g} s",
            remedy="run nvidia-smi by hand: its driver may be hung or of another version",
        )
        return []
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        log.warning(
            "accelerators not measured",
            error=(err or out).decode(errors="replace").strip()[:200],
            remedy="run nvidia-smi by hand: its driver may be hung or of another version",
        )
        return []
    return parse(out.decode(errors="replace"))


def parse(text: str) -> list[Accelerator]:
    """What `COMMAND` prints: a line per device; values that a device lacks read `[N/A]` or `[Not Supported]`."""
    rows = csv.reader(io.StringIO(text), skipinitialspace=True)
    wanted = len(_NAMES) + len(_ASKED)
    return [Accelerator(row[0], row[1], row[2], tuple(map(_value, row[3:]))) for row in rows if len(row) == wanted]


def _value(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def lines(devices: Sequence[Accelerator], hostname: str) -> Iterator[str]:
    """As dcgm-exporter tells of them."""
    for at, (_, name, text) in enumerate(_ASKED):
        yield from family(name, "gauge", text, _samples(devices, hostname, at))


def _samples(devices: Sequence[Accelerator], hostname: str, at: int) -> Iterator[tuple[str, str, Number]]:
    for device in devices:
        value = device.values[at]
        if value is not None:
            labelled = labels(
                gpu=device.number, UUID=device.uuid, device=f"nvidia{device.number}", modelName=device.name,
                Hostname=hostname,
            )  # fmt: skip
            yield "", labelled, value
