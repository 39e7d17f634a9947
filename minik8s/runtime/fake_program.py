"""What a container on a fake node does, read from its command: a few words of shell are understood. Pure.

    sleep 5; exit 1         runs 5 s, ends with 1            true | false | exit N      ends at once
    echo hello; sleep 60    a line in its log, then 60 s     trap '' TERM; sleep 600    ignores SIGTERM
    cat                     gives back what it is sent       hostname | env             print what they should
    anything else           a server: runs until it is stopped; as an exec it succeeds

`sh -c "…"` is unwrapped. The image `fake/exit:N` ends at once with N, unless a command is given.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SEPARATORS = re.compile(r"\s*(?:;|&&|\n)\s*")


class Program(NamedTuple):
    seconds: float | None  # how long it runs, None = until it is stopped
    code: int = 0
    output: tuple[tuple[int, bytes], ...] = ()  # (1 stdout | 2 stderr, line), written at the start
    ignores_term: bool = False
    echoes: bool = False  # cat


def program(words: Sequence[str], env: Mapping[str, str], hostname: str = "", image: str = "") -> Program:
    """What this command line does; no words = what the image does."""
    name, _, tag = image.rpartition(":")
    if not words:
        exits = name.endswith("fake/exit") and tag.isdecimal()
        return Program(0, int(tag)) if exits else Program(None)
    if len(words) >= 3 and words[0].rpartition("/")[2] in ("sh", "bash", "ash") and words[1] == "-c":
        return _run([shlex.split(step) for step in _SEPARATORS.split(words[2].strip()) if step], env, hostname)
    return _run([list(words)], env, hostname)


def _run(steps: Sequence[list[str]], env: Mapping[str, str], hostname: str) -> Program:
    seconds, code, ignores = 0.0, 0, False
    output: list[tuple[int, bytes]] = []
    for name, *args in (step for step in steps if step):
        if name in ("true", "false", "exit"):
            code = int(args[0]) if name == "exit" and args else int(name == "false")
            if name == "exit":
                break
        elif name == "echo":
            stream = 2 if ">&2" in args else 1
            words = (_variables(word, env) for word in args if word != ">&2")
            output.append((stream, (" ".join(words) + "\n").encode()))
        elif name == "sleep" and args and args[0].replace(".", "", 1).isdecimal():
            seconds += float(args[0])
        elif name == "trap":
            ignores = args[:1] == [""]
        elif name == "hostname":
            output.append((1, hostname.encode() + b"\n"))
        elif name == "env":
            output.extend((1, f"{key}={value}\n".encode()) for key, value in env.items())
        else:
            return Program(None, 0, tuple(output), ignores, echoes=name == "cat" and not args)
    return Program(seconds, code, tuple(output), ignores)


def _variables(word: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: env.get(found[1], ""), word)
