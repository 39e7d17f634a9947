"""The gateway of functions: on every node, from clients to the pods of functions and back, without losing a request."""

from typing import Final

from minik8s.api.kinds.workflow import GROUP

ANNOTATION: Final = f"{GROUP}/gateway"  # of a Node: the URL of its gateway
