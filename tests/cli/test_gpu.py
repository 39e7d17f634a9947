"""`minik8s gpu`: what is told of a job, and what goes wrong on the way home."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from cluster_harness import Cli

from minik8s.api.kinds.gpujob import GpuJob
from minik8s.cli.gpu import opened


def test_a_job_that_has_ended_is_told_of_and_not_cancelled(cli: Cli) -> None:
    job = {"apiVersion": "hpc.minik8s.io/v1", "kind": "GpuJob", "metadata": {"name": "a"}, "spec": {"run": ["true"]}}
    cli.ok("apply", "-f", "-", stdin=json.dumps(job))
    cancel = ("gpu", "cancel", "-n", cli.namespace)
    assert cli.ok(*cancel, "a") == 'gpujob.hpc.minik8s.io "a" cancelled\n'
    ended = {"status": {"phase": "Failed", "jobId": "7"}}
    cli.server.ask(lambda client: client.patch(GpuJob, "a", cli.namespace, ended, subresource="status"))
    assert cli.ok(*cancel, "a") == 'gpujob.hpc.minik8s.io "a" has ended already: Failed\n'
    assert cli.ok("gpu", "list", "-n", cli.namespace).splitlines()[1].split() == ["a", "Failed", "7"]
    assert cli.fails(*cancel, "b") == 'Error from server (NotFound): gpujobs.hpc.minik8s.io "b" not found'


def test_a_place_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(click.ClickException, match="file/a cannot be written: File exists; choose a folder by -d"):
        opened(tmp_path / "file" / "a")
    with opened(tmp_path / "new" / "a") as sink:
        sink.write(b"x")
    assert (tmp_path / "new" / "a").read_bytes() == b"x"
