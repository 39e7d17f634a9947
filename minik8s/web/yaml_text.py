"""Objects as YAML, for people to read and change. Slow for large ones: to be called in a thread."""

from __future__ import annotations

from io import StringIO
from typing import Any

from minik8s.api.errors import BadRequest


def dump(document: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 4096
    text = StringIO()
    first: dict[str, Any] = {key: document[key] for key in ("apiVersion", "kind", "metadata") if key in document}
    yaml.dump({**first, **document}, text)
    return text.getvalue()


def load(text: str) -> dict[str, Any]:
    """Raises BadRequest with the line that is wrong."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, RecursionError) as error:
        raise BadRequest(f"this is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise BadRequest("the YAML is no object")
    return document
