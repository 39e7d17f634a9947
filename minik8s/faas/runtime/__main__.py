"""`python -m minik8s.faas.runtime`: FUNCTION_PORT (8080), FUNCTION_TOKEN_SHA256 or FUNCTION_TOKEN."""

from __future__ import annotations

import os
import sys

from minik8s.faas.runtime.supervisor import main

main(os.environ, sys.path)
