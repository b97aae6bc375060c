"""The command line: argv to one of the commands."""

from ext_proc.cli.main import main

__all__ = ["main"]
