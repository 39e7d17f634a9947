"""The pause program: the process that holds a pod's namespaces, built here from a few instructions.

It blocks INT, TERM and CHLD, then waits for them: CHLD reaps the orphans of a shared PID namespace, INT and TERM end
it. As the first process of a PID namespace it must wait for signals itself: the kernel ignores those it has no handler
for. No compiler and no registry is needed: this file writes the ELF executable and the layer that the engine imports.
"""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile

Step = bytes | str | tuple[bytes, str]  # instruction | "label:" | (jump's opcode, label)

_SIGNALS = 1 << (2 - 1) | 1 << (15 - 1) | 1 << (17 - 1)  # INT, TERM, CHLD as a kernel signal set

_X86_64: tuple[Step, ...] = (
    b"\x48\x83\xec\x10",  # sub rsp, 16
    b"\x48\xc7\x04\x24" + struct.pack("<I", _SIGNALS),  # mov qword [rsp], signals
    b"\xb8" + struct.pack("<I", 14),  # mov eax, rt_sigprocmask
    b"\x31\xff",  # xor edi, edi: SIG_BLOCK
    b"\x48\x89\xe6",  # mov rsi, rsp
    b"\x31\xd2",  # xor edx, edx
    b"\x41\xba" + struct.pack("<I", 8),  # mov r10d, 8: size of the set
    b"\x0f\x05",  # syscall
    "wait:",
    b"\xb8" + struct.pack("<I", 128),  # mov eax, rt_sigtimedwait
    b"\x48\x89\xe7",  # mov rdi, rsp
    b"\x31\xf6",  # xor esi, esi
    b"\x31\xd2",  # xor edx, edx: no timeout
    b"\x41\xba" + struct.pack("<I", 8),  # mov r10d, 8
    b"\x0f\x05",  # syscall
    b"\x83\xf8\x02",  # cmp eax, INT
    (b"\x74", "exit"),  # je exit
    b"\x83\xf8\x0f",  # cmp eax, TERM
    (b"\x74", "exit"),  # je exit
    "reap:",
    b"\xb8" + struct.pack("<I", 61),  # mov eax, wait4
    b"\x48\x83\xcf\xff",  # or rdi, -1: any child
    b"\x31\xf6",  # xor esi, esi
    b"\xba" + struct.pack("<I", 1),  # mov edx, WNOHANG
    b"\x45\x31\xd2",  # xor r10d, r10d
    b"\x0f\x05",  # syscall
    b"\x85\xc0",  # test eax, eax
    (b"\x7f", "reap"),  # jg reap
    (b"\xeb", "wait"),  # jmp wait
    "exit:",
    b"\xb8" + struct.pack("<I", 60),  # mov eax, exit
    b"\x31\xff",  # xor edi, edi
    b"\x0f\x05",  # syscall
)


def _movz(register: int, value: int) -> bytes:
    return struct.pack("<I", 0xD2800000 | value << 5 | register)


_SVC = struct.pack("<I", 0xD4000001)
_B_EQ, _B_GT, _B = (struct.pack("<I", code) for code in (0x54000000, 0x5400000C, 0x14000000))

_AARCH64: tuple[Step, ...] = (
    struct.pack("<I", 0xD10043FF),  # sub sp, sp, #16
    _movz(9, _SIGNALS & 0xFFFF),
    struct.pack("<I", 0xF2A00000 | (_SIGNALS >> 16) << 5 | 9),  # movk x9, #signals >> 16, lsl #16
    struct.pack("<I", 0xF90003E9),  # str x9, [sp]
    _movz(8, 135),  # rt_sigprocmask
    _movz(0, 0),  # SIG_BLOCK
    struct.pack("<I", 0x910003E1),  # mov x1, sp
    _movz(2, 0),
    _movz(3, 8),
    _SVC,
    "wait:",
    _movz(8, 137),  # rt_sigtimedwait
    struct.pack("<I", 0x910003E0),  # mov x0, sp
    _movz(1, 0),
    _movz(2, 0),
    _movz(3, 8),
    _SVC,
    struct.pack("<I", 0x7100001F | 2 << 10),  # cmp w0, INT
    (_B_EQ, "exit"),
    struct.pack("<I", 0x7100001F | 15 << 10),  # cmp w0, TERM
    (_B_EQ, "exit"),
    "reap:",
    _movz(8, 260),  # wait4
    struct.pack("<I", 0x92800000),  # mov x0, -1: any child
    _movz(1, 0),
    _movz(2, 1),  # WNOHANG
    _movz(3, 0),
    _SVC,
    struct.pack("<I", 0xF100001F),  # cmp x0, #0
    (_B_GT, "reap"),
    (_B, "wait"),
    "exit:",
    _movz(8, 93),  # exit
    _movz(0, 0),
    _SVC,
)

_MACHINES = {"amd64": (62, _X86_64), "arm64": (183, _AARCH64)}  # Docker's name: (ELF e_machine, program)


def _jump(opcode: bytes, distance: int) -> bytes:
    """A relative jump: `distance` counts from the jump's first byte."""
    if len(opcode) == 1:  # x86: one signed byte, from the end of the two-byte instruction
        return opcode + struct.pack("<b", distance - 2)
    (word,) = struct.unpack("<I", opcode)
    words = distance // 4
    field = (words & 0x3FFFFFF) if opcode == _B else (words & 0x7FFFF) << 5
    return struct.pack("<I", word | field)


def assemble(steps: tuple[Step, ...]) -> bytes:
    """Instructions with their labels resolved."""
    labels: dict[str, int] = {}
    at = 0
    for step in steps:
        if isinstance(step, str):
            labels[step.rstrip(":")] = at
        elif isinstance(step, tuple):
            at += 2 if len(step[0]) == 1 else 4
        else:
            at += len(step)
    code = b""
    for step in steps:
        if isinstance(step, tuple):
            code += _jump(step[0], labels[step[1]] - len(code))
        elif isinstance(step, bytes):
            code += step
    return code


def executable(architecture: str) -> bytes:
    """A static ELF64 executable for Docker's architecture name (amd64 | arm64); KeyError for others."""
    machine, steps = _MACHINES[architecture]
    base, header = 0x400000, 64 + 56
    code = assemble(steps)
    size = header + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bit, little endian, version 1
    elf = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, machine, 1, base + header, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000)  # PT_LOAD, readable and executable
    return elf + segment + code


def layer(architecture: str) -> bytes:
    """A tar with `/pause` and the empty folders that an engine mounts onto; the same bytes every time."""
    program = executable(architecture)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("dev", "etc", "proc", "sys"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()


def image_name(architecture: str) -> str:
    """`minik8s/pause:<hash of its content>`: a changed program never meets an old image."""
    return f"minik8s/pause:{hashlib.sha256(layer(architecture)).hexdigest()[:12]}"
