"""`render --server`: where Envoy finds the servers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ext_proc.cli import main

CONFIG = """
model_providers: [{model: openai/small, default: true}]
server: {address: 0.0.0.0, port: 50077, trust_network: true}
"""


def endpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[str, list[tuple[str, int]]]:
    file = tmp_path / "arch_config.yaml"
    file.write_text(CONFIG)
    assert main(["render", str(file), *options]) == 0
    clusters = yaml.safe_load(capsys.readouterr().out)["static_resources"]["clusters"]
    (ours,) = [cluster for cluster in clusters if cluster["name"] == "arch_ext_proc"]
    (group,) = ours["load_assignment"]["endpoints"]
    found = [end["endpoint"]["address"]["socket_address"] for end in group["lb_endpoints"]]
    return ours["type"], [(address["address"], address["port_value"]) for address in found]


def test_a_server_on_all_addresses_is_reached_on_loopback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert endpoints(tmp_path, capsys)[1] == [("127.0.0.1", 50077)]


def test_a_mesh_is_not_given_a_server_on_loopback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "arch_config.yaml"
    file.write_text(CONFIG)
    for format_ in ("istio", "envoy-gateway"):
        assert main(["render", str(file), "--format", format_]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "write --server NAME.NAMESPACE.svc.cluster.local:PORT" in said.err


def test_each_named_server_is_an_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--server", "one.internal:1", "--server", "[2001:db8::1]:2")
    assert endpoints(tmp_path, capsys, *options) == (
        "STRICT_DNS",
        [("one.internal", 1), ("2001:db8::1", 2)],
    )


@pytest.mark.parametrize("text", ["nowhere", ":5", "host:", "host:0", "host:65536", "host:-1", "host:x"])
def test_what_is_no_address_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["render", "any.yaml", "--server", text])
    assert f"{text!r} is neither HOST:PORT nor unix:/PATH" in capsys.readouterr().err
