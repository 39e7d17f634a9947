"""Settings: which of several places wins, what is refused and in which words, and what a data folder remembers."""

from __future__ import annotations

import re
import stat
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from minik8s.cli import cli
from minik8s.config import Config, ConfigError, load, resume, save, settings, split_address

OPTIONS = [option.name for option in fields(Config)]


def write(folder: Path, text: str) -> Path:
    file = folder / "c.yaml"
    file.write_text(text)
    return file


def test_nothing_given_is_all_defaults() -> None:
    assert load(environ={}) == Config()


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "logLevel: error\nlisten: 1.1.1.1:1\nkubeletPort: 1\n")
    environ = {"MINIK8S_LOG_LEVEL": "warning", "MINIK8S_LISTEN": "2.2.2.2:2"}
    config = load({"log_level": "debug", "listen": None}, file=file, environ=environ)
    assert (config.log_level, config.listen, config.kubelet_port, config.store) == (
        "debug", "2.2.2.2:2", 1, "sqlite",
    )  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_is_in_the_help_with_its_variable(name: str) -> None:
    text = " ".join(CliRunner().invoke(cli, ["run", "--help"]).output.split())
    assert f"--{name.replace('_', '-')} " in text
    assert f"MINIK8S_{name.upper()}" in text.replace("- ", "")


def camel(name: str) -> str:
    return re.sub("_(.)", lambda match: match[1].upper(), name)


ODD: dict[str, Any] = {
    "role": "boss", "runtime": "podman", "log_level": "loud", "log_format": "xml", "listen": "host:port",
    "advertise": "example.com", "node_name": "My_Node", "node_ip": "10.0.0", "pod_cidr": "10.0.0.1/16",
    "service_cidr": "10.96.0.0/30", "cluster_domain": "a b", "kubelet_port": "0", "join": "h:99999", "replicas": "0",
    "node_monitor_grace": "nan", "node_lease_interval": "-1", "data_dir": "", "node_lost_after": "soon",
    "default_toleration": "-5s", "cluster_signing_duration": "0s",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_fault_names_the_place_it_came_from(name: str, tmp_path: Path) -> None:
    value = ODD[name]
    with pytest.raises(ConfigError, match=f"^option --{name.replace('_', '-')}: "):
        load({name: value}, environ={})
    with pytest.raises(ConfigError, match=f"^environment variable MINIK8S_{name.upper()}: "):
        load(environ={f"MINIK8S_{name.upper()}": value})
    file = write(tmp_path, f'{camel(name)}: "{value}"\n')
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(file))}, {camel(name)}: "):
        load(file=file, environ={})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("- a\n", "expected a map of settings"),
        ("nodename: a\n", "unknown setting 'nodename'; did you mean nodeName?"),
        ("node-name: a\n", "did you mean nodeName?"),
        ("zzz: a\n", "known are role, dataDir"),
        ("7: a\n", "unknown setting 7"),
        ("listen: a\nlisten: b\n", "is not YAML"),
        ("replicas: 1.5\n", "1.5 is not a whole number"),
        ("replicas: true\n", "True is not a whole number"),
        ("nodeName: [a]\n", r"\['a'\] is not a text"),
        ("dataDir: {}\n", "is not a folder"),
    ],
)
def test_a_faulty_file_is_told_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        load(file=write(tmp_path, text), environ={})
    assert "\n" not in str(told.value)
    assert str(tmp_path) in str(told.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(file=tmp_path / "absent", environ={})
    with pytest.raises(ConfigError, match="Is a directory"):
        load(file=tmp_path, environ={})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        load(file=tmp_path / "binary", environ={})


def test_a_setting_without_a_value_is_not_given(tmp_path: Path) -> None:
    assert load(file=write(tmp_path, "nodeName:\n"), environ={}) == Config()
    assert load(file=write(tmp_path, ""), environ={}) == Config()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"role": "worker"}, "--role worker needs --join"),
        ({"replicas": "5"}, "needs --runtime fake"),
        ({"service_cidr": "10.244.0.0/16"}, "overlap"),
        ({"pod_cidr": "10.244.0.0/25"}, "at least a /24 is needed"),
        ({"pod_cidr": "fd00::/64"}, "IPv4 network"),
        ({"node_name": "x" * 53}, "at most 52"),
    ],
)
def test_settings_that_do_not_go_together(flags: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(flags, environ={})


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", ("10.0.0.1", 6443)),
        ("10.0.0.1:7000", ("10.0.0.1", 7000)),
        (":7000", ("", 7000)),
        ("[::1]:7000", ("::1", 7000)),
        ("::1", ("::1", 6443)),
        ("host.example", ("host.example", 6443)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text, 6443) == address


def test_addresses_in_the_cluster() -> None:
    config = Config(service_cidr="10.96.0.0/12", listen="0.0.0.0:7000")
    assert (config.kubernetes_ip, config.dns_ip, config.server) == ("10.96.0.1", "10.96.0.10", "https://127.0.0.1:7000")
    assert Config(role="worker", join="m").server == "https://m:6443"


def test_a_used_data_folder_goes_on_with_its_settings(tmp_path: Path) -> None:
    made = load({"data_dir": tmp_path / "d", "runtime": "fake", "replicas": "3", "token": "secret"}, environ={})
    save(made)
    kept = tmp_path / "d" / "config.yaml"
    assert "secret" not in kept.read_text()
    again = resume({"data_dir": str(tmp_path / "d")}, environ={})
    assert settings(again) == {k: v for k, v in settings(made).items() if k != "token"}
    changed = resume({"data_dir": tmp_path / "d", "log_level": "debug"}, environ={"MINIK8S_REPLICAS": "4"})
    assert (changed.replicas, changed.log_level, changed.runtime) == (4, "debug", "fake")
    by_environment = resume(environ={"MINIK8S_DATA_DIR": str(tmp_path / "d")})
    assert by_environment.replicas == 3
    assert resume({"data_dir": tmp_path / "new"}, environ={}) == Config(data_dir=tmp_path / "new")
    assert stat.S_IMODE(kept.stat().st_mode) & 0o022 == 0


def test_a_worker_need_not_say_again_whom_it_has_joined(tmp_path: Path) -> None:
    save(load({"data_dir": tmp_path, "role": "worker", "join": "10.0.0.1"}, environ={}))
    assert resume({"data_dir": tmp_path, "role": "worker"}, environ={}).join == "10.0.0.1"


def test_each_setting_survives_being_saved(tmp_path: Path) -> None:
    values = {
        "role": "worker", "listen": "1.2.3.4:1", "advertise": "1.2.3.4", "node_name": "n", "node_ip": "1.2.3.4",
        "store": "memory", "runtime": "fake", "docker_host": "tcp://x", "pod_cidr": "10.1.0.0/16", "replicas": "2",
        "service_cidr": "10.2.0.0/16", "cluster_domain": "x.y", "kubelet_port": "7", "join": "m", "log_level": "debug",
        "node_monitor_grace": "1.5", "node_lease_interval": "500ms", "log_format": "json", "node_lost_after": "14s",
        "default_toleration": "5m", "cluster_signing_duration": "7d",
        "functions": "off", "function_pool": "3", "gateway_listen": "127.0.0.1:9", "gateway_tls": "true",
        "gateway_queue": "7", "gpu_jobs": "off", "workflows": "off", "workflow_http_allow": "127.0.0.0/8",
        "host_dns": "true", "ingress": "off", "ingress_image": "x/y:1", "ingress_http_port": "81",
        "device_plugins": "/run/plugins", "fake_device": "vendor.example/foo=4",
        "ingress_https_port": "444", "pod_network": "vxlan", "dashboard_listen": "off", "dashboard_write": "true",
    }  # fmt: skip
    assert set(values) == set(OPTIONS) - {"data_dir", "token"}
    made = load({"data_dir": tmp_path, **values}, environ={})
    save(made)
    assert resume({"data_dir": tmp_path}, environ={}) == made


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("7s", 7), ("1.5", 1.5), ("500ms", 0.5), ("5m", 300), ("24h", 86400), ("365d", 365 * 86400), (7, 7)],
)
def test_times_have_units(text: Any, value: float) -> None:
    assert load({"node_monitor_grace": text}, environ={}).node_monitor_grace == value


@pytest.mark.parametrize("text", ["", "soon", "7x", "7 s 3", "1:30", "inf", "--7", "1.2.3"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a time, e\.g\. 7s, 5m or 24h"):
        load({"node_monitor_grace": text}, environ={})


def test_one_setting_makes_the_three_times_fit(tmp_path: Path) -> None:
    def times(config: Config) -> tuple[float, float, float]:
        return config.node_lease_interval, config.node_monitor_grace, config.default_toleration

    assert times(load(environ={})) == (5, 20, 300)
    made = load({"data_dir": tmp_path, "node_lost_after": "7s"}, environ={})
    assert times(made) == (1, 4, 0)
    save(made)
    assert times(resume({"data_dir": tmp_path}, environ={})) == (1, 4, 0)
    assert times(resume({"data_dir": tmp_path, "node_lost_after": "14s"}, environ={})) == (2, 8, 0)
    assert times(resume({"data_dir": tmp_path, "node_lost_after": "0"}, environ={})) == (5, 20, 300)
    assert times(load({"node_lost_after": "7s", "node_monitor_grace": "5s"}, environ={})) == (1, 5, 0)
