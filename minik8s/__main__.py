"""`minik8s` and `python -m minik8s`: hands over to the command line."""

from __future__ import annotations


def main() -> None:
    from minik8s.cli import cli

    cli(prog_name="minik8s")


if __name__ == "__main__":
    main()
