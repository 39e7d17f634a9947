"""`gpu`: jobs on supercomputers: what there is, what they print and bring back; and their archives on the way up."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import click

from minik8s.api.dialects_hpc import FOLDER_ANNOTATION
from minik8s.api.errors import NotFound
from minik8s.api.kinds.gpujob import CANCELLED, FAILED, LOST, SUCCEEDED
from minik8s.cli.connection import Cluster
from minik8s.cli.verb import cluster_options
from minik8s.cli.wire import MERGE

Json = dict[str, Any]
KIND = "gpujobs.hpc.minik8s.io"
BLOCK = 256 * 1024
LOOK = 1.0  # seconds between two looks at a log that is followed
ENDED = (SUCCEEDED, FAILED, CANCELLED, LOST)


class _Gpu(click.Group):
    """What is no subcommand is the name of a job."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            return "results", self.commands["results"], args
        return super().resolve_command(ctx, args)


@click.group(cls=_Gpu, invoke_without_command=False)
def gpu() -> None:
    """Jobs on supercomputers. `minik8s gpu NAME` lists what a job has brought back, with -d or -f it is downloaded."""


def _path(cluster: Cluster, name: str = "") -> str:
    found: str = cluster.kinds.find(KIND).path(cluster.namespace, name)
    return found


@gpu.command("list")
@cluster_options
def list_(cluster: Cluster) -> None:
    """List the jobs."""
    rows = [("NAME", "STATUS", "SLURM-ID", "CLUSTER", "REASON")]
    for job in cluster.wire.get(_path(cluster))["items"]:
        status = job.get("status") or {}
        words = (status.get(key) or "" for key in ("phase", "jobId", "clusterName", "reason"))
        rows.append((job["metadata"]["name"], *words))
    if len(rows) == 1:
        click.echo(f"No GpuJobs found in {cluster.namespace} namespace.", err=True)
        return
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        click.echo("   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())


@gpu.command()
@click.argument("name")
@cluster_options
def get(cluster: Cluster, name: str) -> None:
    """Tell how far a job is, and list its results."""
    job = cluster.wire.get(_path(cluster, name))
    status = job.get("status") or {}
    words = (("Status", "phase"), ("Reason", "reason"), ("Message", "message"), ("Cluster", "clusterName"),
             ("Slurm-ID", "jobId"), ("Exit code", "exitCode"), ("Folder", "remotePath"))  # fmt: skip
    click.echo(f"Name:      {name}")
    for title, key in words:
        if status.get(key) not in (None, ""):
            click.echo(f"{title + ':':<11}{status[key]}")
    if tasks := status.get("tasks"):
        counts = ", ".join(f"{tasks[key]} {key}" for key in ("queued", "running", "succeeded", "failed") if tasks[key])
        click.echo(f"{'Tasks:':<11}{tasks['total']}{f' ({counts})' if counts else ''}")
    _print_results(_results(cluster, name))


@gpu.command()
@click.argument("name")
@cluster_options
def cancel(cluster: Cluster, name: str) -> None:
    """End a job; its object and what it has written stay."""
    job = cluster.wire.send("PATCH", _path(cluster, name), {"spec": {"cancel": True}}, content_type=MERGE)
    phase = (job.get("status") or {}).get("phase")
    click.echo(f'gpujob.hpc.minik8s.io "{name}" {f"has ended already: {phase}" if phase in ENDED else "cancelled"}')


@gpu.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--stderr", is_flag=True, help="Standard error instead of standard output.")
@cluster_options
def logs(cluster: Cluster, name: str, follow: bool, stderr: bool) -> None:
    """Print what a job has written to standard output, while it runs or afterwards."""
    offset = 0
    while True:
        job = cluster.wire.get(_path(cluster, name))
        spec, phase = job["spec"], (job.get("status") or {}).get("phase")
        output = (spec.get("output") or {}).get("stderr" if stderr else "stdout") or ""
        if "%" in output:
            raise click.ClickException(f"this job has a file for each task ({output}): take minik8s gpu {name} -f FILE")
        path = f"{spec['workDir']}/{output}" if spec.get("workDir") else output
        offset += _copy(cluster, name, path, offset, sys.stdout.buffer)
        if not follow or phase in ENDED:
            if not offset and phase not in ENDED:
                click.echo(f"nothing is here yet: the job is {phase}", err=True)
            return
        time.sleep(LOOK)


@gpu.command(hidden=True)
@click.argument("name")
@click.option("-d", "--directory", type=click.Path(file_okay=False, path_type=Path), help="Download into this folder.")
@click.option("-f", "--file", "file", default="", help="Only this file.")
@cluster_options
def results(cluster: Cluster, name: str, directory: Path | None, file: str) -> None:
    """List what a job has brought back, or download it."""
    found = _results(cluster, name)
    if directory is None and not file:
        _print_results(found)
        return
    chosen = [each for each in found if file in ("", each["path"])]
    if not chosen:
        what = f'no result "{file}"; minik8s gpu {name} lists them' if file else "no results (yet)"
        raise click.ClickException(f'the GpuJob "{name}" has {what}')
    folder = (directory or Path()).resolve()
    total = sum(each["size"] for each in chosen)
    with click.progressbar(length=total, label=f"{len(chosen)} files", file=sys.stderr) as bar:
        for each in chosen:
            target = (folder / each["path"]).resolve()
            if not target.is_relative_to(folder):
                raise click.ClickException(f"the server names a file outside of the folder: {each['path']!r}")
            with opened(target) as sink:
                bar.update(_copy(cluster, name, each["path"], 0, sink))
    click.echo(f"{len(chosen)} files ({total} bytes) in {folder}")


def opened(target: Path) -> BinaryIO:
    """A file to write a result into; its folders are made. Raises ClickException."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.open("wb")
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}; choose a folder by -d") from None


def _results(cluster: Cluster, name: str) -> list[Json]:
    items: list[Json] = cluster.wire.get(_path(cluster, name) + "/results")["items"]
    return items


def _print_results(found: list[Json]) -> None:
    for each in found:
        click.echo(f"{each['size']:>12}  {each['path']}")
    if not found:
        click.echo("no results are here (yet)", err=True)


def _copy(cluster: Cluster, name: str, path: str, offset: int, sink: Any) -> int:
    """The bytes of a result from `offset` on; how many there were. One that is not there yet has none."""
    copied = 0
    try:
        with cluster.wire.stream(f"{_path(cluster, name)}/results/{quote(path)}", {"offset": str(offset)}) as answer:
            while block := answer.read(BLOCK):
                sink.write(block)
                copied += len(block)
    except NotFound as error:
        if "has no result" not in error.message:
            raise
    sink.flush()
    return copied


# -- what apply does besides, for jobs with an archive


def announce(manifest: Json, bundle: str) -> Path | bytes | None:
    """Write into a GpuJob's manifest which archive will come; where it is, or it itself, None if there is none.

    The archive is that of `apply -j`, or the folder that an older manifest names, packed.
    """
    if manifest.get("kind") != "GpuJob":
        return None
    folder = ((manifest.get("metadata") or {}).get("annotations") or {}).get(FOLDER_ANNOTATION)
    data: Path | bytes
    if bundle:
        data = Path(bundle)
        if not data.is_file():
            raise click.ClickException(f"-j {bundle}: there is no such file")
        with data.open("rb") as file:
            digest, size = hashlib.file_digest(file, "sha256").hexdigest(), data.stat().st_size
    elif folder:
        if not Path(folder).is_dir():
            raise click.ClickException(f"the job's sources are to be in {folder}, and there is no such folder here")
        data = _packed(Path(folder))
        digest, size = hashlib.sha256(data).hexdigest(), len(data)
    else:
        return None
    archive = {"name": Path(bundle or str(folder)).name, "sha256": digest, "size": size}
    manifest.setdefault("spec", {})["source"] = {"archive": archive}
    return data


def _packed(folder: Path) -> bytes:
    """A tar of a folder's files; the same files make the same bytes."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as packed:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
            info = packed.gettarinfo(path, path.relative_to(folder).as_posix())
            info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
            with path.open("rb") as file:
                packed.addfile(info, file)
    return made.getvalue()
