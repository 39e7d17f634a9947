"""enter.py PID COMMAND...: run a command in the namespaces of a process, as if it had been started there.

Unlike nsenter it hands signals on and dies together with the command, so that whoever starts, stops and kills it
starts, stops and kills the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

NAMESPACES = ("ipc", "uts", "net", "pid", "mnt")  # the mounts last: afterwards other paths are seen
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> int:
    target, command, here = sys.argv[1], sys.argv[2:], os.getcwd()
    for descriptor in [os.open(f"/proc/{target}/ns/{name}", os.O_RDONLY) for name in NAMESPACES]:
        check(libc.setns(descriptor, 0))
        os.close(descriptor)
    os.chdir(here)
    child = os.fork()  # only children are in another namespace of processes
    if child == 0:
        check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        os.execvp(command[0], command)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: os.kill(child, number))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    code = main()
    sys.exit(code if code >= 0 else 128 - code)
