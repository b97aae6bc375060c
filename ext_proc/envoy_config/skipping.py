"""A filter that is passed over for some requests, which their headers tell."""

from __future__ import annotations

from envoy_data_plane.envoy.config.core.v3 import TypedExtensionConfig
from envoy_data_plane.envoy.extensions.common.matching.v3 import ExtensionWithMatcher
from envoy_data_plane.envoy.extensions.filters.common.matcher.action.v3 import SkipFilter
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import HttpRequestHeaderMatchInput
from envoy_data_plane.xds.core.v3 import TypedExtensionConfig as MatcherExtensionConfig
from envoy_data_plane.xds.type.matcher.v3 import (
    Matcher,
    MatcherMatcherList,
    MatcherMatcherListFieldMatcher,
    MatcherMatcherListPredicate,
    MatcherMatcherListPredicateSinglePredicate,
    MatcherOnMatch,
    StringMatcher,
)

from ext_proc.envoy_config.typed import pack


def skipped_where(holds: MatcherMatcherListPredicate, of: HttpFilter) -> HttpFilter:
    """The filter, for requests of which this does not hold."""
    skip = MatcherOnMatch(action=MatcherExtensionConfig(name="skip", typed_config=pack(SkipFilter())))
    matcher = MatcherMatcherListFieldMatcher(predicate=holds, on_match=skip)
    matched = ExtensionWithMatcher(
        extension_config=TypedExtensionConfig(name=of.name, typed_config=of.typed_config),
        xds_matcher=Matcher(matcher_list=MatcherMatcherList(matchers=[matcher])),
    )
    return HttpFilter(name="envoy.filters.http.match_delegate", typed_config=pack(matched))


def header_is(name: str, value: StringMatcher) -> MatcherMatcherListPredicate:
    """Whether a header of the request matches. One that is not there matches nothing."""
    return MatcherMatcherListPredicate(
        single_predicate=MatcherMatcherListPredicateSinglePredicate(
            input=MatcherExtensionConfig(
                name=name, typed_config=pack(HttpRequestHeaderMatchInput(header_name=name))
            ),
            value_match=value,
        )
    )
