"""What this process may do on its host, and so hand on to containers.

Capabilities are named by number as `capability.h` orders them. The three newest (PERFMON, BPF, CHECKPOINT_RESTORE)
are left out: Docker 20.10 refuses names that it does not know, and SYS_ADMIN includes what they allow.
"""

from __future__ import annotations

from pathlib import Path

from minik8s.runtime.docker_json import Limits

CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
)  # fmt: skip

_CAP_SYS_RESOURCE = 24


def own_limits(proc: Path = Path("/proc/self")) -> Limits:
    """What this process may hand on. Without CAP_SYS_RESOURCE the kernel refuses lower oom_score_adj than our own."""
    lines = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
    bounding = int(lines["CapBnd"], 16)
    if bounding >> _CAP_SYS_RESOURCE & 1:
        return Limits()
    names = tuple(name for bit, name in enumerate(CAPABILITIES) if bounding >> bit & 1)
    return Limits(int((proc / "oom_score_adj").read_text()), names)
