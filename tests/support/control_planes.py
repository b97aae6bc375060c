"""Small stand-ins for the control planes of meshes: manifests to the Envoy configuration that they lead to.

They do what Istio and Envoy Gateway do with the resources that are rendered here, and no more: names and the
order of routes, filters and patches as in their sources, TLS and everything cosmetic left out. Hosts that end
in `.test` are found on loopback. What they do not know is an error.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

Json = dict[str, Any]

TYPES = "type.googleapis.com/envoy.extensions"
MANAGER = f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
}
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster(name: str, host: str, port: int, *, http2: bool = False) -> Json:
    address = {"socket_address": {"address": host, "port_value": port}}
    protocol = "http2_protocol_options" if http2 else "http_protocol_options"
    options = {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {protocol: {}}}
    return {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "10s",
        "typed_extension_protocol_options": {HTTP_OPTIONS: options},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def merged(old: Any, new: Any) -> Any:
    """Protobuf's merge: fields replace, messages merge, lists append."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            **old,
            **{key: merged(old[key], value) if key in old else value for key, value in new.items()},
        }
    return [*old, *new] if isinstance(old, list) and isinstance(new, list) else new


def on_loopback(value: Any) -> Any:
    """The same configuration with every `.test` host on this machine."""
    if isinstance(value, dict):
        found = {key: on_loopback(inner) for key, inner in value.items()}
        if str(found.get("address", "")).endswith(".test"):
            found["address"] = "127.0.0.1"
        return found
    return [on_loopback(inner) for inner in value] if isinstance(value, list) else value


def bootstrap(listener: Json, clusters: Iterable[Json], admin_port: int) -> Json:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": admin_port}}
    resources = {"listeners": [listener], "clusters": list(clusters)}
    whole: Json = on_loopback({"admin": {"address": address}, "static_resources": resources})
    return whole


class Istiod:
    """A gateway's pods, labelled `istio: gateway`, in one namespace."""

    def __init__(self, manifests: list[Json], gateway: str, services: dict[str, int]) -> None:
        """`services` are hosts of the mesh that speak gRPC, and their ports."""
        self._of_kind: dict[str, list[Json]] = {}
        for entry in manifests:
            assert entry["apiVersion"].startswith("networking.istio.io/")
            self._of_kind.setdefault(entry["kind"], []).append(entry["spec"])
        assert set(self._of_kind) <= {
            *("Gateway", "VirtualService", "ServiceEntry", "DestinationRule", "EnvoyFilter")
        }
        ((server,),) = [spec["servers"] for spec in self._of_kind["Gateway"]]
        (self._filter,) = self._of_kind["EnvoyFilter"]
        assert self._of_kind["Gateway"][0]["selector"] == {"istio": gateway}
        assert self._filter["workloadSelector"]["labels"] == {"istio": gateway}
        self.port: int = server["port"]["number"]
        self._hosts = server["hosts"]
        self._services = services

    def bootstrap(self, admin_port: int) -> Json:
        clusters = self._clusters()
        (virtual,) = self._of_kind["VirtualService"]
        assert virtual["hosts"] == self._hosts == ["*"]
        (rule,) = virtual["http"]
        (destination,) = rule["route"]
        to = destination["destination"]
        name = f"outbound|{to['port']['number']}||{to['host']}"
        assert name in clusters
        route = {"name": rule["name"], "match": {"prefix": "/"}, "route": {"cluster": name}}
        hosts = [{"name": f"*:{self.port}", "domains": ["*"], "routes": [route]}]
        manager = {
            "@type": MANAGER,
            "stat_prefix": f"outbound_0.0.0.0_{self.port}",
            "use_remote_address": True,
            "normalize_path": True,
            "http_filters": [
                {
                    "name": "envoy.filters.http.cors",
                    "typed_config": {"@type": f"{TYPES}.filters.http.cors.v3.Cors"},
                },
                {
                    "name": "envoy.filters.http.fault",
                    "typed_config": {"@type": f"{TYPES}.filters.http.fault.v3.HTTPFault"},
                },
                ROUTER,
            ],
            "route_config": {
                "name": f"http.{self.port}",
                "validate_clusters": False,
                "virtual_hosts": hosts,
            },
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        listener: Json = {
            "name": f"0.0.0.0_{self.port}",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
            "filter_chains": [{"filters": filters}],
        }
        listener = self._patched(listener, clusters)
        return bootstrap(listener, clusters.values(), admin_port)

    def _clusters(self) -> dict[str, Json]:
        found = {}
        for host, port in self._services.items():
            found[f"outbound|{port}||{host}"] = cluster(f"outbound|{port}||{host}", host, port, http2=True)
        for entry in self._of_kind["ServiceEntry"]:
            assert entry["resolution"] == "DNS"
            for host in entry["hosts"]:
                for port in entry["ports"]:
                    name = f"outbound|{port['number']}||{host}"
                    found[name] = cluster(name, host, port["number"])
        for rule in self._of_kind["DestinationRule"]:
            assert any(name.endswith(f"||{rule['host']}") for name in found), rule["host"]
        return found

    def _patched(self, listener: Json, clusters: dict[str, Json]) -> Json:
        """Every patch finds what it is for."""
        for entry in self._filter["configPatches"]:
            match, patch = entry["match"], entry["patch"]
            assert match["context"] == "GATEWAY"
            operation, value = patch["operation"], copy.deepcopy(patch["value"])
            if entry["applyTo"] == "CLUSTER" and operation == "ADD":
                assert value["name"] not in clusters
                clusters[value["name"]] = value
                continue
            if entry["applyTo"] == "CLUSTER":
                assert operation == "MERGE"
                where = match["cluster"]
                name = f"outbound|{where['portNumber']}||{where['service']}"
                # Istio's own message gives way to a whole one of the same oneof.
                old = copy.deepcopy(clusters[name])
                if "typed_extension_protocol_options" in value:
                    del old["typed_extension_protocol_options"]
                clusters[name] = merged(old, value)
                continue
            where = match.get("listener") or match["routeConfiguration"]
            assert where["portNumber"] == self.port
            (network_filter,) = listener["filter_chains"][0]["filters"]
            manager = network_filter["typed_config"]
            chain = where.get("filterChain", {}).get("filter", {})
            assert chain.get("name") in (None, network_filter["name"])
            match entry["applyTo"], operation:
                case "LISTENER", "MERGE":
                    listener = merged(listener, value)
                case "NETWORK_FILTER", "MERGE":
                    network_filter["typed_config"] = merged(manager, value["typed_config"])
                case "HTTP_FILTER", "INSERT_BEFORE":
                    names = [known["name"] for known in manager["http_filters"]]
                    manager["http_filters"].insert(names.index(chain["subFilter"]["name"]), value)
                case "HTTP_ROUTE", "INSERT_FIRST":
                    (host,) = manager["route_config"]["virtual_hosts"]
                    assert where["vhost"] == {"name": host["name"]}
                    host["routes"].insert(0, value)
                case unknown:
                    raise AssertionError(unknown)
        return listener


def pointers(document: Any, json_path: str) -> list[list[str | int]]:
    """The JSON pointers of a JSONPath of the few kinds of steps that are rendered."""
    steps = re.findall(
        r"\.(\w+)|\[(\d+)\]|(\[\*\])|\[\?\(@\.name=='([^']+)'\)\]", json_path.removeprefix("$")
    )
    found: list[tuple[list[str | int], Any]] = [([], document)]
    for key, index, every, name in steps:
        if key:
            found = [([*path, key], value[key]) for path, value in found if key in value]
        else:
            found = [
                ([*path, number], inner)
                for path, value in found
                for number, inner in enumerate(value)
                if every or (index and number == int(index)) or (name and inner["name"] == name)
            ]
    return [path for path, _ in found]


def add(document: Any, path: list[str | int], value: Any) -> None:
    """JSON Patch's `add`, as RFC 6902 has it, with lists made where there are none."""
    for step, following in pairwise(path):
        if isinstance(document, dict) and following == "-":
            document.setdefault(step, [])
        document = document[step]
    if isinstance(document, list):
        document.insert(len(document) if path[-1] == "-" else int(path[-1]), value)
    else:
        document[path[-1]] = value


class EnvoyGateway:
    """One Gateway with one HTTP listener. `patched`: EnvoyPatchPolicies are enabled."""

    def __init__(self, manifests: list[Json], *, patched: bool) -> None:
        self._of_kind: dict[str, list[Json]] = {}
        for entry in manifests:
            self._of_kind.setdefault(entry["kind"], []).append(entry)
        (gateway,) = self._of_kind["Gateway"]
        (self._listener,) = gateway["spec"]["listeners"]
        self._gateway, self._namespace = gateway["metadata"]["name"], gateway["metadata"]["namespace"]
        self._backends = {entry["metadata"]["name"]: entry["spec"] for entry in self._of_kind["Backend"]}
        self._patched = patched
        self.port: int = self._listener["port"]

    def bootstrap(self, admin_port: int) -> Json:
        clusters: dict[str, Json] = {}
        routes = [
            self._route(entry, index, rule, clusters)
            for entry in self._of_kind["HTTPRoute"]
            for index, rule in enumerate(entry["spec"]["rules"])
        ]
        routes.sort(key=_precedence, reverse=True)
        resource = f"{self._namespace}/{self._gateway}/{self._listener['name']}"
        route_config = {
            "name": resource,
            "ignore_port_in_host_matching": True,
            "virtual_hosts": [{"name": f"{resource}/*", "domains": ["*"], "routes": routes}],
        }
        (policy,) = self._of_kind["ClientTrafficPolicy"]
        spec = policy["spec"]
        early = spec["headers"]["earlyRequestHeaders"]
        mutations = [
            *({"append": option} for option in _set(early)),
            *({"remove": name} for name in early["remove"]),
        ]
        manager = {
            "@type": MANAGER,
            "stat_prefix": f"http-{self.port}",
            "use_remote_address": True,
            "normalize_path": True,
            "stream_idle_timeout": spec["timeout"]["http"]["streamIdleTimeout"],
            "request_timeout": spec["timeout"]["http"]["requestReceivedTimeout"],
            "early_header_mutation_extensions": [
                {
                    "name": "envoy.http.early_header_mutation.header_mutation",
                    "typed_config": {
                        "@type": f"{TYPES}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                        "mutations": mutations,
                    },
                }
            ],
            "http_filters": [
                {
                    "name": "envoy.filters.http.header_mutation",
                    "typed_config": {
                        "@type": f"{TYPES}.filters.http.header_mutation.v3.HeaderMutation",
                        "mutations": {
                            "response_mutations": [
                                {"remove": name} for name in spec["headers"]["lateResponseHeaders"]["remove"]
                            ]
                        },
                    },
                },
                self._ext_proc(clusters),
                copy.deepcopy(ROUTER),
            ],
        }
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        kibibytes = re.fullmatch(r"(\d+)Ki", spec["connection"]["bufferLimit"])
        assert kibibytes
        listener: Json = {
            "name": resource,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": self.port}},
            "per_connection_buffer_limit_bytes": int(kibibytes[1]) << 10,
            "default_filter_chain": {"filters": filters},
        }
        if self._patched:
            self._patch(listener, route_config, clusters)
        manager["route_config"] = route_config
        return bootstrap(listener, clusters.values(), admin_port)

    def _route(self, entry: Json, index: int, rule: Json, clusters: dict[str, Json]) -> Json:
        (match,) = rule["matches"]
        ((parent),) = entry["spec"]["parentRefs"]
        assert parent["name"] == self._gateway
        kind = {"PathPrefix": "prefix", "RegularExpression": "safe_regex"}[match["path"]["type"]]
        value = match["path"]["value"]
        matched: Json = {kind: value if kind == "prefix" else {"regex": value}}
        wanted = [(header["name"], header["value"]) for header in match.get("headers", ())]
        if "method" in match:
            wanted.append((":method", match["method"]))
        matched["headers"] = [{"name": name, "string_match": {"exact": text}} for name, text in wanted]
        name = f"httproute/{self._namespace}/{entry['metadata']['name']}/rule/{index}"
        (reference,) = rule["backendRefs"]
        clusters[name] = self._cluster(name, reference)
        action: Json = {"cluster": name, "timeout": rule["timeouts"]["request"]}
        route: Json = {"name": f"{name}/match/0/*", "match": matched, "route": action}
        for one in rule["filters"]:
            match one["type"]:
                case "URLRewrite":
                    action["host_rewrite_literal"] = one["urlRewrite"]["hostname"]
                case "RequestHeaderModifier":
                    modifier = one["requestHeaderModifier"]
                    route["request_headers_to_add"] = _set(modifier)
                    route["request_headers_to_remove"] = modifier["remove"]
                case "ResponseHeaderModifier":
                    route["response_headers_to_add"] = _set(one["responseHeaderModifier"])
                    route["response_headers_to_remove"] = one["responseHeaderModifier"]["remove"]
                case "ExtensionRef":
                    rewrite = self._named("HTTPRouteFilter", one["extensionRef"]["name"])["urlRewrite"][
                        "path"
                    ]
                    found = rewrite["replaceRegexMatch"]
                    action["regex_rewrite"] = {
                        "pattern": {"regex": found["pattern"]},
                        "substitution": found["substitution"],
                    }
                case unknown:
                    raise AssertionError(unknown)
        if self._extension()["targetRefs"][0]["name"] == entry["metadata"]["name"]:
            enabled = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
            route["typed_per_filter_config"] = {self._ext_proc_name: enabled}
        return route

    def _cluster(self, name: str, reference: Json, *, http2: bool = False) -> Json:
        assert reference["kind"] == "Backend"
        (endpoint,) = self._backends[reference["name"]]["endpoints"]
        where = endpoint.get("fqdn") or endpoint["ip"]
        return cluster(name, where.get("hostname") or where["address"], where["port"], http2=http2)

    def _named(self, kind: str, name: str) -> Json:
        (found,) = [entry["spec"] for entry in self._of_kind[kind] if entry["metadata"]["name"] == name]
        spec: Json = found
        return spec

    def _extension(self) -> Json:
        (policy,) = self._of_kind["EnvoyExtensionPolicy"]
        spec: Json = policy["spec"]
        return spec

    @property
    def _ext_proc_cluster(self) -> str:
        (policy,) = self._of_kind["EnvoyExtensionPolicy"]
        return f"envoyextensionpolicy/{self._namespace}/{policy['metadata']['name']}/extproc/0"

    @property
    def _ext_proc_name(self) -> str:
        return f"envoy.filters.http.ext_proc/{self._ext_proc_cluster}"

    def _ext_proc(self, clusters: dict[str, Json]) -> Json:
        """Disabled, and enabled by the routes that a policy targets."""
        (extension,) = self._extension()["extProc"]
        (reference,) = extension["backendRefs"]
        mode = extension["processingMode"]
        name = self._ext_proc_cluster
        clusters[name] = self._cluster(name, reference, http2=True)
        check = extension["backendSettings"]["healthCheck"]
        assert check["active"]["type"] == "GRPC"
        active = check["active"]
        clusters[name]["health_checks"] = [
            {
                "timeout": active["timeout"],
                "interval": active["interval"],
                "unhealthy_threshold": active["unhealthyThreshold"],
                "healthy_threshold": active["healthyThreshold"],
                "grpc_health_check": {},
            }
        ]
        threshold = {"value": check["panicThreshold"]}
        clusters[name]["common_lb_config"] = {"healthy_panic_threshold": threshold}
        milliseconds = re.fullmatch(r"(\d+)(ms|s)", extension["messageTimeout"])
        assert milliseconds
        seconds = int(milliseconds[1]) / (1000 if milliseconds[2] == "ms" else 1)
        return {
            "name": self._ext_proc_name,
            "disabled": True,
            "typed_config": {
                "@type": f"{TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
                "grpc_service": {"envoy_grpc": {"cluster_name": name}, "timeout": "10s"},
                "failure_mode_allow": extension["failOpen"],
                "message_timeout": f"{seconds}s",
                "allow_mode_override": mode["allowModeOverride"],
                "processing_mode": {
                    "request_header_mode": "SEND",
                    "request_body_mode": {"Buffered": "BUFFERED"}[mode["request"]["body"]],
                    "response_header_mode": "SKIP",
                    "response_body_mode": "NONE",
                    "request_trailer_mode": "SKIP",
                    "response_trailer_mode": "SKIP",
                },
                "metadata_options": {
                    "receiving_namespaces": {"untyped": extension["metadata"]["writableNamespaces"]}
                },
            },
        }

    def _patch(self, listener: Json, route_config: Json, clusters: dict[str, Json]) -> None:
        """Every operation finds what it is for."""
        (policy,) = self._of_kind["EnvoyPatchPolicy"]
        for patch in policy["spec"]["jsonPatches"]:
            kind, operation = patch["type"].rpartition(".")[2], copy.deepcopy(patch["operation"])
            assert operation["op"] == "add"
            if kind == "Cluster":
                assert (operation["path"], "jsonPath" in operation) == ("", False)
                clusters[patch["name"]] = operation["value"]
                continue
            document = {"Listener": listener, "RouteConfiguration": route_config}[kind]
            assert patch["name"] == document["name"]
            steps = [step for step in operation.get("path", "").split("/") if step]
            rest: list[str | int] = [int(step) if step.isdecimal() else step for step in steps]
            found = pointers(document, operation["jsonPath"]) if "jsonPath" in operation else [[]]
            assert found, operation["jsonPath"]
            for path in found:
                add(document, [*path, *rest], operation["value"])


def _set(modifier: Json) -> list[Json]:
    return [
        {
            "header": {"key": header["name"], "value": header["value"]},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
        for header in modifier.get("set", ())
    ]


def _precedence(route: Json) -> tuple[bool, int, int]:
    """How Envoy Gateway sorts: regular expressions before prefixes, longer paths, more headers."""
    match = route["match"]
    path = match["safe_regex"]["regex"] if "safe_regex" in match else match["prefix"]
    return "safe_regex" in match, len(path), len(match["headers"])
