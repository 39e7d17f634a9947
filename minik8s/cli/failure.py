"""How a command ends: each mistake is one clear line on standard error and exit code 1."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from minik8s.api.errors import StatusError

INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def run_to_exit(command: Callable[[], Any]) -> NoReturn:
    """Run the whole command line and exit."""
    try:
        code = command()
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(0)
    except click.UsageError as error:
        of = f" (see: {error.ctx.command_path} --help)" if error.ctx is not None else ""
        _say(f"{_one_line(error.format_message())}{of}")
    except click.Abort:
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        _say(error.format_message())
    except StatusError as error:
        from minik8s.cli.verb import explain

        click.echo(explain(error), err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at its end
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


def _say(message: str) -> NoReturn:
    click.echo(f"{click.style('error:', fg='red')} {message}", err=True)
    sys.exit(1)


def _one_line(text: str) -> str:
    return " ".join(text.split())
