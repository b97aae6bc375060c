"""docs/reload.md: how its command finds the server."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from demo.processes import command, free_port

ROOT = Path(__file__).parents[2]
(PATTERN,) = re.findall(r"pgrep -of '([^']+)'", (ROOT / "docs" / "reload.md").read_text())


def test_the_server_is_found_by_its_command_line_and_other_commands_are_not(tmp_path: Path) -> None:
    """As `pgrep -f` does: the process is called after the script, its first argument is Python's."""
    file = tmp_path / "f.yaml"
    file.write_text(
        "model_providers: [{model: openai/a, default: true}]\naffinity: {salt: 0123456789abcdef}\n"
        f"server: {{port: {free_port()}}}\nadmin: {{port: {free_port()}}}\n"
    )
    for arguments, is_found in ((["serve", str(file)], True), (["top"], False)):
        with subprocess.Popen(
            [command("arch-ext-proc"), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            # It has become the command by the time that Popen returns.
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes().decode().replace("\0", " ")
            process.terminate()
        assert bool(re.search(PATTERN, line)) is is_found, line
