"""The access log that tells the server which answers their providers broke off in the middle."""

from __future__ import annotations

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLog,
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    HeaderFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import ApiVersion, RuntimeUInt32
from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
)

from ext_proc.core import headers
from ext_proc.core.settings import Configuration
from ext_proc.envoy_config.filters import service
from ext_proc.envoy_config.typed import pack, seconds

_BREAKS = ["UC", "UR", "UPE", "UT", "SI"]
"""The provider ended the connection or the stream, broke the protocol, took too long, or fell silent."""


def break_log(configuration: Configuration) -> AccessLog:
    """Of the observed answers those that began well: what failed before, its status tells the observer."""
    began_well = StatusCodeFilter(
        comparison=ComparisonFilter(
            op=ComparisonFilterOp.LE,
            value=RuntimeUInt32(default_value=399, runtime_key="arch.break_log.highest_status"),
        )
    )
    is_observed = HeaderFilter(header=HeaderMatcher(name=headers.OBSERVE, present_match=True))
    return AccessLog(
        name="envoy.access_loggers.http_grpc",
        filter=AccessLogFilter(
            and_filter=AndFilter(
                filters=[
                    AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(_BREAKS))),
                    AccessLogFilter(header_filter=is_observed),
                    AccessLogFilter(status_code_filter=began_well),
                ]
            )
        ),
        typed_config=pack(
            HttpGrpcAccessLogConfig(
                common_config=CommonGrpcAccessLogConfig(
                    log_name="arch_breaks",
                    transport_api_version=ApiVersion.V3,
                    grpc_service=service(configuration, {}),
                    # At once: a hard limit waits for it.
                    buffer_size_bytes=0,
                    buffer_flush_interval=seconds(0.25),
                ),
                additional_request_headers_to_log=list(headers.LOGGED_OF_BREAKS),
                additional_response_headers_to_log=list(headers.LOGGED_OF_BROKEN_ANSWERS),
            )
        ),
    )
