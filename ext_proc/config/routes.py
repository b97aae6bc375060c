"""The file's policies, in all published shapes, resolved to routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ext_proc.config.affinity import listed_ids, stickiness
from ext_proc.config.catalog import Catalog, entries_of
from ext_proc.config.document import Document, Mark, Path, Report, shown
from ext_proc.config.draft import Draft
from ext_proc.config.failover import check_chain, check_split, retry_of
from ext_proc.config.schema import InlinePreference, Preference, WeightedTarget
from ext_proc.config.weights import normalise
from ext_proc.core.types import WHOLE_PER_10K, Arm, Policy, Route, Shadow, Target

RESERVED = "other"
"""The routers' word for "none of them". Source: Arch-Router's prompt."""

CANARY = "canary"
"""The second arm of a split, and the one that a rollout moves."""


@dataclass(frozen=True, slots=True)
class _Written:
    """One policy of the file: inline ones are served by the provider that they stand under."""

    path: Path
    preference: InlinePreference
    served_by: str | None = None


def build_routes(draft: Draft, catalog: Catalog, report: Report) -> dict[str, Route]:
    """Resolve every policy to its route, in the order of the file, reporting what is wrong."""
    document = draft.document
    routes: dict[str, Route] = {}
    lines: dict[str, int] = {}
    for written in sorted(_policies(draft), key=lambda written: document.mark(written.path)):
        preference, path = written.preference, written.path
        name, mark = preference.name, document.mark((*path, "name"))
        if name.casefold() == RESERVED:
            report.add(mark, f'"{shown(name)}" is the routers\' word for no policy', "give it another name")
        if preference.domain == name:
            text = f'policy "{shown(name)}" is its own domain'
            report.add(
                document.mark((*path, "domain")), text, "remove domain: a policy without one covers a domain"
            )
        _check_examples(document, written, report)
        if name in lines:
            hint = f"merge them, or rename one: the first is in line {lines[name]}"
            report.add(mark, f'two policies are called "{shown(name)}"', hint)
        route = _route(draft, catalog, written, report)
        if name not in lines and route is not None:
            routes[name] = route
        lines.setdefault(name, mark.line)
    return routes


def policy_places(draft: Draft) -> dict[Path, Mark]:
    """Where the parts of each policy stand, by its name and the way inside it."""
    places: dict[Path, Mark] = {}
    for written in _policies(draft):
        name, preference, path = written.preference.name, written.preference, written.path
        for key in ("name", "description"):
            places[name, key] = draft.document.mark((*path, key))
        for key, texts in (("examples", preference.examples), ("not_examples", preference.not_examples)):
            for index in range(len(texts or ())):
                places[name, key, index] = draft.document.mark((*path, key, index))
    return places


def _policies(draft: Draft) -> Iterator[_Written]:
    for path, entry in entries_of(draft):
        for index, inline in enumerate(entry.routing_preferences or []):
            if inline is not None:
                yield _Written((*path, "routing_preferences", index), inline, entry.name or entry.model)
    for index, preference in enumerate(draft.config.routing_preferences or []):
        if preference is not None:
            yield _Written(("routing_preferences", index), preference)


def _route(draft: Draft, catalog: Catalog, written: _Written, report: Report) -> Route | None:
    preference, path = written.preference, written.path
    policy = Policy(
        preference.name,
        preference.description,
        preference.domain,
        _texts(preference.examples),
        _texts(preference.not_examples),
    )
    if not isinstance(preference, Preference):
        target = catalog.targets.get(written.served_by or "")
        return None if target is None else Route(policy, (Arm("baseline", target, WHOLE_PER_10K),))
    arms, fallbacks = _destinations(draft, catalog, preference, path, report)
    if preference.rollout is not None:
        arms = _with_canary(draft, catalog, preference, arms, (*path, "rollout"), report)
    shadows = _shadows(draft, catalog, preference, path, report)
    chosen_by = preference.selection_policy
    if chosen_by is not None and chosen_by.prefer != "none":
        mark = draft.document.mark((*path, "selection_policy", "prefer"))
        text = f'"prefer: {chosen_by.prefer}" has no effect: models are used in the order written'
        report.add(mark, text, 'write "prefer: none", or remove selection_policy', is_warning=True)
    observed = preference.observe or bool(shadows) or preference.rollout is not None
    retry = retry_of(draft.config.routing.failover, preference.failover)
    check_chain(draft, arms, fallbacks, path, report)
    by_envoy = (preference.split or draft.config.routing.split) == "envoy" and len(arms) > 1
    if by_envoy:
        check_split(draft, preference, arms, path, report)
    always, never = listed_ids(draft, preference, arms, path, report)
    return (
        Route(
            policy=policy,
            arms=arms,
            shadows=shadows,
            fallbacks=fallbacks,
            observed=observed,
            retry=retry,
            envoy_splits=by_envoy,
            sticky=stickiness(draft, preference),
            always=always,
            never=never,
        )
        if arms
        else None
    )


def _texts(written: list[str | None] | None) -> tuple[str, ...]:
    return tuple(text for text in written or () if text is not None)


def _check_examples(document: Document, written: _Written, report: Report) -> None:
    """A message belongs to a policy or does not, and saying so twice says no more."""
    seen: dict[str, str] = {}
    for key in ("examples", "not_examples"):
        for index, text in enumerate(getattr(written.preference, key) or ()):
            if text in seen:
                problem = "this message is here twice"
                if seen[text] != key:
                    problem = 'this message is in "examples" as well'
                report.add(document.mark((*written.path, key, index)), problem, "keep one of them")
            elif text is not None:
                seen[text] = key


def _destinations(
    draft: Draft, catalog: Catalog, preference: Preference, path: Path, report: Report
) -> tuple[tuple[Arm, ...], tuple[Target, ...]]:
    document = draft.document
    if preference.models is not None and preference.targets is not None:
        mark = document.mark((*path, "targets"), of_key=True)
        report.add(mark, '"models" and "targets" exclude each other', "keep targets to split, models to rank")
    if preference.fallbacks is not None and preference.models is not None:
        mark = document.mark((*path, "fallbacks"), of_key=True)
        report.add(mark, '"models" has its fallbacks in it', "append these to models")
    if preference.targets is not None:
        arms = _split(draft, catalog, preference.targets, (*path, "targets"), report)
        return arms, _ranked(draft, catalog, preference.fallbacks or [], (*path, "fallbacks"), report)
    if preference.models is None:
        if not draft.is_lost((*path, "models")) and not draft.is_lost((*path, "targets")):
            report.add(
                document.mark(path),
                "this policy names no model",
                'write "models: [provider]", or "targets" with weights',
            )
        return (), ()
    targets = _ranked(draft, catalog, preference.models, (*path, "models"), report)
    arms = tuple(Arm("baseline", target, WHOLE_PER_10K) for target in targets[:1])
    return arms, targets[1:]


def _ranked(
    draft: Draft, catalog: Catalog, written: list[str | None], path: Path, report: Report
) -> tuple[Target, ...]:
    places = [((*path, index), name) for index, name in enumerate(written) if name is not None]
    found = [catalog.find(name, place, draft, report) for place, name in places]
    marks = [draft.document.mark(place) for place, _ in places]
    _check_repeats(zip(found, marks, strict=True), report)
    return tuple(target for target in found if target is not None)


def _with_canary(
    draft: Draft, catalog: Catalog, preference: Preference, arms: tuple[Arm, ...], path: Path, report: Report
) -> tuple[Arm, ...]:
    """The arms of a policy with a rollout: the model it has, and the next one with nothing yet."""
    rollout = preference.rollout
    assert rollout is not None
    mark = draft.document.mark((*path, "canary"))
    if preference.targets is not None:
        text = "a policy with a rollout has no weights of its own: the rollout sets them"
        hint = 'write "models: [the present model]" instead of targets'
        report.add(draft.document.mark((*path[:-1], "targets"), of_key=True), text, hint)
    canary = catalog.find(rollout.canary, (*path, "canary"), draft, report)
    if canary is None or not arms:
        return arms
    if canary.name == arms[0].target.name:
        report.add(
            mark,
            f'"{shown(canary.name)}" is the model this policy has',
            "name the one that it moves to, or remove a rollout that is over",
        )
        return arms
    return (replace(arms[0], weight_per_10k=WHOLE_PER_10K), Arm(CANARY, canary, 0))


def _split(
    draft: Draft, catalog: Catalog, written: list[WeightedTarget | None], path: Path, report: Report
) -> tuple[Arm, ...]:
    document = draft.document
    entries = [(index, entry) for index, entry in enumerate(written) if entry is not None]
    found = [catalog.find(entry.model, (*path, index, "model"), draft, report) for index, entry in entries]
    marks = [document.mark((*path, index, "model")) for index, _ in entries]
    _check_repeats(zip(found, marks, strict=True), report)
    if any(
        draft.is_lost((*path, index)) or draft.is_lost((*path, index, "weight"))
        for index in range(len(written))
    ):
        return ()
    weights = [entry.weight for _, entry in entries]
    if not any(weights):
        report.add(document.mark(path), "every weight is zero", "give at least one target a positive weight")
        return ()
    shares = normalise(weights)
    for (index, entry), share in zip(entries, shares, strict=True):
        if entry.weight > 0 and share == 0:
            report.add(
                document.mark((*path, index, "weight")),
                f'the weight of "{shown(entry.model)}" is less than 0.01 % of all',
                "raise it, or write 0",
            )
    arms = zip(_arm_names(), found, shares, strict=False)
    return tuple(Arm(name, target, share) for name, target, share in arms if target is not None)


def _arm_names() -> Iterator[str]:
    yield "baseline"
    yield CANARY
    number = 2
    while True:
        yield f"canary-{number}"
        number += 1


def _shadows(
    draft: Draft, catalog: Catalog, preference: Preference, path: Path, report: Report
) -> tuple[Shadow, ...]:
    entries = [(index, entry) for index, entry in enumerate(preference.shadow or []) if entry is not None]
    marks = [draft.document.mark((*path, "shadow", index, "model")) for index, _ in entries]
    found = [
        catalog.find(entry.model, (*path, "shadow", index, "model"), draft, report)
        for index, entry in entries
    ]
    _check_repeats(zip(found, marks, strict=True), report)
    if sum(entry.percent for _, entry in entries) > WHOLE_PER_10K:
        mark = draft.document.mark((*path, "shadow"))
        report.add(
            mark,
            "the shadows add up to more than 100 percent",
            "a request has one shadow at most: lower them",
        )
    return tuple(
        Shadow(
            target,
            entry.percent,
            max_concurrent=entry.max_concurrent,
            max_per_minute=entry.max_per_minute,
            max_body_bytes=entry.max_body,
            noise_floor=entry.noise_floor,
        )
        for target, (_, entry) in zip(found, entries, strict=True)
        if target is not None
    )


def _check_repeats(found: Iterable[tuple[Target | None, Mark]], report: Report) -> None:
    seen: set[str] = set()
    for target, mark in found:
        if target is not None and target.name in seen:
            report.add(mark, f'"{shown(target.name)}" is named twice here', "keep one of them")
        elif target is not None:
            seen.add(target.name)
