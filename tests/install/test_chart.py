"""The Helm chart, rendered and linted by Helm's own library, against schemas and the server itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from demo.processes import Child, command, free_port
from ext_proc import __version__
from ext_proc.cli import main
from ext_proc.config.load import load_text
from tests.support.helm import Helm, Refused, running_helm
from tests.support.schemas import problems

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/arch-ext-proc"
SECRET = {
    "OPENAI_API_KEY": "sk-any",
    "ARCH_SALT": "any-text-of-some-length",
    "ARCH_ADMIN_TOKEN": "another-long-text",
}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
POLICY = {"name": "code", "description": "write code", "models": ["openai/gpt-4o-mini"]}
ROLLOUT = {
    "model_providers": [
        {"model": "openai/gpt-4o-mini", "default": True},
        {"model": "openai/gpt-4o"},
    ],
    "routing_preferences": [{**POLICY, "rollout": {"canary": "openai/gpt-4o"}}],
}
FULL = {
    "secret": {"values": SECRET, "mount": "/run/secrets/arch"},
    "autoscaling": {"enabled": True},
    "networkPolicy": {
        "gateway": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "istio-ingress"}}}],
        "admin": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"ports": [{"port": 443}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "env": [{"name": "TZ", "value": "UTC"}],
    "podAnnotations": {"example.com/a": "b"},
    "podLabels": {"sidecar.istio.io/inject": "true"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "llm", "operator": "Exists"}],
    "priorityClassName": "high",
    "imagePullSecrets": [{"name": "registry"}],
    "image": {"digest": f"sha256:{'0' * 64}"},
}


@pytest.fixture(scope="module", autouse=True)
def helm() -> Iterator[Helm]:
    with running_helm(CHART) as found:
        _HELM.append(found)
        yield found
        _HELM.clear()


_HELM: list[Helm] = []
"""The one that runs, for the functions below, which are called with nothing but values."""


def rendered(values: dict[str, Any] | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """What Helm makes of the values, by kind and name."""
    documents = [
        document
        for name, text in _HELM[0].render(values or {}).items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents)
    return found


def pod(values: dict[str, Any] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = rendered(values)["Deployment", "llm-router"]["spec"]["template"]["spec"]
    return spec


def container(values: dict[str, Any] | None = None) -> dict[str, Any]:
    (only,) = pod(values)["containers"]
    assert isinstance(only, dict)
    return only


def config_text(values: dict[str, Any] | None = None) -> str:
    return str(rendered(values)["ConfigMap", "llm-router"]["data"]["arch_config.yaml"])


def test_helm_finds_nothing_to_say_but_that_there_is_no_icon(helm: Helm) -> None:
    assert [message for message in helm.lint() if "icon is recommended" not in message] == []


@pytest.mark.parametrize("values", [{}, FULL], ids=["as it is", "with everything"])
def test_every_manifest_fits_the_schema_of_its_kind(values: dict[str, Any]) -> None:
    assert [found for document in rendered(values).values() for found in problems(document)] == []


def test_what_is_there() -> None:
    always = {
        ("ConfigMap", "llm-router"),
        ("Deployment", "llm-router"),
        ("NetworkPolicy", "llm-router"),
        ("PodDisruptionBudget", "llm-router"),
        ("Service", "llm-router"),
        ("Service", "llm-router-headless"),
        ("ServiceAccount", "llm-router"),
    }
    more = {
        ("HorizontalPodAutoscaler", "llm-router"),
        ("PrometheusRule", "llm-router"),
        ("Secret", "llm-router"),
        ("ServiceMonitor", "llm-router"),
    }
    assert set(rendered()) == always
    assert set(rendered(FULL)) == always | more
    assert ("PodDisruptionBudget", "llm-router") not in rendered({"replicas": 1})
    assert ("NetworkPolicy", "llm-router") not in rendered(
        {"networkPolicy": {"enabled": False}, "config": {"server": {"trust_network": False}}}
    )
    assert ("ConfigMap", "llm-router") not in rendered({"existingConfigMap": "mine"})
    assert pod({"existingConfigMap": "mine"})["volumes"][0]["configMap"] == {"name": "mine"}


def test_the_configuration_is_one_that_check_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in SECRET.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "arch_config.yaml"
    file.write_text(config_text())
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"
    assert set(re.findall(r"\$(\w+)", file.read_text())) == set(SECRET)


def test_the_values_of_the_documentation_work() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text(), re.DOTALL)
    configuration = load_text(config_text(yaml.safe_load(block)), "f", SECRET, lambda: b"").configuration
    assert configuration.snapshot.targets["vllm/qwen-coder"].cluster.startswith("outbound|8000||qwen")
    assert str(configuration.server.listen) == "0.0.0.0:50051"


def test_a_policy_given_as_a_value_is_in_the_configuration() -> None:
    text = config_text({"config": {"routing_preferences": [POLICY]}})
    assert [
        policy.name for policy in load_text(text, "f", SECRET, lambda: b"").configuration.snapshot.policies
    ] == ["code"]


def test_each_worker_has_a_port_and_their_parent_a_place_for_sockets() -> None:
    values = {"config": {"server": {"workers": 3}}}
    ports = {"grpc": 50051, "grpc-1": 50052, "grpc-2": 50053}
    one = container(values)
    assert {port["name"]: port["containerPort"] for port in one["ports"]} == {**ports, "admin": 9902}
    documents = rendered(values)
    for name in ("llm-router", "llm-router-headless"):
        listed = {port["name"]: port["port"] for port in documents["Service", name]["spec"]["ports"]}
        assert {**listed, "admin": 9902} == {**ports, "admin": 9902}
    ingress = documents["NetworkPolicy", "llm-router"]["spec"]["ingress"]
    assert [port["port"] for port in ingress[0]["ports"]] == list(ports)
    assert {"name": "tmp", "mountPath": "/tmp"} in one["volumeMounts"]
    assert {"name": "tmp", "emptyDir": {}} in pod(values)["volumes"]


@pytest.mark.parametrize("ports", [{}, {"server": {"port": 7001}, "admin": {"port": 7002}}])
def test_ports_and_probes_are_those_of_the_configuration(ports: dict[str, Any]) -> None:
    values = {"config": ports}
    configuration = load_text(config_text(values), "f", SECRET, lambda: b"").configuration
    listen: Any = configuration.server.listen
    one = container(values)
    assert {port["name"]: port["containerPort"] for port in one["ports"]} == {
        "grpc": listen.port,
        "admin": configuration.admin.port,
    }
    assert {one[probe]["httpGet"]["port"] for probe in PROBES} == {"admin"}
    documents = rendered(values)
    service, headless = (documents["Service", name]["spec"] for name in ("llm-router", "llm-router-headless"))
    assert [(port["name"], port["port"]) for port in service["ports"]] == [("grpc", listen.port)]
    assert headless["clusterIP"] == "None"
    assert [port["port"] for port in headless["ports"]] == [listen.port, configuration.admin.port]
    selector = documents["Deployment", "llm-router"]["spec"]["selector"]["matchLabels"]
    labels = documents["Deployment", "llm-router"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"] == headless["selector"] == selector
    assert selector.items() <= labels.items()


async def test_a_server_that_runs_as_the_container_does_answers_its_probes(tmp_path: Path) -> None:
    ports = {"server": {"port": free_port()}, "admin": {"port": free_port()}}
    values = {"config": ports, "logLevel": "DEBUG"}
    file = tmp_path / "arch_config.yaml"
    file.write_text(config_text(values).replace("0.0.0.0", "127.0.0.1"))
    one = container(values)
    arguments = [str(file) if word.endswith(".yaml") else word for word in one["args"]]
    url = f"http://127.0.0.1:{ports['admin']['port']}"
    ready = url + one["startupProbe"]["httpGet"]["path"]
    server = Child([command("arch-ext-proc"), *arguments], ready, tmp_path / "log", SECRET)
    try:
        await server.start()
        async with aiohttp.ClientSession() as session:
            for path in (*(one[probe]["httpGet"]["path"] for probe in PROBES), "/metrics"):
                async with session.get(url + path) as answer:
                    assert answer.status == 200, path
    finally:
        await server.stop()


def test_the_container_runs_what_the_image_is_made_for() -> None:
    instructions = dict(
        line.split(maxsplit=1)
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line[:1].isupper()
    )
    command = json.loads(instructions["CMD"])
    one, spec = container(), pod()
    assert one["args"][: len(command)] == command
    (mounted,) = [mount for mount in one["volumeMounts"] if mount["name"] == "config"]
    assert command[1] == f"{mounted['mountPath']}/arch_config.yaml"
    assert "subPath" not in mounted  # Kubernetes never updates those
    user, group = instructions["USER"].split(":")
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (
        int(user),
        int(group),
    )
    assert one["image"] == f"arch-ext-proc:{__version__}"
    assert container(FULL)["image"] == f"arch-ext-proc@sha256:{'0' * 64}"


def test_the_pod_can_do_no_more_than_serve() -> None:
    one, spec = container(FULL), pod(FULL)
    assert spec["automountServiceAccountToken"] is False
    assert rendered()["ServiceAccount", "llm-router"]["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["name"] for mount in one["volumeMounts"] if not mount.get("readOnly")] == ["state", "tmp"]


def test_the_server_has_the_time_to_drain() -> None:
    drain_s = load_text(config_text(), "f", SECRET, lambda: b"").configuration.server.drain_s
    *_, pause_s = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert pod()["terminationGracePeriodSeconds"] > drain_s + float(pause_s)


def test_who_may_connect() -> None:
    def rules(values: dict[str, Any]) -> dict[str, Any]:
        spec: dict[str, Any] = rendered(values)["NetworkPolicy", "llm-router"]["spec"]
        return spec

    closed = rules({})
    assert closed["policyTypes"] == ["Ingress"]
    assert closed["ingress"] == [{"from": [{"podSelector": {}}], "ports": [{"port": "grpc"}]}]
    opened = rules(FULL)
    assert opened["policyTypes"] == ["Ingress", "Egress"]
    asked: Any = FULL["networkPolicy"]
    assert [rule["from"] for rule in opened["ingress"]] == [asked["gateway"], asked["admin"]]
    assert opened["egress"] == asked["egress"]


def test_secrets_reach_the_server_and_nothing_else() -> None:
    documents = rendered(FULL)
    assert documents["Secret", "llm-router"]["stringData"] == SECRET
    holders = [key for key, document in documents.items() if "sk-any" in str(document)]
    assert holders == [("Secret", "llm-router")]
    assert container(FULL)["envFrom"] == [{"secretRef": {"name": "llm-router"}}]
    assert container({"secret": {"existing": "theirs"}})["envFrom"] == [{"secretRef": {"name": "theirs"}}]
    assert "envFrom" not in container()
    changed = {"secret": {"values": {**SECRET, "OPENAI_API_KEY": "sk-other"}}}
    sums = {
        rendered(values)["Deployment", "llm-router"]["spec"]["template"]["metadata"]["annotations"][
            "checksum/secret"
        ]
        for values in (FULL, changed)
    }
    assert len(sums) == 2


def test_replicas_are_the_autoscalers_business_where_there_is_one() -> None:
    assert rendered()["Deployment", "llm-router"]["spec"]["replicas"] == 2
    documents = rendered({"autoscaling": {"enabled": True, "min": 3, "max": 9, "cpu": 55}})
    assert "replicas" not in documents["Deployment", "llm-router"]["spec"]
    spec = documents["HorizontalPodAutoscaler", "llm-router"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 9)
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 55


def test_the_pods_are_spread_and_one_goes_at_a_time() -> None:
    spread = pod()["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    spec = rendered()["Deployment", "llm-router"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert rendered()["PodDisruptionBudget", "llm-router"]["spec"]["maxUnavailable"] == 1
    for one in spread:
        assert one["labelSelector"]["matchLabels"] == spec["selector"]["matchLabels"]


def test_one_replica_may_keep_its_state() -> None:
    values = {"replicas": 1, "state": {"claim": "mine"}, "config": ROLLOUT}
    volumes = {volume["name"]: volume for volume in pod(values)["volumes"]}
    assert volumes["state"]["persistentVolumeClaim"] == {"claimName": "mine"}
    assert rendered(values)["Deployment", "llm-router"]["spec"]["strategy"] == {"type": "Recreate"}


def test_prometheus_is_told_where_and_what() -> None:
    documents = rendered(FULL)
    monitor = documents["ServiceMonitor", "llm-router"]
    (endpoint,) = monitor["spec"]["endpoints"]
    labels = documents["Service", "llm-router-headless"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert endpoint["path"] == "/metrics"
    # The job that the alerts ask for.
    assert (
        f'job="{labels[monitor["spec"]["jobLabel"]]}"' in (ROOT / "deploy/prometheus/alerts.yaml").read_text()
    )
    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
    assert documents["PrometheusRule", "llm-router"]["spec"]["groups"] == rules


def test_the_alerts_link_to_where_the_docs_are_published() -> None:
    values = {**FULL, "prometheusRule": {"enabled": True, "docsUrl": "https://docs.mine/arch/"}}
    (group,) = rendered(values)["PrometheusRule", "llm-router"]["spec"]["groups"]
    for rule in group["rules"]:
        link = f"https://docs.mine/arch/runbook.html#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == link


def test_the_charts_copies_are_up_to_date() -> None:
    alerts = ROOT / "deploy/prometheus/alerts.yaml"
    assert (CHART / "files/alerts.yaml").read_text() == alerts.read_text(), "run `make alerts`"
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"config": ROLLOUT}, 'rollout of "code" needs a store that all replicas share'),
        ({"state": {"claim": "mine"}}, "state.claim is for one replica"),
        ({"networkPolicy": {"enabled": False}}, "networkPolicy.enabled is false"),
        ({"config": {"server": {"address": "127.0.0.1"}}}, "config.server.address must be 0.0.0.0"),
        ({"config": {"admin": {"address": "127.0.0.1"}}}, "config.admin.address must be 0.0.0.0"),
        ({"secret": {"existing": "theirs", "values": SECRET}}, "exclude each other"),
        ({"secret": {"mount": "/run/secrets"}}, "secret.mount needs"),
        ({"replica": 3}, "replica"),
        ({"replicas": "three"}, "replicas"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(Refused, match=re.escape(expected)):
        rendered(values)


def test_a_rollout_with_a_shared_store_is_not_refused() -> None:
    config = {**ROLLOUT, "rollouts": {"store": "redis://redis:6379/0"}}
    assert "redis://redis" in config_text({"config": config})


def test_every_value_is_described_and_every_value_is_used() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    described = json.loads((CHART / "values.schema.json").read_text())["properties"]
    assert set(described) - {"global"} == set(values)
    templates = "".join(file.read_text() for file in (CHART / "templates").iterdir())
    assert {name for name in values if f".Values.{name}" not in templates} == set()
