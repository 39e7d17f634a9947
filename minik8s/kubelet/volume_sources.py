"""What a volume made of API objects holds: paths, bytes and modes. Pure; fetching the objects is the caller's part."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.pod import DownwardAPIFile, KeyToPath, Volume
from minik8s.api.kinds.secret import Secret
from minik8s.kubelet.file_tree import File, UnsafePath, check_relative

DEFAULT_MODE = 0o644  # of configMap, secret, downwardAPI, projected volumes

FieldValue = Callable[[DownwardAPIFile], str]
Fetched = Mapping[tuple[type[ConfigMap] | type[Secret], str], ConfigMap | Secret | None]
Tokens = Mapping[tuple[str, int], str]  # (audience, expirationSeconds) -> token


class MountFailed(Exception):
    """A volume cannot be had now; the text is what the FailedMount event says after the volume's name."""


def is_rendered(volume: Volume) -> bool:
    return any((volume.configMap, volume.secret, volume.downwardAPI, volume.projected))


def holds_secrets(volume: Volume) -> bool:
    """Whether its files belong in memory rather than on disk."""
    if volume.projected is not None:
        return any(s.secret is not None or s.serviceAccountToken is not None for s in volume.projected.sources)
    return volume.secret is not None


def tokens_of(volume: Volume) -> list[tuple[str, int]]:
    sources = volume.projected.sources if volume.projected is not None else ()
    tokens = [source.serviceAccountToken for source in sources if source.serviceAccountToken is not None]
    return [(token.audience, token.expirationSeconds) for token in tokens]


def render(volume: Volume, objects: Fetched, tokens: Tokens, value: FieldValue) -> dict[str, File]:
    """The files of one volume; MountFailed if something is missing that is not optional, or a path is not allowed."""
    if volume.configMap is not None:
        config = volume.configMap
        found = objects[ConfigMap, config.name]
        return _pick("configmap", config.name, found, config.items, _mode(config.defaultMode), optional=config.optional)
    if volume.secret is not None:
        secret = volume.secret
        known = objects[Secret, secret.secretName]
        mode = _mode(secret.defaultMode)
        return _pick("secret", secret.secretName, known, secret.items, mode, optional=secret.optional)
    if volume.downwardAPI is not None:
        return _fields(volume.downwardAPI.items, _mode(volume.downwardAPI.defaultMode), value)
    return _projected(volume, objects, tokens, value)


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode


def _projected(volume: Volume, objects: Fetched, tokens: Tokens, value: FieldValue) -> dict[str, File]:
    assert volume.projected is not None
    mode = _mode(volume.projected.defaultMode)
    files: dict[str, File] = {}
    for source in volume.projected.sources:
        if (config := source.configMap) is not None:
            found = objects[ConfigMap, config.name]
            files |= _pick("configmap", config.name, found, config.items, mode, optional=config.optional)
        if (secret := source.secret) is not None:
            known = objects[Secret, secret.name]
            files |= _pick("secret", secret.name, known, secret.items, mode, optional=secret.optional)
        if source.downwardAPI is not None:
            files |= _fields(source.downwardAPI.items, mode, value)
        if (token := source.serviceAccountToken) is not None:
            files[_safe(token.path)] = File(tokens[token.audience, token.expirationSeconds].encode(), mode)
    return files


def object_data(obj: ConfigMap | Secret) -> dict[str, bytes]:
    if isinstance(obj, Secret):
        return {key: _bytes(key, text) for key, text in obj.data.items()}
    plain = {key: text.encode() for key, text in obj.data.items()}
    return plain | {key: _bytes(key, text) for key, text in obj.binaryData.items()}


def _bytes(key: str, text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (ValueError, binascii.Error):
        raise MountFailed(f"the value of key {key!r} is not base64") from None


def _pick(
    word: str, name: str, obj: ConfigMap | Secret | None, items: Sequence[KeyToPath], mode: int, *, optional: bool
) -> dict[str, File]:
    if obj is None:
        if optional:
            return {}
        raise MountFailed(f'{word} "{name}" not found')
    data = object_data(obj)
    if not items:
        return {_safe(key): File(value, mode) for key, value in data.items()}
    files = {}
    for item in items:
        if item.key in data:
            files[_safe(item.path)] = File(data[item.key], mode if item.mode is None else item.mode)
        elif not optional:
            raise MountFailed(f"{word} references non-existent config key: {item.key}")
    return files


def _fields(items: Sequence[DownwardAPIFile], mode: int, value: FieldValue) -> dict[str, File]:
    return {_safe(item.path): File(value(item).encode(), mode if item.mode is None else item.mode) for item in items}


def _safe(path: str) -> str:
    try:
        return check_relative(path)
    except UnsafePath as error:
        raise MountFailed(str(error)) from None
