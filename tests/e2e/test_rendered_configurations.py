"""Envoy accepts what is rendered, whole or in pieces, for every example configuration here."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.processes import Refused, validate
from demo.stack import PORTS
from ext_proc.cli import main
from tests.support.control_planes import EnvoyGateway, Istiod
from tests.support.mesh import CONFIGS

ROOT = CONFIGS.parents[2]
EXAMPLES = (
    ROOT / "arch_config.yaml",
    *sorted((ROOT / "envoy").rglob("arch_config.yaml")),
    *sorted((ROOT / "tests").rglob("configs/*.yaml")),
    *sorted((ROOT / "tests/chaos").glob("*.yaml")),
)
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ENVIRON = {
    **dict.fromkeys(
        (
            "OPENAI_API_KEY",
            "ANTHROPIC_API_KEY",
            "GROQ_API_KEY",
            "ARCH_SALT",
            "ARCH_ADMIN_TOKEN",
            "ADMIN_TOKEN",
        ),
        "any",
    ),
    **{f"{name}_KEY": "any" for name in ("OPENAI", "CODER", "NEXT", "ANTHROPIC")},
    **{
        f"{name}_UPSTREAM": "http://127.0.0.1:9/v1"
        for name in (
            *("OPENAI", "CODER", "NEXT", "ANTHROPIC", "LOCAL", "DOWN"),
            *("SECOND", "GONE"),
        )
    },
    # Chains of providers with TLS, by name and by address, and with some that have none.
    "FIRST_UPSTREAM": "https://localhost:9443/v1",
    "THIRD_UPSTREAM": "https://127.0.0.1:9444/v1",
    "ARCH_TOKEN": "a-token-of-some-length",
    "ENVOY_SDS": str(ROOT / "tests/e2e/certs/sds.yaml"),
    "ARCH_SOCKET": "/run/arch.sock",
    **{
        f"{name}_{kind}": str(ROOT / "tests/e2e/certs" / file)
        for name in ("SERVER", "ENVOY", "CLIENT")
        for kind, file in (("CERTIFICATE", "cert.pem"), ("KEY", "key.pem"), ("CA", "other.pem"))
    },
    "ROUTER_ENDPOINT": "http://127.0.0.1:9/v1",
    "ROLLOUT_STORE": "rollouts.sqlite",
    "ROLLOUTS": "rollouts.sqlite",
    # With room for the ports of workers.
    **{name: str(1000 * number) for number, name in enumerate(PORTS, start=1)},
}


def rendered(example: Path, shape: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["render", str(example), "--format", shape]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def around(pieces: dict[str, Any]) -> dict[str, Any]:
    """The smallest Envoy that the pieces can be put into, each where its comment says."""
    types = "type.googleapis.com/envoy.extensions.filters"
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{types}.http.router.v3.Router"},
    }
    hosts = [{"name": "mine", "domains": ["*"], "routes": pieces["routes"]}]
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "mine",
        "early_header_mutation_extensions": pieces["early_header_mutation_extensions"],
        "http_filters": [*pieces["http_filters"], router],
        "route_config": {"validate_clusters": False, "virtual_hosts": hosts},
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "mine",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "per_connection_buffer_limit_bytes": pieces["per_connection_buffer_limit_bytes"],
        "filter_chains": [{"filters": filters}],
    }
    node = {"id": "mine", "cluster": "mine"}  # certificates that Envoy watches need one
    return {"node": node, "static_resources": {"listeners": [listener], "clusters": pieces["clusters"]}}


def written_out(page: Path, folder: Path) -> list[Path]:
    """The whole configurations that a page shows, as files."""
    found = []
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        if re.search("^model_providers:", block, re.MULTILINE):
            found.append(folder / f"{page.stem}-{len(found)}.yaml")
            # No file of a secret is on this machine.
            found[-1].write_text(re.sub(r"\{file: [^}]+\}", "any", block))
    return found


async def test_envoy_accepts_every_bootstrap_and_all_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for pair in ENVIRON.items():
        monkeypatch.setenv(*pair)
    committed = [ROOT / "envoy/compose/envoy.yaml"]
    shown = [file for page in PAGES for file in written_out(page, tmp_path)]
    assert {file.name for file in shown} >= {"README-0.yaml", "configuration-0.yaml"}
    for number, example in enumerate((*EXAMPLES, *shown)):
        bootstrap, pieces = (tmp_path / f"{number}-{name}.yaml" for name in ("bootstrap", "pieces"))
        bootstrap.write_text(rendered(example, "bootstrap", capsys))
        pieces.write_text(yaml.safe_dump(around(yaml.safe_load(rendered(example, "filter", capsys)))))
        committed += [bootstrap, pieces]
    # Side by side: most of the time Envoy waits for names that only a container network knows.
    await asyncio.gather(*map(validate, committed))


async def test_envoy_accepts_what_meshes_make_of_their_manifests(tmp_path: Path) -> None:
    """With TLS to the providers where our own clusters have it: copies and ranked lists."""
    server = "arch-ext-proc.llm.svc.cluster.local"
    inside = {server: 50051, "qwen.models.svc.cluster.local": 8000}
    of_istio, of_gateway = (
        list(yaml.safe_load_all((ROOT / "envoy" / name).read_text()))
        for name in ("istio/istio.yaml", "gateway/envoy-gateway.yaml")
    )
    planes = (Istiod(of_istio, "ingressgateway", inside), EnvoyGateway(of_gateway, patched=True))
    files = []
    for plane in planes:
        files.append(tmp_path / f"{type(plane).__name__}.yaml")
        files[-1].write_text(yaml.safe_dump(plane.bootstrap(9901)))
    await asyncio.gather(*map(validate, files))


async def test_envoy_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "envoy.yaml"
    wrong.write_text("static_resources: {listeners: [{nonsense: 1}]}")
    with pytest.raises(Refused, match="nonsense"):
        await validate(wrong)
