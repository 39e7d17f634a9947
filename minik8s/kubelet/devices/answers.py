"""What plugins have answered, as what the engine is to give to a container. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from minik8s.kubelet.devices import cdi
from minik8s.kubelet.devices.allocator import Holding
from minik8s.kubelet.kit import Allocation
from minik8s.runtime.base import Device, Mount

ANNOTATION_LABEL = "annotation."  # as dockershim had it: Docker containers have labels, and no annotations
NVIDIA_GPU, VISIBLE = "nvidia.com/gpu", "NVIDIA_VISIBLE_DEVICES"
NO_IDS = ("", "all", "none", "void")  # words of VISIBLE that name no device


def allocation(holdings: Sequence[Holding], specs: Sequence[Sequence[cdi.Spec]], *, nvidia: bool) -> Allocation:
    """All of one container's answers together; what CDI adds comes last. `cdi.Unresolvable`.

    `nvidia`: the engine gives GPUs itself when it is asked for them by id (Docker's DeviceRequests), with libraries
    and all. It is asked for what the plugin says is visible, which for shared GPUs is not what the device is called.
    """
    answers = [holding.answer for holding in holdings if holding.answer is not None]
    gpus = tuple(gpu for holding in holdings for gpu in _gpus(holding)) if nvidia else ()
    others = [h.answer for h in holdings if h.answer is not None and not (gpus and h.resource == NVIDIA_GPU)]
    given = cdi.resolve([name for a in others for name in (*a.cdi, *cdi.from_annotations(a.annotations))], specs)
    mounts = [Mount(m.source, m.target, m.readOnly) for a in answers for m in a.mounts]
    devices = [Device(d.source, d.target, d.permissions) for a in answers for d in a.devices]
    return Allocation(
        env=tuple(pair for answer in answers for pair in answer.envs.items()) + given.env,
        # Devices of one plugin often share a control node or a library; engines refuse a path that comes twice.
        mounts=tuple({mount.target: mount for mount in (*mounts, *given.mounts)}.values()),
        devices=tuple({device.container_path: device for device in (*devices, *given.devices)}.values()),
        labels={ANNOTATION_LABEL + key: value for a in answers for key, value in a.annotations.items()},
        groups=given.groups,
        gpus=gpus,
        left_out=given.hooks,
    )


def _gpus(holding: Holding) -> list[str]:
    if holding.resource != NVIDIA_GPU or holding.answer is None:
        return []
    visible = [word for word in holding.answer.envs.get(VISIBLE, "").split(",") if word not in NO_IDS]
    return visible or list(holding.ids)
