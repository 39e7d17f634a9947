"""Objects that fit a kind's schema and nothing else: sparse or full, with the oddest values that their types allow."""

from __future__ import annotations

import random
from typing import Any

from minik8s.api import definitions

ODD = {
    "string": ["", "a", "web", "None", "UPPER", "-x", "..", "/abs", "a b", "ü", "x" * 300, "0", "50%", "²%", "a=b"],
    "int32": [0, 1, -1, 80, 65536, 2**31 - 1, -(2**31)],
    "int64": [0, 1, -1, 30, 2**63 - 1, -(2**63)],
    "quantity": ["1", "500m", "1Gi", "", "-1", "nonsense", 0, 1.5, 10**30],
    "int-or-string": [0, 1, -1, 65536, "", "http", "25%", "-5%", "101%", "²%", "%"],
    "date-time": ["2024-02-29T12:00:00Z", "2024-02-29T12:00:00.123456+02:00"],
    "byte": ["", "eA==", "/////w=="],
}  # fmt: skip
WORDS = {  # values that open a branch of the code, by the name of the field
    "restartPolicy": ["Always", "OnFailure", "Never"],
    "operator": ["In", "NotIn", "Exists", "DoesNotExist", "Equal", "Gt"],
    "effect": ["NoExecute", "NoSchedule"],
    "type": ["RollingUpdate", "Recreate", "OnDelete", "NodePort", "ExternalName", "LoadBalancer", "kubernetes.io/tls"],
    "completionMode": ["Indexed", "NonIndexed"],
    "sessionAffinity": ["ClientIP", "None"],
    "kind": ["ServiceAccount", "User", "ClusterRole", "Role"],
    "clusterIP": ["None", "10.96.0.9"],
    "fieldPath": ["metadata.name", "metadata.labels['a']", "status.podIP"],
}
KEYS = ["a", "cpu", "memory", "example.com/x", "", "tls.crt", "..", "K_k"]
FREE = ({}, {"a": 1}, {"deep": [{"x": None}]})
DEEPEST = 14


class Maker:
    """`density` of optional fields, from 0 (none) to 1 (all)."""

    def __init__(self, rng: random.Random, density: float) -> None:
        self.rng = rng
        self.density = density

    def make(self, definition: str) -> dict[str, Any]:
        return self._of(definitions.shape(definition), "", 0)

    def _of(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        while "$ref" in schema:
            schema = definitions.shape(schema["$ref"])
        match schema.get("type"):
            case "array":
                items = schema.get("items") or {}
                return [
                    self._of(items, name, depth + 1) for _ in range(self.rng.randrange(3 if depth < DEEPEST else 1))
                ]
            case "object" if "properties" in schema:
                return self._object(schema, depth)
            case "object":
                return self._map(schema.get("additionalProperties"), depth)
            case "boolean":
                return self.rng.random() < 0.5
            case "string" if name in WORDS and self.rng.random() < 0.7:
                return self.rng.choice(WORDS[name])
            case kind:
                return self.rng.choice(ODD.get(schema.get("format", kind), ODD.get(str(kind), [1])))

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        chance = self.density if depth < DEEPEST else 0.0
        wanted = (
            set(schema.get("required", ())) | {"spec", "metadata"} if depth == 0 else set(schema.get("required", ()))
        )
        return {
            key: self._of(inner, key, depth + 1)
            for key, inner in schema["properties"].items()
            if key in wanted or self.rng.random() < chance
        }

    def _map(self, values: Any, depth: int) -> dict[str, Any]:
        if not isinstance(values, dict):
            return dict(self.rng.choice(FREE))
        keys = self.rng.sample(
            ["a", "cpu", "memory", "example.com/x", "", "tls.crt", "..", "K_k"], self.rng.randrange(3)
        )
        return {key: self._of(values, "", depth + 1) for key in keys}


def random_object(definition: str, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    return Maker(rng, rng.choice((0.05, 0.15, 0.3, 0.5))).make(definition)
