"""Small Qwen2 models with tokenizers of their own, made here and loaded as real ones are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from ext_proc.core import answer, prompt
from ext_proc.core.prompt import Variant
from ext_proc.core.types import Message, Policy

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's, less its system prompt."""

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's way of cutting text into words. Source: `tokenizer.json` of Qwen2.5."""

END = "<|im_end|>"


POLICIES = tuple(
    Policy(name, f"about {name}")
    for name in ("code", "code review", "code generation", "travel", 'it\'s "odd"', "旅行", "otherwise")
)
"""Names that begin one another, that need escapes, and that begin as `other` does."""

LESSONS = (
    ("look at my code please", "code review"),
    ("write me a function", "code generation"),
    ("something about code", "code"),
    ("book a flight", "travel"),
    ("odd things", 'it\'s "odd"'),
    ("hello there", None),
)
"""What `taught_folder` learns: a user's text, and the policy's name or None."""


def make_tokenizer(texts: Iterable[str], vocabulary: int = 700) -> PreTrainedTokenizerFast:
    """A byte-level BPE of Qwen's kind, trained on some texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", END]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(list(texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )


def corpus(policies: Sequence[Policy]) -> list[str]:
    """What the tokenizer should have words for: the prompt, and answers with merges across the quotes."""
    turns = (Message("user", "write a function that sorts a list of numbers"),)
    whole = prompt.build(tuple(policies), turns).text
    return [whole] * 3 + [answer.written(policy.name) for policy in policies] * 5 + [answer.written(None)] * 5


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2ForCausalLM:
    """Two layers with grouped queries, as Qwen2.5 has, and random weights."""
    # Threads that wait for each other cost a small model more than they give, most of all on a busy machine.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        # Larger than usual, so that untrained models differ between answers.
        initializer_range=0.3,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def teach(
    model: Qwen2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    policies: tuple[Policy, ...],
    lessons: Sequence[tuple[str, str | None]],
    steps: int = 50,
) -> None:
    """Let the model learn to answer: a user's text and the policy's name, or None for none of them."""
    ids, labels = [], []
    for text, name in lessons:
        asked = prompt_text(tokenizer, policies, text, Variant.ARCHGW)
        asked_ids, answer_ids = (
            tokenizer(part, add_special_tokens=False)["input_ids"]
            for part in (asked, answer.written(name) + END)
        )
        ids.append(torch.tensor(asked_ids + answer_ids))
        labels.append(torch.tensor([-100] * len(asked_ids) + answer_ids))
    # Padding on the right is seen by nothing that counts.
    batch = pad_sequence(ids, batch_first=True)
    wanted = pad_sequence(labels, batch_first=True, padding_value=-100)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=batch, labels=wanted).loss.backward()
        optimizer.step()
    model.eval()


def prompt_text(
    tokenizer: PreTrainedTokenizerFast, policies: tuple[Policy, ...], text: str, variant: Variant
) -> str:
    """The whole text that a model is given for one user message."""
    content = prompt.build(policies, (Message("user", text),), variant).text
    whole: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    return whole


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """As the hub's folders are."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def taught_folder(
    folder: Path,
    policies: tuple[Policy, ...] = POLICIES,
    lessons: Sequence[tuple[str, str | None]] = LESSONS,
) -> Path:
    """A model that has learned its lessons, saved as those of the hub are."""
    tokenizer = make_tokenizer(corpus(policies))
    model = make_model(tokenizer)
    teach(model, tokenizer, policies, lessons)
    return save(model, tokenizer, folder)
