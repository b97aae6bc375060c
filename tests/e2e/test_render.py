"""The rendered configuration in a real Envoy, with an ext_proc server that does what a test dictates."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from grpc_health.v1 import health_pb2

from demo.stand_in import StandIn
from ext_proc.core import headers
from ext_proc.core.settings import Address, Configuration
from ext_proc.core.types import Target
from ext_proc.envoy_config import render_bootstrap, render_filter
from tests.support.builders import (
    a_configuration,
    a_credential,
    a_route,
    a_shadow,
    a_target,
    an_upstream,
)
from tests.support.envoy import EnvoyProcess, validate
from tests.support.toy_processor import Asked, Told, ToyProcessor

CERTS = Path(__file__).with_name("certs")

DEFAULT = a_target(
    "main/small",
    authority="main.example",
    path_prefix="/openai/v1",
    credential=a_credential("Bearer the-key-in-the-file"),
)
OTHER = a_target("other/big", authority="other.example")
COPY = a_target("copy/next", authority="copy.example", path_prefix="/v1")

SPOOFED = dict.fromkeys(headers.DECISION, "copy")
CLIENT = {
    "content-type": "application/json",
    "authorization": "Bearer the-clients-own",
    "x-api-key": "the-clients-own",
}
BODY = b'{"model": "any", "messages": []}'


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Mesh:
    """Stand-ins `main` (the default), `other` and `copy`, a toy server, and Envoy."""

    envoy: EnvoyProcess
    toy: ToyProcessor
    main: StandIn
    other: StandIn
    copy: StandIn
    http: aiohttp.ClientSession

    async def post(self, path: str = "/v1/chat/completions", body: bytes = BODY, **sent: str) -> Reply:
        given = {**CLIENT, **{name.replace("_", "-"): value for name, value in sent.items()}}
        return await self.request("POST", path, data=body, headers=given)

    async def request(self, method: str, path: str, **more: Any) -> Reply:
        async with self.http.request(method, self.envoy.url + path, **more) as answer:
            return Reply(answer.status, answer.headers, await answer.read())


@asynccontextmanager
async def meshed(
    default: Target = DEFAULT, *, serving: bool = True, environ: Mapping[str, str] | None = None, **envoy: Any
) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        stand_ins = [StandIn(name) for name in ("main", "other", "copy")]
        for stand_in in stand_ins:
            await stack.enter_async_context(stand_in.running())
        toy = ToyProcessor()
        server = await stack.enter_async_context(toy.serving()) if serving else None
        configuration = a_configuration(
            default,
            routes=(a_route(OTHER, shadows=(a_shadow(COPY),)),),
            upstreams=tuple(an_upstream(each.name, port=each.port) for each in stand_ins),
            **envoy,
        )
        # Port 1 refuses every connection.
        address = server.address if server else Address("127.0.0.1", 1)
        process = EnvoyProcess(render_bootstrap(configuration, (address,)), environ=environ)
        running = await stack.enter_async_context(process)
        timeout = aiohttp.ClientTimeout(total=30)
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        yield Mesh(running, toy, *stand_ins, session)


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with meshed(failure_credential_env="MAIN_KEY", environ={"MAIN_KEY": "key-from-env"}) as mesh:
        yield mesh


async def last_log_line(envoy: EnvoyProcess, count: int = 1) -> dict[str, Any]:
    async with asyncio.timeout(5):
        while len(lines := envoy.access_log()) < count:  # noqa: ASYNC110 - it is another process's file
            await asyncio.sleep(0.02)
    return lines[-1]


class TestDecided:
    async def test_the_servers_cluster_path_host_and_key_are_used(self, mesh: Mesh) -> None:
        mesh.toy.decide(
            "other",
            set={":path": "/theirs/chat/completions", ":authority": "o.example", "authorization": "Bearer o"},
            remove=("x-api-key",),
        )
        reply = await mesh.post()
        assert reply.status == 200
        (seen,) = mesh.other.seen
        assert seen.path == "/theirs/chat/completions"
        assert seen.headers["host"] == "o.example"
        assert seen.headers.getall("authorization") == ["Bearer o"]
        assert "x-api-key" not in seen.headers
        assert not mesh.main.seen

    async def test_the_response_shows_policy_model_and_reason(self, mesh: Mesh) -> None:
        mesh.toy.decide("other", "other/big", set={headers.POLICY: "coding", headers.ARM: "canary"})
        reply = await mesh.post()
        shown = {name: reply.headers.get(name) for name in headers.DECISION}
        assert shown == {
            **dict.fromkeys(headers.DECISION),
            headers.POLICY: "coding",
            headers.MODEL: "other/big",
            headers.REASON: "policy",
        }

    async def test_a_response_header_without_a_value_is_left_out(self, mesh: Mesh) -> None:
        mesh.toy.decide("other")
        assert headers.POLICY not in (await mesh.post()).headers

    async def test_the_access_log_has_the_metadata(self, mesh: Mesh) -> None:
        mesh.toy.decide("other", metadata={"policy": "coding", "model": "other/big", "arm": "canary"})
        await mesh.post()
        line = await last_log_line(mesh.envoy)
        assert {name: line.get(name) for name in ("policy", "model", "arm", "reason", "status", "route")} == {
            "policy": "coding",
            "model": "other/big",
            "arm": "canary",
            "reason": "policy",
            "status": 200,
            "route": "decided",
        }
        assert isinstance(line["duration_ms"], int)

    async def test_the_server_is_sent_no_credential(self, mesh: Mesh) -> None:
        await mesh.post(cookie="session=secret", x_arch_session="s1")
        (asked,) = mesh.toy.asked
        assert asked.role == headers.ROLE_ROUTE
        assert set(asked.headers) <= set(headers.READ_BY_SERVER)
        assert asked.headers["x-arch-session"] == "s1"
        assert asked.body == BODY

    async def test_a_body_may_grow_to_the_limit(self, mesh: Mesh) -> None:
        grown = bytes(31 << 20)

        async def think(_: Asked) -> Told:
            chosen = {headers.CLUSTER: "other", headers.MODEL: "m", "content-length": str(len(grown))}
            return Told(set=chosen, body=grown)

        mesh.toy.think = think
        reply = await mesh.post(body=bytes(30 << 20))
        assert (reply.status, len(mesh.other.seen[-1].body)) == (200, len(grown))

    async def test_method_scheme_and_envoys_own_headers_are_not_the_servers_to_change(
        self, mesh: Mesh
    ) -> None:
        mesh.toy.decide("other", set={":method": "PUT", ":scheme": "ftp", "x-envoy-retry-on": "5xx"})
        assert (await mesh.post()).status == 200
        (seen,) = mesh.other.seen
        assert seen.method == "POST"
        assert "x-envoy-retry-on" not in seen.headers
        rejected = await mesh.envoy.stats("rejected_header_mutations")
        assert list(rejected.values()) == [3]

    async def test_providers_learn_nothing_of_envoy_or_the_client(self, mesh: Mesh) -> None:
        mesh.toy.decide("other")
        reply = await mesh.post()
        told = {*mesh.other.seen[-1].headers, *reply.headers}
        assert not [name for name in told if name.lower().startswith(("x-envoy-", "x-forwarded-for"))]

    async def test_an_unknown_cluster_costs_that_request_only(self, mesh: Mesh) -> None:
        mesh.toy.decide("nowhere")
        assert (await mesh.post()).status == 503
        mesh.toy.decide("other")
        assert (await mesh.post()).status == 200

    async def test_an_answer_streams_on_when_the_server_dies(self) -> None:
        async with meshed(serving=True) as mesh, AsyncExitStack() as second:
            toy = await second.enter_async_context(ToyProcessor().serving())
            toy.decide("other")
            configuration = a_configuration(upstreams=(an_upstream("other", port=mesh.other.port),))
            mesh.other.behave.chunk_delay_s = 0.1
            bootstrap = render_bootstrap(configuration, (toy.address,))
            async with EnvoyProcess(bootstrap) as envoy:
                request = mesh.http.post(
                    f"{envoy.url}/v1/chat/completions",
                    data=b'{"model": "m", "stream": true, "messages": []}',
                    headers=CLIENT,
                )
                async with request as answer:
                    await answer.content.readline()
                    await second.aclose()
                    rest = await answer.read()
            assert rest.rstrip().endswith(b"data: [DONE]")


class TestShadow:
    async def test_a_copy_goes_to_the_cluster_in_the_header_without_any_key(self, mesh: Mesh) -> None:
        mesh.toy.decide("other", set={headers.SHADOW: "arch-shadow/copy/next", "authorization": "Bearer o"})
        reply = await mesh.post(body=bytes(3 << 20))
        assert reply.status == 200
        async with asyncio.timeout(10):
            while not mesh.copy.seen:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        (copied,) = mesh.copy.seen
        assert len(copied.body) == 3 << 20
        assert copied.headers["x-request-id"] == mesh.other.seen[-1].headers["x-request-id"]
        hidden = {"authorization", "x-api-key", "x-forwarded-for", headers.SHADOW}
        assert not hidden & {name.lower() for name in copied.headers}
        roles = [(asked.role, asked.target) for asked in mesh.toy.asked]
        assert roles == [(headers.ROLE_ROUTE, None), (headers.ROLE_SHADOW, "copy/next")]

    async def test_a_copy_that_the_server_does_not_rewrite_is_dropped(self, mesh: Mesh) -> None:
        async def think(asked: Asked) -> Told:
            if asked.role == headers.ROLE_SHADOW:
                await asyncio.Event().wait()
            shadow = {headers.SHADOW: "arch-shadow/copy/next"}
            return Told(set={headers.CLUSTER: "other", headers.MODEL: "m", **shadow})

        mesh.toy.think = think
        assert (await mesh.post()).status == 200
        async with asyncio.timeout(10):
            while not any((await mesh.envoy.stats("shadow.*message_timeouts")).values()):
                await asyncio.sleep(0.02)
        assert not mesh.copy.seen

    async def test_an_unknown_shadow_cluster_harms_nobody(self, mesh: Mesh) -> None:
        mesh.toy.decide("other", set={headers.SHADOW: "nowhere"})
        assert (await mesh.post()).status == 200


class TestUndecided:
    @pytest.mark.parametrize("size", [len(BODY), 2 << 20])
    async def test_a_dead_server_means_the_default_at_once(self, size: int) -> None:
        environ = {"MAIN_KEY": "key-from-env"}
        async with meshed(serving=False, failure_credential_env="MAIN_KEY", environ=environ) as mesh:
            body = BODY.ljust(size)
            started = time.monotonic()
            reply = await mesh.post("/tenants/7/v1/chat/completions?a=1&b=/v1/x", body)
            assert time.monotonic() - started < 0.4
            assert (reply.status, reply.headers[headers.REASON]) == (200, "server_unavailable")
            assert headers.MODEL not in reply.headers
            (seen,) = mesh.main.seen
            assert seen.body == body
            assert seen.path == "/openai/v1/chat/completions?a=1&b=/v1/x"
            assert seen.headers["host"] == "main.example"
            assert seen.headers.getall("authorization") == ["Bearer key-from-env"]
            assert "x-api-key" not in seen.headers
            line = await last_log_line(mesh.envoy)
            assert (line["route"], line["reason"]) == ("undecided", "server_unavailable")

    async def test_a_hung_server_costs_its_message_timeout(self, mesh: Mesh) -> None:
        mesh.toy.hang()
        started = time.monotonic()
        reply = await mesh.post()
        assert 0.45 < time.monotonic() - started < 5
        assert (reply.status, reply.headers[headers.REASON]) == (200, "server_unavailable")
        assert mesh.main.seen[-1].body == BODY

    async def test_a_server_that_says_it_is_not_serving_is_not_asked(self, mesh: Mesh) -> None:
        await mesh.toy.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        mesh.toy.hang()
        async with asyncio.timeout(10):
            while (await mesh.envoy.stats("arch_ext_proc.membership_healthy")).popitem()[1]:
                await asyncio.sleep(0.05)
        started = time.monotonic()
        assert (await mesh.post()).status == 200
        assert time.monotonic() - started < 0.4
        assert not mesh.toy.asked

    async def test_spoofed_headers_are_powerless(self, mesh: Mesh) -> None:
        reply = await mesh.request("POST", "/v1/chat/completions", data=BODY, headers={**CLIENT, **SPOOFED})
        assert reply.headers[headers.REASON] == "server_unavailable"
        (seen,) = mesh.main.seen
        assert {name: seen.headers.getall(name, []) for name in headers.DECISION} == {
            **{name: [] for name in headers.DECISION},
            headers.CLUSTER: ["main"],
        }
        assert not mesh.copy.seen

    async def test_a_repeated_spoofed_header_is_powerless(self, mesh: Mesh) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", mesh.envoy.port)
        lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", "content-length: 2", "connection: close"]
        lines += [f"{name}: copy" for name in headers.DECISION for _ in range(2)]
        writer.write("\r\n".join([*lines, "", "{}"]).encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        assert mesh.main.seen[-1].headers.getall(headers.CLUSTER) == ["main"]
        assert not mesh.copy.seen

    async def test_a_key_that_is_not_for_authorization_is_sent_bare(self) -> None:
        default = a_target("main/small", credential=a_credential("k", "x-api-key"))
        environ = {"MAIN_KEY": "key-from-env"}
        async with meshed(default, serving=False, failure_credential_env="MAIN_KEY", environ=environ) as mesh:
            await mesh.post()
            (seen,) = mesh.main.seen
            assert seen.headers.getall("x-api-key") == ["key-from-env"]
            assert "authorization" not in seen.headers
            # No base_url: host and path stay the client's.
            assert seen.path == "/v1/chat/completions"
            assert seen.headers["host"] == f"127.0.0.1:{mesh.envoy.port}"

    async def test_without_a_variable_no_key_is_sent_and_the_clients_own_is_not_either(self) -> None:
        async with meshed(serving=False) as mesh:
            await mesh.post()
            assert not {"authorization", "x-api-key"} & {name.lower() for name in mesh.main.seen[-1].headers}

    async def test_passthrough_auth_keeps_the_clients_key(self) -> None:
        async with meshed(a_target("main/small", passthrough_auth=True), serving=False) as mesh:
            await mesh.post()
            assert mesh.main.seen[-1].headers.getall("authorization") == [CLIENT["authorization"]]

    async def test_a_body_above_the_limit_gets_413(self, mesh: Mesh) -> None:
        reply = await mesh.post(body=bytes((32 << 20) + 1))
        assert reply.status == 413


class TestEverythingElse:
    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "/v1/models?a=1"), ("POST", "/v1/files"), ("GET", "/healthz")]
    )
    async def test_it_goes_to_the_default_and_the_server_is_not_asked(
        self, mesh: Mesh, method: str, path: str
    ) -> None:
        reply = await mesh.request(method, path, headers={**CLIENT, **SPOOFED})
        assert reply.status == 200
        assert not {*headers.SHOWN_TO_CLIENT} & {name.lower() for name in reply.headers}
        (seen,) = mesh.main.seen
        assert (seen.method, seen.path, seen.headers["host"]) == (method, path, "main.example")
        assert seen.headers.getall("authorization") == [CLIENT["authorization"]]
        assert mesh.toy.streams == 0


class TestServers:
    async def test_a_dead_one_among_several_loses_no_decision(self) -> None:
        async with ToyProcessor().serving() as toy, StandIn("main").running() as main:
            toy.decide("main")
            configuration = a_configuration(
                a_target("main/small"), upstreams=(an_upstream("main", port=main.port),)
            )
            servers = (toy.address, Address("127.0.0.1", 1))
            async with (
                EnvoyProcess(render_bootstrap(configuration, servers)) as envoy,
                aiohttp.ClientSession() as http,
            ):
                for _ in range(20):
                    async with http.post(
                        f"{envoy.url}/v1/chat/completions", data=BODY, headers=CLIENT
                    ) as answer:
                        assert answer.headers[headers.REASON] == "policy"


@asynccontextmanager
async def tls_provider() -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "cert.pem", CERTS / "key.pem")
    application = web.Application()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="over TLS")

    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class TestTls:
    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
    @pytest.mark.parametrize(("trusted", "status"), [(True, 200), (False, 503)])
    async def test_a_provider_must_prove_who_it_is(
        self, tmp_path: Path, host: str, trusted: bool, status: int
    ) -> None:
        ca_file = CERTS / "cert.pem"
        if not trusted:
            ca_file = CERTS / "other.pem"
        async with tls_provider() as port, ToyProcessor().serving() as toy:
            upstream = an_upstream("main", host=host, port=port, tls=True)
            configuration = a_configuration(a_target("main/small"), upstreams=(upstream,))
            bootstrap = render_bootstrap(configuration, (toy.address,), ca_file=str(ca_file))
            async with EnvoyProcess(bootstrap) as envoy, aiohttp.ClientSession() as http:
                async with http.get(f"{envoy.url}/v1/models") as answer:
                    assert answer.status == status


VARIED = [
    a_configuration(DEFAULT, upstreams=(an_upstream("main"),), failure_credential_env="KEY"),
    a_configuration(DEFAULT, admin=None, listener=Address("0.0.0.0", 10000)),
    a_configuration(a_target("odd/100%", cluster="100%odd", path_prefix=r"/a\1b", authority="a.b:1")),
    a_configuration(
        DEFAULT,
        routes=(a_route(DEFAULT, OTHER, shadows=(a_shadow(COPY),)),),
        upstreams=(an_upstream("copy", "llm.example", 443, tls=True), an_upstream("main", "::1", 80)),
        ext_proc_cluster="outbound|50051||arch.default.svc.cluster.local",
    ),
]
SERVERS = (Address("127.0.0.1", 50051), Address("arch.default.svc", 50052), Address("::1", 50053))


@pytest.mark.parametrize("configuration", VARIED)
class TestValidation:
    async def test_envoy_accepts_the_bootstrap(self, configuration: Configuration) -> None:
        await validate(render_bootstrap(configuration, SERVERS, ca_file=str(CERTS / "cert.pem")))

    async def test_envoy_accepts_a_bootstrap_with_the_pieces_pasted(
        self, configuration: Configuration
    ) -> None:
        pieces = yaml.safe_load(render_filter(configuration, SERVERS, ca_file=str(CERTS / "cert.pem")))
        await validate(yaml.safe_dump(pasted(pieces)))


def pasted(pieces: dict[str, Any]) -> dict[str, Any]:
    """Someone's own Envoy with the pieces where their comments say."""
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    host = {"name": "theirs", "domains": ["*"], "routes": pieces["routes"]}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "theirs",
        "early_header_mutation_extensions": pieces["early_header_mutation_extensions"],
        "http_filters": [*pieces["http_filters"], router],
        "route_config": {"name": "theirs", "validate_clusters": False, "virtual_hosts": [host]},
    }
    chain = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "name": "theirs",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "per_connection_buffer_limit_bytes": pieces["per_connection_buffer_limit_bytes"],
        "filter_chains": [{"filters": [chain]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": pieces["clusters"]}}
