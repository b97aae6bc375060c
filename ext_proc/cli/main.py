"""The command line: each command's arguments, and what runs it."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ext_proc import __version__
from ext_proc.cli.bad_input import BadInput
from ext_proc.cli.reader import ending_with_its_reader
from ext_proc.core.errors import ConfigError, RouterError

if TYPE_CHECKING:
    from ext_proc.config.load import Loaded
    from ext_proc.config.source import Source
    from ext_proc.core.settings import Address, Pipe

EXIT_OK = 0
EXIT_NOT_READY = 1
EXIT_BAD_CONFIG = 2

_OF_MODULES = {
    "eval": ("measure a router on labelled conversations", "ext_proc.cli.evaluate"),
    "lint-policies": (
        "say which policies the router cannot tell apart, and what else is unclear to it",
        "ext_proc.cli.lint",
    ),
    "rollout": ("show and steer the rollouts of a running server", "ext_proc.cli.rollout"),
    "top": ("watch a running server in a terminal", "ext_proc.cli.top"),
}
"""Commands with modules of their own: a summary, and whose `add_arguments` says the rest."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0, or 2 for a configuration or argument that cannot be used.

    141, as for any tool, where nobody reads its output any more.
    A command imports what it needs when it runs: the server's libraries alone take most of a second.
    """
    return ending_with_its_reader(partial(_run, sys.argv[1:] if argv is None else argv))


def _run(argv: Sequence[str]) -> int:
    arguments = _parser(next(iter(argv), "")).parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_CONFIG
    except RouterError as error:
        print(f"arch-ext-proc: {error}", file=sys.stderr)
        return 1
    except BadInput as error:
        print(f"arch-ext-proc {arguments.name}: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG


def _parser(chosen: str) -> argparse.ArgumentParser:
    """All commands, and the arguments of those whose own modules say them if it is the chosen one."""
    parser = argparse.ArgumentParser(
        prog="arch-ext-proc", description="Route LLM traffic through Envoy by natural-language policy."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = _command(commands, "serve", _serve, "answer Envoy's ext_proc streams")
    serve.add_argument("--log-format", choices=("human", "json"), default="human")
    serve.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
    # A worker's connection to its parent, which is who starts it.
    serve.add_argument("--worker", type=int, help=argparse.SUPPRESS)

    _command(commands, "engine", _engine, "hold the routing model's weights for several servers")

    _command(commands, "check", _check, "say everything that is wrong with a configuration")

    render = _command(commands, "render", _render, "print Envoy's side of a configuration")
    render.add_argument(
        "--format",
        choices=("bootstrap", "filter", "istio", "envoy-gateway"),
        default="bootstrap",
        help="a whole Envoy, the pieces for one you already run, or a mesh's manifests (default: bootstrap)",
    )
    render.add_argument(
        "--server",
        metavar="HOST:PORT|unix:PATH",
        type=_address,
        action="append",
        help="where Envoy reaches a server; once per server process"
        " (default: the file's server.address, taken to be on Envoy's machine)",
    )
    render.add_argument(
        "--namespace",
        default="default",
        help="istio: the gateway's pods'; envoy-gateway: any (default: default)",
    )
    render.add_argument(
        "--gateway",
        metavar="NAME",
        help="istio: the label istio of the gateway's pods (default: ingressgateway);"
        " envoy-gateway: the GatewayClass (default: eg)",
    )

    _command(
        commands, "health", _health, "say by the exit status whether the server on this machine is ready"
    )

    explaining = _command(commands, "explain", _explain, "say where a conversation would go, and why")
    given = explaining.add_mutually_exclusive_group()
    given.add_argument("-m", "--message", metavar="TEXT", help="one user message")
    given.add_argument(
        "--messages", metavar="FILE", help="JSON: a list of messages or a request body; - for standard input"
    )
    explaining.add_argument("--model", help="the model that the request names")
    explaining.add_argument("--session", metavar="ID", help="the session's pin, as in x-arch-session")
    explaining.add_argument("--json", action="store_true", help="print one JSON object")

    for name, (summary, module) in _OF_MODULES.items():
        added = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        if name == chosen:
            importlib.import_module(module).add_arguments(added)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("file", metavar="FILE", type=Path, help="arch_config.yaml")
    parser.set_defaults(command=run, name=name)
    return parser


def _address(text: str) -> Address | Pipe:
    """`host:port`, `[address]:port` for IPv6, or `unix:/path`."""
    from ext_proc.core.settings import Address, Pipe

    if text.startswith("unix:/"):
        return Pipe(text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is neither HOST:PORT nor unix:/PATH")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def _load(arguments: argparse.Namespace) -> Loaded:
    from ext_proc.config import load

    return load.load(arguments.file, os.environ, load.random_salt)


def _serve(arguments: argparse.Namespace) -> int:
    from ext_proc.cli.arenas import keep_arenas_few
    from ext_proc.config.load import random_salt
    from ext_proc.config.source import Source
    from ext_proc.telemetry import log

    keep_arenas_few()
    is_json = arguments.log_format == "json"
    if arguments.worker is not None:
        return _serve_as_worker(arguments, is_json)
    log.configure(as_json=is_json, level=arguments.log_level)
    source = Source(arguments.file, os.environ, random_salt)
    loaded = source.load()
    if loaded.configuration.server.workers > 1:
        return _supervise(source, loaded)
    return _run_server(_server(source, loaded))


def _server(source: Source, loaded: Loaded, *more: Any) -> Callable[[], Coroutine[Any, Any, None]]:
    from ext_proc import app

    return lambda: app.serve(source, loaded, *more)


def _serve_as_worker(arguments: argparse.Namespace, is_json: bool) -> int:
    """One of several: its place among them, and a salt that is the same for all, come from the parent."""
    from ext_proc.config.source import Source
    from ext_proc.telemetry import log
    from ext_proc.workers.siblings import Siblings

    siblings = Siblings(socket.socket(fileno=arguments.worker))
    seat = siblings.seat
    log.configure(as_json=is_json, level=arguments.log_level, worker=seat.index)
    source = Source(arguments.file, os.environ, lambda: seat.salt)
    loaded = source.load()
    return _run_server(_server(source, loaded, siblings))


def _supervise(source: Source, loaded: Loaded) -> int:
    from ext_proc.admin.app import front_application
    from ext_proc.workers.supervisor import Supervisor

    command = (sys.executable, *sys.orig_argv[1:], "--worker")
    return _run_server(
        lambda: Supervisor(loaded.configuration, command, source.load, front_application).run()
    )


def _run_server(serve: Callable[[], Coroutine[Any, Any, int | None]]) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(serve()) or EXIT_OK
        except (OSError, RuntimeError, RouterError) as error:
            # What cannot be listened at, files that cannot serve, what a router lacks; anything later is
            # handled per request.
            print(f"arch-ext-proc serve: {error}", file=sys.stderr)
            return 1


def _engine(arguments: argparse.Namespace) -> int:
    import uvloop

    from ext_proc import app
    from ext_proc.telemetry import log

    log.configure(as_json=False)
    configuration = _load(arguments).configuration
    settings = configuration.router.causal_lm
    if settings is None or settings.engine is None:
        print(
            f"{arguments.file}: no engine is named: write routing: "
            "{router: {type: transformers, model: …, engine: /run/arch/engine.sock}}",
            file=sys.stderr,
        )
        return EXIT_BAD_CONFIG
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(app.serve_engine(configuration, settings, Path(settings.engine)))
        except (OSError, RouterError) as error:
            print(f"arch-ext-proc engine: {error}", file=sys.stderr)
            return 1
    return EXIT_OK


def _check(arguments: argparse.Namespace) -> int:
    from ext_proc.config import load
    from ext_proc.rollouts.build import standings

    problems = load.check(arguments.file, os.environ)
    for problem in problems:
        print(problem)
    if any(not problem.is_warning for problem in problems):
        return EXIT_BAD_CONFIG
    print(f"{arguments.file}: ok")
    loaded = load.load(arguments.file, os.environ, lambda: b"\0", needs_secrets=False)
    for line in asyncio.run(standings(loaded.configuration.rollouts)):
        print(line)
    return EXIT_OK


def _render(arguments: argparse.Namespace) -> int:
    from ext_proc import envoy_config
    from ext_proc.cli.loading import load_to_read

    configuration = load_to_read(arguments.file).configuration
    servers = tuple(arguments.server or configuration.server.endpoints)
    try:
        match arguments.format:
            case "istio":
                place = envoy_config.Place(arguments.namespace, arguments.gateway or "ingressgateway")
                text = envoy_config.render_istio(configuration, servers, place)
            case "envoy-gateway":
                place = envoy_config.Place(arguments.namespace, arguments.gateway or "eg")
                text = envoy_config.render_envoy_gateway(configuration, servers, place)
            case "filter":
                text = envoy_config.render_filter(configuration, servers)
            case _:
                text = envoy_config.render_bootstrap(configuration, servers)
    except envoy_config.CannotRender as error:
        print(f"arch-ext-proc render: {error}", file=sys.stderr)
        return EXIT_BAD_CONFIG
    print(text, end="")
    return EXIT_OK


def _health(arguments: argparse.Namespace) -> int:
    from ext_proc.cli import health

    if health.is_ready(_load(arguments).configuration.admin):
        return EXIT_OK
    print("arch-ext-proc health: not ready", file=sys.stderr)
    return EXIT_NOT_READY


def _explain(arguments: argparse.Namespace) -> int:
    from ext_proc.cli import explain
    from ext_proc.cli.loading import load_to_read

    configuration = load_to_read(arguments.file).configuration
    body, dialect = explain.request_body(arguments.message, arguments.messages, arguments.model)
    explanation = asyncio.run(explain.explain(configuration, body, dialect, arguments.session))
    print(json.dumps(explanation, indent=2) if arguments.json else explain.as_text(explanation))
    return EXIT_OK
