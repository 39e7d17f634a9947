"""What can stand between a container and its devices."""

from __future__ import annotations

from minik8s.runtime.base import RuntimeFailure


class WaitingForPlugin(RuntimeFailure):
    """The plugin of a resource is not there (yet): the container waits, and is tried again when it registers."""

    reason = "WaitingForDevicePlugin"


class DevicesRefused(RuntimeFailure):
    """The pod cannot have what it asks for on this node: it fails, so that whoever made it makes another."""

    reason = "UnexpectedAdmissionError"


class PluginFailed(Exception):
    """A plugin did not answer, or said no; the message has its words."""
