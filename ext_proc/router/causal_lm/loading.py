"""A model from a folder or the user's hub cache, with what it needs to run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ext_proc.core.errors import Reason, RouterError

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def load(name: str, device: str, dtype: str) -> tuple[Any, Any]:
    """A tokenizer and a model, by a local path or a hub id. Network: only what the hub library does.

    `device` is one of torch's, or `auto` for CUDA where it is there; `dtype` a name of torch's, or
    `auto` for what the device computes fastest. Errors: RouterError, naming the model.
    """
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    is_folder = Path(name).is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=is_folder)
        model: Any = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=_DTYPES.get(dtype) or default_dtype(place),
            attn_implementation="sdpa",
            local_files_only=is_folder,
        )
        model.to(place)
    except Exception as error:
        # transformers raises OSError, ValueError, and what the hub library and safetensors raise.
        text = f"cannot load the routing model {name}: {type(error).__name__}: {_first_line(error)}"
        raise RouterError(Reason.ROUTER_ERROR, text) from error
    if not tokenizer.chat_template:
        raise RouterError(Reason.ROUTER_ERROR, f"the routing model {name} has no chat template")
    return tokenizer, model


def default_dtype(device: torch.device) -> torch.dtype:
    """What the device computes fastest."""
    if device.type == "cuda" or (device.type == "cpu" and _cpu_computes_bfloat16()):
        return torch.bfloat16
    return torch.float32


def _cpu_computes_bfloat16() -> bool:
    """Without instructions of its own for it, a CPU computes bfloat16 slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
