"""Jobs on supercomputers: GpuJobs sent to Slurm over SSH, or run as pods. `build` puts the controllers together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minik8s.client.base import Client
    from minik8s.client.controller import Controller
    from minik8s.client.informer import Informers
    from minik8s.client.recorder import Recorder
    from minik8s.hpc.endpoints import JobFiles
    from minik8s.hpc.local import Exec


def build(
    client: Client, informers: Informers, recorder_factory: Callable[[str], Recorder], files: JobFiles, run: Exec,
    image: Callable[[], str],
) -> list[Controller]:  # fmt: skip
    """The controllers of HpcClusters and GpuJobs, which share connections. `run`: in a pod, by its kubelet; `image`:
    that of pods that drive jobs."""
    from minik8s.hpc.clusters import HpcClusterController
    from minik8s.hpc.drivers import Drivers
    from minik8s.hpc.gpujob import GpuJobController
    from minik8s.hpc.local import LocalPlaces

    local = LocalPlaces(client, informers, files.results, files.packed, run)
    clusters = HpcClusterController(client, informers, recorder_factory("hpccluster-controller"), files.results, local)
    recorder = recorder_factory("gpujob-controller")
    drivers = Drivers(client, informers, recorder, image)
    jobs = GpuJobController(
        client, informers, recorder, clusters, local, drivers, files.packed, files.results, files.blobs
    )
    files.source_arrived = jobs.source_arrived
    return [clusters, jobs]
