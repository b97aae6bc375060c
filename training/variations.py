"""Changes to a conversation that keep, or end, what it is about."""

from __future__ import annotations

import random

from ext_proc.core.types import Message
from training.corpus import Conversation

_PREFIXED, _CONTINUED = 0.12, 0.08
_CLOSED = 0.6

_ANSWERS = (
    "Sure.",
    "Here you go.",
    "Done. Anything else?",
    "Of course! Here is a first version.",
    "I have taken care of that. Is there anything else I can help you with?",
    "Here is what I found.",
    "That depends on a few things. Let me explain.",
    "Yes, that is possible.",
    "I'm sorry, I could not find anything. Could you give me more details?",
    "OK, it is ready.",
    "Let me look that up for you. One moment.",
    "Certainly. There are three options, and the second is the most common one.",
)
_FOLLOW_UPS = (
    "make it shorter",
    "can you try again?",
    "another one please",
    "and the other one?",
    "more detail on the second point",
    "not quite what I meant, do it differently",
    "yes, go on",
    "yes please",
    "why?",
    "what about tomorrow instead?",
    "explain that a bit more",
    "no, the first one",
    "could you double-check that?",
    "same again but simpler",
    "change the last part",
    "that doesn't look right to me",
    "continue",
    "which one would you choose?",
    "are you sure about that?",
    "ok, and then?",
    "give me two alternatives",
    "leave out the first part",
)
_FAREWELLS = (
    "No, that's all. Thanks!",
    "No thank you, that is all for now.",
    "nope, that's it",
    "No, nothing else.",
    "That's everything, thank you so much.",
    "No, I'm good.",
    "not right now, thanks",
    "no thanks",
)
_OFFERS = (
    "Anything else?",
    "Is there anything else I can help you with?",
    "Do you need anything else?",
    "Can I do something else for you?",
    "What else can I do?",
)


def prefixed(conversation: Conversation, stranger: Conversation, rng: random.Random) -> Conversation:
    """Now and then another matter first: the newest one is what counts."""
    if len(conversation) > 1 or rng.random() >= _PREFIXED:
        return conversation
    return (*stranger, _answer(rng), *conversation)


def continued(conversation: Conversation, rng: random.Random) -> Conversation:
    """Now and then a follow-up that says nothing alone: it belongs to what was before."""
    if rng.random() >= _CONTINUED:
        return conversation
    return (*conversation, _answer(rng), Message("user", rng.choice(_FOLLOW_UPS)))


def closed(before: Conversation, none: Conversation, rng: random.Random) -> Conversation:
    """A conversation that asks for nothing, alone or after one that did."""
    chance = rng.random()
    if chance >= _CLOSED:
        return none
    if chance < 0.15:
        answer = Message("assistant", f"{rng.choice(_ANSWERS[:8])} {rng.choice(_OFFERS)}")
        return (*before, answer, Message("user", rng.choice(_FAREWELLS)))
    return (*before, _answer(rng), none[-1])


def _answer(rng: random.Random) -> Message:
    return Message("assistant", rng.choice(_ANSWERS))


def thinned(conversation: Conversation, rng: random.Random) -> Conversation:
    """Now and then a few words fewer in the newest message."""
    if rng.random() >= 0.3:
        return conversation
    words = conversation[-1].text.split(" ")
    if len(words) < 6:
        return conversation
    kept = [word for word in words if rng.random() >= 0.12]
    return (*conversation[:-1], Message("user", " ".join(kept or words)))
