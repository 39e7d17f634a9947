"""Images made of this machine's own Python: its standard library, the shared libraries that it loads, libraries and
sources of our own. No registry, no base image. `FUNCTIONS` is that of functions' pods; others have a `Recipe`, too.

`python -m minik8s.faas.runtime_image` writes an archive that `docker load` takes. The same files make the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import minik8s

REPOSITORY: Final = "minik8s/function-python"
_PACKAGE: Final = Path(minik8s.__file__).parent
_LEFT_OUT: Final = frozenset(
    {"__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "tkinter",
     "turtledemo"}
)  # fmt: skip
_UNLOADED: Final = re.compile(r"(_tkinter|_test|_ctypes_test|xx)")  # extension modules that nobody wants here
_EXPECTED: Final = (  # by extension modules of wheels, and by the C library when it looks up names
    "libdl.so.2", "libgcc_s.so.1", "libgomp.so.1", "libm.so.6", "libnss_dns.so.2", "libnss_files.so.2",
    "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libstdc++.so.6", "libutil.so.1",
)  # fmt: skip
_LOADERS: Final = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
_FOLDERS: Final = ("dev", "environment", "proc", "root", "run", "sys", "var")
_HOME: Final = "usr/local"
_VERSION: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
_LIBRARY: Final = f"{_HOME}/lib/{_VERSION}"
FIRST_UID: Final = 20_000  # who user code runs as
_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


class ImageError(Exception):
    """The image cannot be made here; the text says what is missing."""


class Recipe(NamedTuple):
    """What an image holds besides Python. `carried`: files and folders of minik8s; `distributions`: what pip knows."""

    repository: str
    carried: tuple[str, ...]
    distributions: tuple[str, ...]
    command: tuple[str, ...]  # arguments of python3
    made_by: str
    env: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    modules: tuple[tuple[str, bytes], ...] = ()  # more files of site-packages
    pip: bool = False


FUNCTIONS: Final = Recipe(
    REPOSITORY, ("__init__.py", "archives.py", "faas/__init__.py", "faas/runtime"), ("httptools",),
    ("-s", "-m", "minik8s.faas.runtime"), "minik8s func build-runtime", (f"FUNCTION_FIRST_UID={FIRST_UID}",),
    ("8080/tcp",), (("serverless.py", b"from minik8s.faas.runtime.serverless import *\n"),), pip=True,
)  # fmt: skip


@functools.cache
def image_name(recipe: Recipe = FUNCTIONS) -> str:
    """`minik8s/function-python:<version>-<hash of the source>`: a changed runtime never meets an old image."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name, path in _carried(recipe):
        digest.update(name.encode() + path.read_bytes())
    return f"{recipe.repository}:{minik8s.__version__}-{digest.hexdigest()[:8]}"


def write(target: BinaryIO, recipe: Recipe = FUNCTIONS) -> None:
    """An archive for `docker load`, of about 60 MB. Raises ImageError."""
    with tempfile.TemporaryFile() as layer:
        _write_layer(layer, recipe)
        layer.seek(0)
        digest = hashlib.file_digest(layer, "sha256").hexdigest()
        config = json.dumps(_config(digest, recipe), sort_keys=True).encode()
        identity = hashlib.sha256(config).hexdigest()
        tags = [image_name(recipe)]
        manifest = [{"Config": f"{identity}.json", "RepoTags": tags, "Layers": [f"{digest}/layer.tar"]}]
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, f"{identity}.json", config)
            _add(tar, "manifest.json", json.dumps(manifest).encode())
            info = tarfile.TarInfo(f"{digest}/layer.tar")
            info.size = layer.seek(0, os.SEEK_END)
            layer.seek(0)
            tar.addfile(info, layer)


def _config(layer: str, recipe: Recipe) -> dict[str, object]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    env = [f"PATH=/{_HOME}/bin:/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", *recipe.env]
    return {
        "architecture": machine,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": env,
            "Entrypoint": [f"/{_HOME}/bin/python3", *recipe.command],
            **({"ExposedPorts": {port: {} for port in recipe.ports}} if recipe.ports else {}),
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": recipe.made_by}],
    }


# -- the layer


def _write_layer(target: BinaryIO, recipe: Recipe) -> None:
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        rootfs = _Rootfs(tar)
        for folder in _FOLDERS:
            rootfs.folder(folder)
        for folder in ("tmp", "var/tmp"):
            rootfs.folder(folder, mode=0o1777)
        for name, text in _FILES.items():
            rootfs.file(name, text.encode())
        rootfs.folder("root")
        programs = [*_python(rootfs), *_shell(rootfs)]
        for each in recipe.distributions:
            programs += _extensions(each)
        rootfs.libraries(programs)
        _packages(rootfs, recipe)
        _data(rootfs)


class _Rootfs:
    """Writes a root folder into a tar, each path once, with the folders above it."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._there: set[str] = set()

    def folder(self, name: str, mode: int = 0o755) -> None:
        if name in ("", ".") or name in self._there:
            return
        self.folder(os.path.dirname(name))
        self._there.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode = tarfile.DIRTYPE, mode
        self._tar.addfile(info)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        if name in self._there:
            return
        self.folder(os.path.dirname(name))
        self._there.add(name)
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), mode
        self._tar.addfile(info, io.BytesIO(data))

    def copy(self, name: str, path: Path, mode: int = 0o644) -> None:
        self.file(name, path.read_bytes(), mode)

    def link(self, name: str, target: str) -> None:
        if name in self._there:
            return
        self.folder(os.path.dirname(name))
        self._there.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(info)

    def module(self, name: str, data: bytes, compiled: Path | None = None) -> None:
        """A Python source with its byte code, which is not looked at for its age: no start has to compile it."""
        self.file(name, data)
        place, file = os.path.split(name)
        code = _byte_code(data, name, compiled)
        if code is not None:
            self.file(f"{place}/__pycache__/{file.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc", code)

    def tree(self, name: str, root: Path) -> None:
        for path in sorted(_walk(root)):
            relative = path.relative_to(root)
            if path.suffix == ".py":
                cached = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
                self.module(f"{name}/{relative}", path.read_bytes(), cached)
            else:
                self.copy(f"{name}/{relative}", path, 0o755 if os.access(path, os.X_OK) else 0o644)

    def libraries(self, programs: Iterable[Path]) -> None:
        """What programs load, at the very places where their loader has found it."""
        found = _libraries(programs)
        for path in sorted(found | _libraries(_expected_libraries(found)) | set(map(str, _expected_libraries(found)))):
            self.copy(path.lstrip("/"), Path(path).resolve(), 0o755)
        cache = Path("/etc/ld.so.cache")
        if cache.exists():
            self.copy("etc/ld.so.cache", cache)


def _byte_code(source: bytes, name: str, compiled: Path | None) -> bytes | None:
    """Unchecked, so that it is right with any time of its file. None for a source that cannot be compiled."""
    header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
    if compiled is not None and compiled.exists():
        data = compiled.read_bytes()
        if data[:4] == importlib.util.MAGIC_NUMBER and data[12:16] == len(source).to_bytes(4, "little"):
            return header + data[16:]
    import marshal

    try:
        return header + marshal.dumps(compile(source, f"/{name}", "exec", dont_inherit=True))
    except (SyntaxError, ValueError):
        return None


def _walk(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")]
        for name in files:
            if not name.endswith((".pyc", ".a")) and not _UNLOADED.match(name):
                yield Path(place, name)


def _python(rootfs: _Rootfs) -> list[Path]:
    """The interpreter and its standard library; the files whose shared libraries are needed."""
    program = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    rootfs.copy(f"{_HOME}/bin/{_VERSION}", program, 0o755)
    for name in ("python", "python3"):
        rootfs.link(f"{_HOME}/bin/{name}", _VERSION)
    for name in ("python3", "python"):
        rootfs.link(f"usr/bin/{name}", f"/{_HOME}/bin/{_VERSION}")
    library = Path(sysconfig.get_path("stdlib"))
    rootfs.tree(_LIBRARY, library)
    extensions = sorted((library / "lib-dynload").glob("*.so"))
    return [program, *(path for path in extensions if not _UNLOADED.match(path.name))]


def _extensions(distribution: str) -> list[Path]:
    files = metadata.distribution(distribution).files or ()
    return [Path(str(file.locate())) for file in files if file.suffix == ".so"]


def _shell(rootfs: _Rootfs) -> list[Path]:
    """busybox, where the machine has it: functions run without."""
    found = shutil.which("busybox")
    if found is None:
        return []
    rootfs.copy("bin/busybox", Path(found).resolve(), 0o755)
    for name in subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout.split():
        rootfs.link(f"bin/{name}", "busybox")
    return [Path(found).resolve()]


def _libraries(files: Iterable[Path]) -> set[str]:
    """As the loader finds them. Raises ImageError."""
    loader = _LOADERS.get(os.uname().machine, "")
    if not os.path.exists(loader):
        raise ImageError("this machine is not one with glibc on x86-64 or arm64: make the image elsewhere, and load it")
    found = {loader}
    for file in files:
        listed = subprocess.run([loader, "--list", str(file)], capture_output=True, text=True, check=False).stdout
        missing = re.search(r"(\S+) => not found", listed)
        if missing:
            raise ImageError(f"{file} needs the shared library {missing[1]}, which is not found on this machine")
        found |= set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", listed, re.MULTILINE))
    return found


def _expected_libraries(beside: Iterable[str]) -> list[Path]:
    """As far as this machine has them, where it has the others."""
    places = sorted({os.path.dirname(path) for path in beside})
    return [Path(place, name) for name in _EXPECTED for place in places if os.path.exists(os.path.join(place, name))]


def _carried(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    for each in recipe.carried:
        path = _PACKAGE / each
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            yield f"minik8s/{file.relative_to(_PACKAGE)}", file


def _packages(rootfs: _Rootfs, recipe: Recipe) -> None:
    site = f"{_LIBRARY}/site-packages"
    for name, path in _carried(recipe):
        rootfs.module(f"{site}/{name}", path.read_bytes())
    for name, source in recipe.modules:
        rootfs.module(f"{site}/{name}", source)
    for distribution in recipe.distributions:
        _distribution(rootfs, site, distribution)
    if recipe.pip:
        _pip(rootfs, site)
    rootfs.link(f"{_LIBRARY}/dist-packages", "site-packages")  # where Debian's own Python looks


def _distribution(rootfs: _Rootfs, site: str, name: str) -> None:
    for file in metadata.distribution(name).files or ():
        path = Path(str(file.locate()))
        if ".." in file.parts or file.suffix == ".pyc" or "__pycache__" in file.parts or not path.is_file():
            continue
        if file.suffix == ".py":
            rootfs.module(f"{site}/{file}", path.read_bytes())
        else:
            rootfs.copy(f"{site}/{file}", path)


def _pip(rootfs: _Rootfs, site: str) -> None:
    """pip, out of the wheel that Python brings, or as it is installed here."""
    wheels = sorted(Path(sysconfig.get_path("stdlib"), "ensurepip", "_bundled").glob("pip-*.whl"))
    wheels += sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    if wheels:
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name in sorted(name for name in wheel.namelist() if not name.endswith("/")):
                (rootfs.module if name.endswith(".py") else rootfs.file)(f"{site}/{name}", wheel.read(name))
        return
    with contextlib.suppress(metadata.PackageNotFoundError):  # only environments need it, and say so
        _distribution(rootfs, site, "pip")


def _data(rootfs: _Rootfs) -> None:
    """Certificates of authorities and time zones, where this machine has them."""
    import ssl

    certificates = ssl.get_default_verify_paths()
    for path in (certificates.cafile, certificates.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if path and os.path.isfile(path):
            rootfs.copy(str(certificates.openssl_cafile).lstrip("/"), Path(path))
            break
    zones = Path("/usr/share/zoneinfo")
    if zones.is_dir():
        for zone in sorted(zones.rglob("*")):
            if zone.is_file() and zone.relative_to(zones).parts[0] not in ("posix", "right"):
                rootfs.copy(f"usr/share/zoneinfo/{zone.relative_to(zones)}", zone)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "--output":
        with open(sys.argv[2], "wb") as file:
            write(file)
    elif len(sys.argv) == 1:
        write(sys.stdout.buffer)
    else:
        sys.exit("usage: python -m minik8s.faas.runtime_image [--output FILE]")


if __name__ == "__main__":
    main()
