"""What the HTTP connection manager gets: our filter, and the header mutation before any routing."""

from __future__ import annotations

import re

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRules
from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    HeaderForwardingRules,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import ListStringMatcher
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode

from ext_proc.core import envoy_side, headers
from ext_proc.core.rewrite import AUTH_HEADERS
from ext_proc.core.settings import Configuration
from ext_proc.core.types import Target
from ext_proc.envoy_config.typed import exactly, overwrite, pack, regex, seconds, verbatim

EXT_PROC = "envoy.filters.http.ext_proc"
"""The filter's name: a route that needs another setting says so under it."""

OBSERVE = "envoy.filters.http.ext_proc.observe"
"""The second filter's name, which is free to choose: its type is told by its configuration."""

_SEND = ProcessingModeHeaderSendMode.SEND
_SKIP = ProcessingModeHeaderSendMode.SKIP
_BUFFERED = ProcessingModeBodySendMode.BUFFERED
_NONE = ProcessingModeBodySendMode.NONE
_STREAMED = ProcessingModeBodySendMode.STREAMED


WRITTEN = "x-arch-[a-z-]+|:path|:authority|content-(?:length|encoding)|(?:x-(?:goog-)?)?api-key|authorization"
"""What the server writes, whatever the configuration, `AUTH_HEADERS` included; RE2."""

DANGEROUS = "host|cookie|connection|te|upgrade|transfer-encoding|x-(?:envoy|forwarded)-.*"
_ROOM = 16
"""Characters of other names that fit into the instructions that are left."""


def own_headers(configuration: Configuration) -> TypedExtensionConfig:
    """Before a route is chosen: our headers as clients sent them are gone, the default cluster is set.

    So a spoofed header is powerless, and a request that no server decides has somewhere to go. The
    `header_mutation` HTTP filter would run too late: the route is resolved by then.
    """
    removed = [HeaderMutation(remove=name) for name in headers.DECISION if name != headers.CLUSTER]
    cluster = verbatim(configuration.snapshot.default.cluster)
    default = HeaderMutation(append=overwrite(headers.CLUSTER, cluster))
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=pack(EarlyHeaderMutation(mutations=[default, *removed])),
    )


def ext_proc(configuration: Configuration) -> HttpFilter:
    """The filter that asks the server where a request goes."""
    # Testers' headers hold a key, so they are sent only where it is read.
    testers = (headers.TRY_ARM, headers.TRY_KEY) if configuration.snapshot.tester_key else ()
    has = envoy_side.told(configuration.snapshot)
    metadata = {headers.ROLE: headers.ROLE_ROUTE, headers.ENVOY_HAS: has}
    if not configuration.envoy.streams_bodies:
        metadata[headers.SENDS] = headers.SENDS_REQUEST
    processor = _processor(configuration, metadata, testers)
    processor.failure_mode_allow = True
    # The server refuses no request, so nothing that speaks in its place shall either.
    processor.disable_immediate_response = True
    if configuration.envoy.streams_bodies:
        processor.processing_mode = _mode(ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED, trailers=_SEND)
        # Envoy cannot fail open once it has sent some of a body: clients try again at this status.
        processor.status_on_error = HttpStatus(code=StatusCode.ServiceUnavailable)
    else:
        processor.allow_mode_override = True
        # The one override that the server sends: no body for what is no LLM call.
        processor.allowed_override_modes = [_mode(_NONE)]
    processor.metadata_options = MetadataOptions(
        receiving_namespaces=MetadataOptionsMetadataNamespaces(untyped=[headers.METADATA_NAMESPACE])
    )
    return HttpFilter(name=EXT_PROC, typed_config=pack(processor))


def observe_ext_proc(configuration: Configuration) -> HttpFilter:
    """The filter that shows the server answers as they pass, on routes that do not disable it.

    In observability mode Envoy sends and waits for nothing, so no byte of an answer is held back.
    """
    processor = ExternalProcessor(
        grpc_service=service(configuration, {headers.ROLE: headers.ROLE_OBSERVE}),
        observability_mode=True,
        failure_mode_allow=True,
        processing_mode=ProcessingMode(
            request_header_mode=_SEND,
            request_body_mode=_NONE,
            request_trailer_mode=_SKIP,
            response_header_mode=_SEND,
            response_body_mode=_STREAMED,
            # Of an answer with trailers they are the end, and nothing else is.
            response_trailer_mode=_SEND,
        ),
        forward_rules=_forward(headers.READ_BY_OBSERVER),
        stat_prefix="observe",
    )
    return HttpFilter(name=OBSERVE, typed_config=pack(processor))


def shadow_ext_proc(configuration: Configuration, target: Target) -> HttpFilter:
    """The upstream filter of a shadow cluster, which makes a copy fit for its target and sees its answer.

    It fails closed: a copy that nobody rewrote carries the primary provider's key.
    """
    has = envoy_side.told_of(target)
    metadata = {headers.ROLE: headers.ROLE_SHADOW, headers.TARGET: target.name, headers.ENVOY_HAS: has}
    processor = _processor(configuration, metadata, headers.READ_OF_COPIES)
    processor.stat_prefix = "shadow"
    if processor.processing_mode is not None:
        processor.processing_mode.response_header_mode = _SEND
        processor.processing_mode.response_body_mode = _STREAMED
        processor.processing_mode.response_trailer_mode = _SEND
    return HttpFilter(name=EXT_PROC, typed_config=pack(processor))


def attempt_ext_proc(configuration: Configuration, targets: tuple[Target, ...]) -> HttpFilter:
    """The upstream filter of a chain's cluster, which makes an attempt fit for its target.

    It fails closed: a request that nobody rewrote carries another provider's key. The status is one that
    clients try again at, and then find the route of the undecided.
    """
    metadata = {headers.ROLE: headers.ROLE_ATTEMPT, headers.SENDS: headers.SENDS_REQUEST}
    metadata[headers.ENVOY_HAS] = envoy_side.told_of(*targets)
    processor = _processor(configuration, metadata, headers.READ_OF_ATTEMPTS)
    processor.stat_prefix = "attempt"
    processor.status_on_error = HttpStatus(code=StatusCode.ServiceUnavailable)
    return HttpFilter(name=EXT_PROC, typed_config=pack(processor))


def router() -> HttpFilter:
    """Without Envoy's own headers: providers need not learn our timeouts, nor the client's host and path."""
    return HttpFilter(
        name="envoy.filters.http.router", typed_config=pack(Router(suppress_envoy_headers=True))
    )


def upstream_codec() -> HttpFilter:
    return HttpFilter(name="envoy.filters.http.upstream_codec", typed_config=pack(UpstreamCodec()))


def _processor(
    configuration: Configuration, metadata: dict[str, str], also_read: tuple[str, ...] = ()
) -> ExternalProcessor:
    envoy = configuration.envoy
    read = (*headers.READ_BY_SERVER, *also_read)
    return ExternalProcessor(
        grpc_service=service(configuration, metadata),
        # The headers must be sent, or they would reach the router before the body has been read.
        processing_mode=_mode(_BUFFERED),
        message_timeout=seconds(envoy.message_timeout_s),
        mutation_rules=_may_change(configuration),
        forward_rules=_forward(read),
    )


def _may_change(configuration: Configuration) -> HeaderMutationRules:
    """The headers that the server writes or removes, each by its name, and no others.

    Envoy grants a regex 100 instructions. Where the providers' own credential headers do not fit in, any
    header may be changed that is neither one of HTTP/2's nor dangerous.
    """
    targets = configuration.snapshot.targets.values()
    headers_used = {target.credential.header for target in targets if target.credential is not None}
    own = sorted(headers_used.difference(AUTH_HEADERS))
    if sum(map(len, own)) <= _ROOM:
        expression = "|".join([WRITTEN, *map(re.escape, own)])
        return HeaderMutationRules(disallow_all=True, allow_expression=regex(expression))
    return HeaderMutationRules(
        disallow_all=True,
        allow_expression=regex(f"{WRITTEN}|[^:]+"),
        disallow_expression=regex(DANGEROUS),
    )


def service(configuration: Configuration, metadata: dict[str, str]) -> GrpcService:
    return GrpcService(
        envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=configuration.envoy.ext_proc_cluster),
        initial_metadata=[HeaderValue(key=key, value=value) for key, value in metadata.items()],
    )


def _forward(names: tuple[str, ...]) -> HeaderForwardingRules:
    """Which headers Envoy sends, of a request and of an answer alike."""
    return HeaderForwardingRules(
        allowed_headers=ListStringMatcher(patterns=[exactly(name) for name in names])
    )


def _mode(body: ProcessingModeBodySendMode, trailers: ProcessingModeHeaderSendMode = _SKIP) -> ProcessingMode:
    return ProcessingMode(
        request_header_mode=_SEND,
        request_body_mode=body,
        request_trailer_mode=trailers,
        response_header_mode=_SKIP,
        response_body_mode=_NONE,
        response_trailer_mode=_SKIP,
    )
