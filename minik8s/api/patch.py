"""The patches that clients send, as pure functions: JSON patch, merge patch and strategic merge patch.

Inputs are left as they were and the results share nothing with them. BadRequest: the patch is malformed; Invalid: it
is well formed but does not fit the object (a failed `test`, a missing path).
"""

from __future__ import annotations

from minik8s.api.rfc_patch import json_patch, merge_patch
from minik8s.api.strategic import strategic_merge

__all__ = ["json_patch", "merge_patch", "strategic_merge"]
