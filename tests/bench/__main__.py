"""`scripts/bench [--quick] [--net] [--faas] [--hpc] [NAME...] [--json FILE]`: measure, show each, then one table."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

from tests.bench import (
    api,
    dashboard,
    dns,
    figures,
    fleet,
    functions,
    hpc,
    node,
    pipeline,
    pod_network,
    services,
    workflows,
)
from tests.bench.agent import BenchError
from tests.bench.report import Result, table

GROUPS: tuple[tuple[Sequence[str], Callable[..., AsyncIterator[Result]]], ...] = (
    (api.NAMES, api.measure),
    (node.NAMES, node.measure),
    (fleet.NAMES, fleet.measure),
    (pod_network.NAMES, pod_network.measure),
    (services.NAMES, services.measure),
    (dns.NAMES, dns.measure),
    (figures.NAMES, figures.measure),
    (pipeline.NAMES, pipeline.measure),
    (dashboard.NAMES, dashboard.measure),
    (workflows.NAMES, workflows.measure),
    (functions.NAMES, functions.measure),
    (hpc.NAMES, hpc.measure),
)
HPC = [*hpc.NAMES]
FAAS = [*workflows.NAMES, *functions.NAMES]
NET = [*pod_network.NAMES, *services.NAMES, *dns.NAMES]
NAMES = [name for names, _ in GROUPS for name in names]


async def run(wanted: Sequence[str], *, quick: bool) -> list[Result]:
    results: list[Result] = []
    for names, measure in GROUPS:
        chosen = [name for name in names if name in wanted]
        if not chosen:
            continue
        try:
            async with aclosing(measure(chosen, quick=quick)) as found:  # type: ignore[type-var]
                async for result in found:
                    print(f"{result.name}: {' '.join(result.row()[1:4])}", file=sys.stderr, flush=True)
                    results.append(result)
        except BenchError as error:
            print(f"{', '.join(chosen)}: not measured: {error}", file=sys.stderr)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Measure minik8s against its goals.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"measures, by default all: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="less of everything: a look, not a judgement")
    parser.add_argument("--net", action="store_true", help=f"the network's: {', '.join(NET)}")
    parser.add_argument("--faas", action="store_true", help=f"functions' and workflows': {', '.join(FAAS)}")
    parser.add_argument("--hpc", action="store_true", help=f"GPU jobs': {', '.join(HPC)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    chosen = [*options.names, *(NET if options.net else ()), *(FAAS if options.faas else ())]
    chosen = [*chosen, *(HPC if options.hpc else ())] or NAMES
    results = asyncio.run(run(chosen, quick=options.quick))
    print(table([result.row() for result in results]))
    if options.json:
        machine = {"cpus": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}
        document = {"machine": machine, "quick": options.quick, "results": [result.json() for result in results]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if results else 1


if __name__ == "__main__":
    sys.exit(main())
