"""What the Dockerfile runs, run here: in a folder with nothing but what it copies."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from demo.processes import free_port

ROOT = Path(__file__).parents[2]
LINES = [
    line.split(maxsplit=1)
    for line in (ROOT / "Dockerfile").read_text().splitlines()
    if line and not line.startswith("#")
]
BUILD = LINES[: [word for word, _ in LINES].index("FROM", 1)]
CONFIG = ROOT / "envoy/compose/arch_config.yaml"
ENVIRON = {"OPENAI_API_KEY": "any", "ARCH_SALT": "any-text-of-some-length"}


def arguments(instruction: str) -> list[str]:
    """The exec form that an instruction has, once in the file."""
    (found,) = [rest for word, rest in LINES if word == instruction]
    return list(map(str, json.loads(found[found.index("[") :])))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the image has as /opt/arch, without the packages from the index: those are here."""
    folder = tmp_path_factory.mktemp("image")
    source = folder / "src"
    source.mkdir()
    for word, rest in BUILD:
        if word == "COPY":
            *names, target = shlex.split(rest)
            for name in names:
                ignored = shutil.ignore_patterns("__pycache__")
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / target, ignore=ignored)
                else:
                    shutil.copy(ROOT / name, source / target)
        if word == "RUN":
            command = shlex.split(rest.replace("/opt/arch", str(folder / "arch")))
            if "install" in command:
                command.insert(command.index("install") + 1, "--no-deps")
            if command[0] == "python":
                command[0] = sys.executable
            done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    # Its own admin port, which nobody has: the usual one may be in use on this machine.
    text = CONFIG.read_text().replace('"${ARCH_ADMIN_PORT:-9902}"', str(free_port()))
    (folder / "arch_config.yaml").write_text(text)
    return folder / "arch"


def in_image(image: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {**ENVIRON, "PATH": str(image / "bin"), "PYTHONPATH": sysconfig.get_path("purelib")}
    mounted, config = "/etc/arch/arch_config.yaml", str(image.with_name("arch_config.yaml"))
    words = [config if word == mounted else word for word in command]
    program = shutil.which(words[0], path=environ["PATH"])
    assert program, f"no {words[0]} in the image"
    return subprocess.run(
        [program, *words[1:]], cwd="/", env=environ, capture_output=True, text=True, check=False
    )


def test_the_image_holds_the_package_with_its_weights_and_nothing_of_the_repository(image: Path) -> None:
    code = "import ext_proc, ext_proc.cli, ext_proc.router.embedded as e; print(ext_proc.__file__)"
    done = in_image(image, "python", "-c", code)
    assert done.stdout.startswith(str(image)), done.stderr
    package = Path(done.stdout.strip()).parent
    assert {file.name for file in (package / "router/embedded/weights").iterdir()} == {
        file.name for file in (ROOT / "ext_proc/router/embedded/weights").iterdir()
    }
    assert (package / "py.typed").exists()
    assert not {"demo", "bench", "training", "tests"} & {file.name for file in package.parent.iterdir()}


def test_the_entry_point_knows_the_command(image: Path) -> None:
    entry_point, command = arguments("ENTRYPOINT"), arguments("CMD")
    assert command[0] == "serve"
    assert in_image(image, *entry_point, "check", command[1]).stdout.endswith("ok\n")
    # With --help the rest is parsed and nothing served; tests/e2e serves with the same arguments.
    assert in_image(image, *entry_point, *command, "--help").returncode == 0


def test_the_health_check_says_that_no_server_is_ready(image: Path) -> None:
    done = in_image(image, *arguments("HEALTHCHECK"))
    assert (done.returncode, done.stderr) == (1, "arch-ext-proc health: not ready\n")


def test_nobody_is_root_and_the_exposed_ports_are_the_configured_ones() -> None:
    instructions = dict(LINES)
    user = instructions["USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert instructions["EXPOSE"].split() == ["50051", "9902"]


def test_the_build_context_has_what_is_copied() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for word, rest in BUILD if word == "COPY" for name in shlex.split(rest)[:-1]}
    assert copied == allowed
