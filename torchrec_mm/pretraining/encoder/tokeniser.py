"""Texts to tokens, without the encoder's weights: what a loading process needs.

Shape letters: n texts, T tokens of the longest.
"""

import copy
import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer  # slow to import


class Tokeniser:
    """The first module of a sentence-transformers model, its weights left out.

    Can be sent to another process: 1 MB, against 90 MB with the weights. The model's default
    prompt, if it has one, is put before each text.
    """

    def __init__(self, model: "SentenceTransformer") -> None:
        first = model[0]
        tensors = [*first.parameters(), *first.buffers()]
        weightless = {id(tensor): tensor.detach().to("meta") for tensor in tensors}
        self._module: Any = copy.deepcopy(first, weightless)  # each kind has its own settings
        name = model.default_prompt_name
        self._prompt = (model.prompts.get(name) if name else None) or None

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """N > 0 texts -> what the model's forward reads by name, each (n, T) int64 or (n,)."""
        tokens = self._module.preprocess(texts, prompt=self._prompt)
        counts = {name: value for name, value in tokens.items() if isinstance(value, int)}
        return {
            name: torch.full((len(texts),), value) if name in counts else value
            for name, value in tokens.items()
            if name in counts or isinstance(value, Tensor)
        }

    def description(self) -> str:
        """Equal where equal texts give equal tokens: vocabulary, rules, longest text, prompt."""
        tokeniser = self._module.tokenizer
        parts: dict[str, Any] = {
            "vocabulary": tokeniser.get_vocab(),
            "max_length": getattr(self._module, "max_seq_length", None),
            "special": getattr(tokeniser, "special_tokens_map", {}),
            "prompt": self._prompt,
        }
        rules = getattr(tokeniser, "backend_tokenizer", tokeniser)
        if hasattr(rules, "to_str"):
            parts["rules"] = json.loads(rules.to_str())
            for state_of_last_call in ("truncation", "padding"):
                parts["rules"].pop(state_of_last_call)
        return json.dumps(parts, sort_keys=True, default=str)
