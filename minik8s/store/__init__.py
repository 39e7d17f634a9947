"""Where objects live: one protocol (`base`), three stores, and the head that serves all (`watch_cache`)."""

from __future__ import annotations

from pathlib import Path

from minik8s.store.base import Store, StoreError

FORMS = "sqlite, sqlite:PATH, etcd://HOST:PORT[,HOST:PORT…] or memory"


def open_store(spec: str, *, data_dir: Path) -> Store:
    """The store that `--store` names, not yet entered; `sqlite` lies in `data_dir`. Raises StoreError in words.

    Each driver is imported only when it is asked for: gRPC alone costs more memory than the rest of an agent.
    """
    scheme, _, rest = spec.partition(":")
    if spec == "memory":
        from minik8s.store.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite" and (spec == "sqlite" or rest):
        from minik8s.store.sqlite import SqliteStore

        return SqliteStore(Path(rest).expanduser() if rest else data_dir / "state.db")
    if spec.startswith("etcd://"):
        endpoints = [_endpoint(part, spec) for part in spec.removeprefix("etcd://").rstrip("/").split(",")]
        try:
            from minik8s.store.etcd import EtcdStore
        except ImportError as error:
            raise StoreError(f"store {spec!r} needs etcd's client: pip install 'minik8s[etcd]' ({error})") from error
        return EtcdStore(endpoints)
    raise StoreError(f"unknown store {spec!r}: it is one of {FORMS}")


def _endpoint(text: str, spec: str) -> tuple[str, int]:
    """`host:2379`, `[::1]:2379`; the port may be left out."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    port = port or "2379"
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise StoreError(f"store {spec!r}: {text!r} is not HOST:PORT, as in etcd://10.0.0.1:2379,10.0.0.2:2379")
    return host, int(port)
