"""The alerts and the dashboard ask for metrics that there are, in expressions that Prometheus takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.metrics import parse, promtool, unknown

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
RUNBOOK = "runbook.html"
"""The site's page, as tests/docs/test_site.py finds it."""
NAMES = [rule["alert"] for rule in RULES]
CASES = yaml.safe_load((FOLDER / "alerts.test.yaml").read_text())["tests"]
DASHBOARD = json.loads((GRAFANA / "dashboards" / "arch-ext-proc.json").read_text())
PANELS = DASHBOARD["panels"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that promtool reads, where nothing else is."""
    return Path(shutil.copytree(FOLDER, tmp_path / "prometheus"))


def in_dashboard(expression: str) -> str:
    return expression.replace("$__rate_interval", "5m").replace("$policy", ".*")


class TestAlerts:
    def test_prometheus_takes_them(self, folder: Path) -> None:
        done = promtool("check", "rules", "alerts.yaml", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{len(RULES)} rules found" in done.stdout

    def test_each_fires_when_it_should_and_is_silent_in_a_healthy_mesh(self, folder: Path) -> None:
        done = promtool("test", "rules", "alerts.test.yaml", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_each_has_such_a_case(self) -> None:
        healthy, *cases = CASES
        assert [check["alertname"] for check in healthy["alert_rule_test"]] == NAMES
        assert not any(check.get("exp_alerts") for check in healthy["alert_rule_test"])
        fired = [check["alertname"] for case in cases for check in case["alert_rule_test"]]
        assert fired == NAMES
        assert all(check["exp_alerts"] for case in cases for check in case["alert_rule_test"])

    @pytest.mark.parametrize("rule", RULES, ids=NAMES)
    def test_it_asks_for_what_there_is_and_says_what_to_do(self, rule: dict[str, Any]) -> None:
        assert unknown(rule["expr"]) == []
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        url = rule["annotations"]["runbook_url"]
        assert re.fullmatch(rf"https?://[^/]+/.*\b{RUNBOOK}#{rule['alert'].lower()}", url)
        headings = re.findall(r"^#+ (.+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE)
        assert rule["alert"] in headings

    def test_the_operators_have_the_same(self) -> None:
        rule = yaml.safe_load((FOLDER / "prometheus-rule.yaml").read_text())
        assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
        assert rule["spec"] == ALERTS, "run `make alerts`"

    def test_they_link_to_where_an_operator_publishes_the_docs(self, tmp_path: Path) -> None:
        shutil.copy(ROOT / "Makefile", tmp_path)
        shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
        subprocess.run(["make", "alerts", "DOCS_URL=https://docs.mine/arch/"], cwd=tmp_path, check=True)
        for file in ("alerts.yaml", "alerts.test.yaml", "prometheus-rule.yaml"):
            text = (tmp_path / "deploy" / "prometheus" / file).read_text()
            links = re.findall(r"^ *runbook_url: (.+)$", text, re.MULTILINE)
            assert len(links) >= len(RULES)
            assert all(link.startswith(f"https://docs.mine/arch/{RUNBOOK}#") for link in links)
        assert not list(tmp_path.rglob("*.before"))


class TestCompose:
    def test_prometheus_reads_its_configuration(self, folder: Path) -> None:
        file = folder / "prometheus.yml"
        file.write_text(file.read_text().replace("/etc/prometheus", str(folder)))
        done = promtool("check", "config", "prometheus.yml", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_prometheus_finds_the_alerts_and_the_server(self) -> None:
        mounted = [mount.split(":")[1] for mount in SERVICES["prometheus"]["volumes"]]
        configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
        assert set(configuration["rule_files"]) < set(mounted)
        (job,) = configuration["scrape_configs"]
        assert f'job="{job["job_name"]}"' in RULES[0]["expr"]
        ((target,),) = [where["targets"] for where in job["static_configs"]]
        host, port = target.split(":")
        assert host in SERVICES
        assert f"${{ARCH_ADMIN_PORT:-{port}}}" in (ROOT / "envoy/compose/arch_config.yaml").read_text()

    def test_grafana_finds_prometheus_and_the_dashboard(self) -> None:
        mounts = dict(mount.split(":")[:2][::-1] for mount in SERVICES["grafana"]["volumes"])
        sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())
        ((host, port),) = [source["url"].split("//")[1].split(":") for source in sources["datasources"]]
        assert SERVICES[host]["ports"] == [f"127.0.0.1:{port}:{port}"]
        providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/dashboards.yaml").read_text())
        (provider,) = providers["providers"]
        path = provider["options"]["path"]
        assert (ROOT / mounts[path]).resolve() == GRAFANA / "dashboards"
        home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        assert (ROOT / mounts[path] / Path(home).name).exists()
        assert Path(home).parent == Path(path)


class TestDashboard:
    def test_its_queries_ask_for_what_there_is(self, tmp_path: Path) -> None:
        expressions = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
        expressions += [found["expr"] for found in DASHBOARD["annotations"]["list"]]
        for expression in expressions:
            assert unknown(expression) == [], expression
        done = parse(map(in_dashboard, expressions), tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
        assert unknown(variables["policy"]["query"]["query"]) == []
        used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(PANELS)))
        assert used == set(variables)

    def test_its_panels_are_whole_and_cover_none(self) -> None:
        assert len({panel["id"] for panel in PANELS}) == len(PANELS)
        for panel in PANELS:
            assert panel["title"]
            assert panel["type"] == "row" or panel["targets"]
            assert 0 <= panel["gridPos"]["x"] <= 24 - panel["gridPos"]["w"]
            references = [target["refId"] for target in panel.get("targets", ())]
            assert len(set(references)) == len(references)
        for one, other in combinations((panel["gridPos"] for panel in PANELS), 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or apart
