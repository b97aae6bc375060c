"""The listener of a whole bootstrap: our filter and routes with what an LLM gateway needs around them."""

from __future__ import annotations

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import SubstitutionFormatString
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
)
from envoy_data_plane.google.protobuf import Struct

from ext_proc.core import headers
from ext_proc.core.settings import Configuration
from ext_proc.envoy_config.break_log import break_log
from ext_proc.envoy_config.filters import ext_proc, observe_ext_proc, own_headers, router
from ext_proc.envoy_config.routes import route_configuration
from ext_proc.envoy_config.typed import address, pack, seconds

_METADATA = f"%DYNAMIC_METADATA({headers.METADATA_NAMESPACE}:{{}})%"

ACCESS_LOG_FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(x-request-id)%",
    "method": "%REQ(:method)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "policy": _METADATA.format("policy"),
    "model": _METADATA.format("model"),
    "answered_by": f"%RESP({headers.MODEL})%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "arm": f"%REQ({headers.ARM})%",
    "shadow": _METADATA.format("shadow"),
    "reason": f"%RESP({headers.REASON})%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "route": "%ROUTE_NAME%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
}
"""One JSON line per request: no path (its query may hold a key), no credential, no content. `model` is the
target that was decided on, `answered_by` the one of the last attempt.

The reason is the response's, because only that tells of requests that reached no server.
"""


STREAMED_PIECE_BYTES = 1 << 20
"""The most that Envoy sends the server at once of a streamed body: its own default."""


def buffer_limit(configuration: Configuration) -> int:
    """BUFFERED bodies above this get 413 from Envoy itself; its own default is 1 MiB."""
    envoy = configuration.envoy
    return (
        min(STREAMED_PIECE_BYTES, envoy.body_limit_bytes)
        if envoy.streams_bodies
        else envoy.buffer_limit_bytes
    )


def listener(configuration: Configuration) -> Listener:
    """A plain HTTP listener. A mesh puts its own TLS in front, or pastes the filter into its own."""
    envoy = configuration.envoy
    manager = HttpConnectionManager(
        stat_prefix="llm",
        route_config=route_configuration(configuration),
        early_header_mutation_extensions=[own_headers(configuration)],
        http_filters=[ext_proc(configuration), observe_ext_proc(configuration), router()],
        # A model may think for minutes before its first byte.
        stream_idle_timeout=seconds(envoy.request_timeout_s),
        # Idle is not who sends a byte now and then: 408 to a body that does not come to its end.
        request_timeout=seconds(envoy.request_timeout_s),
        access_log=[
            break_log(configuration),
            AccessLog(
                name="envoy.access_loggers.stdout",
                typed_config=pack(
                    StdoutAccessLog(
                        log_format=SubstitutionFormatString(
                            json_format=Struct.from_dict(dict(ACCESS_LOG_FIELDS)), omit_empty_values=True
                        )
                    )
                ),
            ),
        ],
    )
    return Listener(
        name="llm",
        address=address(envoy.listener),
        per_connection_buffer_limit_bytes=buffer_limit(configuration),
        filter_chains=[
            FilterChain(
                filters=[
                    Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(manager))
                ]
            )
        ],
    )
