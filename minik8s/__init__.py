"""minik8s: a small Kubernetes in one asyncio Python package."""

__version__ = "0.1.0"

# The Kubernetes release whose API shapes and defaults are served; clients compare it with their own version.
KUBERNETES_VERSION = "v1.33.0"
