"""`--store` in all its forms, and in wrong ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minik8s.store import open_store
from minik8s.store.base import StoreError
from minik8s.store.memory import MemoryStore
from minik8s.store.sqlite import SqliteStore


async def test_sqlite_lies_in_the_data_folder_or_where_it_is_told(tmp_path: Path):
    async with open_store("sqlite", data_dir=tmp_path / "data") as store:
        assert isinstance(store, SqliteStore)
    assert (tmp_path / "data" / "state.db").exists()
    async with open_store(f"sqlite:{tmp_path}/other.db", data_dir=tmp_path / "unused"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["data", "other.db"]


def test_memory(tmp_path: Path):
    assert isinstance(open_store("memory", data_dir=tmp_path), MemoryStore)


@pytest.mark.parametrize(
    ("spec", "endpoints"),
    [
        ("etcd://a", "a:2379"),
        ("etcd://a:1,b:2/", "a:1,b:2"),
        ("etcd://[::1]:7,[fe80::2]", "::1:7,fe80::2:2379"),
    ],
)
def test_etcd(tmp_path: Path, spec: str, endpoints: str):
    pytest.importorskip("aetcd")
    assert str(open_store(spec, data_dir=tmp_path)) == f"etcd at {endpoints}"


@pytest.mark.parametrize("spec", ["", "sqlite:", "etcd", "etcd:a", "mysql://a", "Memory", "memory:x"])
def test_an_unknown_store_is_answered_with_the_known_ones(tmp_path: Path, spec: str):
    with pytest.raises(StoreError, match=r"sqlite, sqlite:PATH, etcd://HOST:PORT"):
        open_store(spec, data_dir=tmp_path)


@pytest.mark.parametrize("spec", ["etcd://", "etcd://a:b", "etcd://a,,b", "etcd://a:0", "etcd://:5", "etcd://[::1]x"])
def test_a_wrong_endpoint_is_shown_with_an_example(tmp_path: Path, spec: str):
    with pytest.raises(StoreError, match=r"is not HOST:PORT, as in etcd://"):
        open_store(spec, data_dir=tmp_path)


def test_only_etcd_imports_grpc(tmp_path: Path):
    code = """
import pathlib, sys
import minik8s.store, minik8s.store.watch_cache
minik8s.store.open_store("memory", data_dir=pathlib.Path("."))
assert "sqlite3" not in sys.modules
minik8s.store.open_store("sqlite", data_dir=pathlib.Path("."))
assert not {"aetcd", "grpc", "google.protobuf"} & set(sys.modules)
sys.modules["aetcd"] = None
try:
    minik8s.store.open_store("etcd://a", data_dir=pathlib.Path("."))
except minik8s.store.StoreError as error:
    assert "pip install 'minik8s[etcd]'" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
