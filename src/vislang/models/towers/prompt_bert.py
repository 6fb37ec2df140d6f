"""The pooler `promptbert`: a text's features are what a BERT would put at a mask.

B: texts, L: tokens, D: width.

Each text is put into a template, and the features are the last hidden state at the template's
mask, less what the template alone gives there: PromptBERT, Jiang et al. 2022, arXiv:2201.04337,
sections 4.1 and 4.3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vislang.errors import UserError
from vislang.models.file_tokenizer import FileTokenizer
from vislang.models.tokenizers import trim
from vislang.models.towers.huggingface import HuggingfaceText

GAP = "{}"
TEMPLATES = {
    "[MASK]": 'The sentence of "{}" means [MASK].',
    "<mask>": "This sentence : '{}' means <mask>.",
}


class TemplateTokenizer:
    """A tokenizer that puts each text into a template; a long text is cut, never the template.

    Args:
        inner: the model's tokenizer, which must know a mask token.
        template: a sentence with {} for the text and one mask; empty takes the usual one.
    """

    def __init__(self, inner: FileTokenizer, template: str = ""):
        if not isinstance(inner, FileTokenizer):
            raise UserError(
                "pooler promptbert needs the model's own tokenizer (file:PATH of a tokenizer.json),"
                f" got {type(inner).__name__}."
            )
        known = [name for name in TEMPLATES if inner.tokenizer.token_to_id(name) is not None]
        if not known:
            raise UserError(
                f"pooler promptbert needs a mask token ({' or '.join(TEMPLATES)}), which this"
                " tokenizer does not have. Choose another pooler."
            )
        self.inner, self.template = inner, template or TEMPLATES[known[0]]
        if self.template.count(GAP) != 1 or self.template.count(known[0]) != 1:
            raise UserError(
                f"template must hold {GAP} once and {known[0]} once, got {self.template!r}."
            )
        self.mask: int = inner.tokenizer.token_to_id(known[0])
        self.context, self.pad, self.vocab = inner.context, inner.pad, inner.vocab
        self.empty: list[int] = inner.tokenizer.encode(self.template.format("")).ids
        before = self.template.partition(GAP)[0]
        start = len(inner.tokenizer.encode("").ids) // 2  # the start token, where there is one
        plain = inner.tokenizer.encode(before, add_special_tokens=False).ids
        self.split = start + len(plain)  # where the text's tokens stand
        if len(self.empty) + 1 > self.context or self.mask not in self.empty:
            raise UserError(
                f"The template takes {len(self.empty)} of {self.context} tokens, which leaves none"
                " for a text. Set options.context higher, or a shorter template."
            )

    @property
    def portable(self) -> str:
        """The spec of the inner tokenizer; the pooler brings the template."""
        return self.inner.portable

    def files(self) -> dict[str, bytes]:
        """Those of the inner tokenizer."""
        return self.inner.files()

    def __call__(self, texts: str | Sequence[str]) -> Tensor:
        """Texts -> int64 [n, context]."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        return self.inner([self._filled(text) for text in texts])

    def _filled(self, text: str) -> str:
        whole = self.inner.tokenizer
        room = self.context - len(self.empty)
        ids = whole.encode(text, add_special_tokens=False).ids
        cut = text
        # Decoded and encoded again, a cut text may take a token more than it had.
        while len(ids) > room or self.mask not in whole.encode(self.template.format(cut)).ids:
            ids = ids[: min(room, len(ids) - 1)]
            cut = whole.decode(ids)
        return self.template.format(cut)


class PromptBertText(HuggingfaceText):
    """A BERT or RoBERTa whose features are read at the mask of a template: [B, L] -> [B, D]."""

    tokenizer: TemplateTokenizer

    def __init__(self, model: Any, tokenizer: Any, pooler: str, settings: dict[str, Any]):
        template = settings.get("template", "")
        super().__init__(model, TemplateTokenizer(tokenizer, template), pooler, settings)
        first = position_start(model)
        if first is None:
            raise UserError(
                f"pooler promptbert knows the positions of BERT and RoBERTa, not of"
                f" {model.config.model_type}. Choose another pooler."
            )
        self.first_position = first

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, L] -> [B, D]."""
        tokens = trim(tokens, self.pad)
        there = tokens != self.pad
        out = self.model(input_ids=tokens.clamp_min(0), attention_mask=there.long())
        # The last mask is the template's: a text may speak of masks itself.
        position = torch.arange(tokens.shape[1], device=tokens.device)
        at = (position * (tokens == self.tokenizer.mask)).amax(1)
        rows = out.last_hidden_state[torch.arange(len(tokens), device=tokens.device), at]
        return rows - self.template_alone(there.sum(1) - len(self.tokenizer.empty))

    @torch.no_grad()
    def template_alone(self, lengths: Tensor) -> Tensor:
        """What the template without a text gives at its mask: [B] -> [B, D].

        Its second half stands where a text of that length would have pushed it.
        """
        unique, which = lengths.clamp_min(0).unique(return_inverse=True)
        ids = torch.tensor(self.tokenizer.empty, device=lengths.device)
        position = torch.arange(len(ids), device=lengths.device)
        later = (position >= self.tokenizer.split) * unique[:, None]
        out = self.model(
            input_ids=ids.expand(len(unique), -1),
            attention_mask=torch.ones_like(ids).expand(len(unique), -1),
            position_ids=position + later + self.first_position,
        )
        return out.last_hidden_state[:, self.tokenizer.empty.index(self.tokenizer.mask)][which]


def position_start(model: Any) -> int | None:
    """The number of the first token's position; None for models that have no such table."""
    kind = model.config.model_type
    if kind in ("bert", "electra"):
        return 0
    if kind in ("roberta", "xlm-roberta", "camembert"):
        return model.config.pad_token_id + 1
    return None
