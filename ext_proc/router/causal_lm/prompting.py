"""Policies and a conversation to token ids, through the model's own tokenizer and chat template."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from ext_proc.core import answer, prompt
from ext_proc.core.prompt import Variant
from ext_proc.core.types import Message, Policy
from ext_proc.router.causal_lm.tree import AnswerTree, build_tree


@dataclass(frozen=True, slots=True)
class Asked:
    """What is constant for a set of policies. The tree's last answer is "none of them".

    `prefix` holds the ids that every prompt for these policies begins with.
    """

    policies: tuple[Policy, ...]
    tree: AnswerTree
    prefix: tuple[int, ...]


class Prompter:
    """Writes the prompts of one model. The tokenizer is transformers' (fast: it releases the GIL)."""

    def __init__(self, tokenizer: Any, variant: Variant, budget_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._variant = variant
        self._budget_tokens = budget_tokens

    def ask_about(self, policies: tuple[Policy, ...]) -> Asked:
        """Everything that does not depend on the conversation.

        Errors: ValueError when two policies' names have the same tokens.
        """
        names: list[str | None] = [*(policy.name for policy in policies), None]
        tree = build_tree([self._ids(answer.written(name, self._variant)) for name in names])
        # A tokenizer may merge across the place where the conversation begins. Two conversations that
        # differ at once show how far all prompts agree.
        one, other = (
            self._prompt_ids(policies, (Message(role, text),))
            for role, text in (("user", "?"), ("assistant", "a"))
        )
        agreed = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
        return Asked(policies, tree, tuple(token for token, _ in agreed))

    def prompt(self, messages: tuple[Message, ...], asked: Asked) -> list[int]:
        """The ids of a whole prompt, forced tokens included. Empty without any user's text."""
        turns = prompt.select_turns(messages, self._count, self._budget_tokens)
        if not turns:
            return []
        return [*self._prompt_ids(asked.policies, turns), *asked.tree.forced]

    def _prompt_ids(self, policies: tuple[Policy, ...], turns: tuple[Message, ...]) -> list[int]:
        text = prompt.build(policies, turns, self._variant).text
        whole: str = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        return self._ids(whole)

    def _count(self, text: str) -> int:
        return len(self._ids(prompt.quoted(text, self._variant)))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
