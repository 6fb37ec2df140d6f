"""Our own text transformer, of any size.

B: texts, L: tokens, D: width.

With its defaults it is CLIP's text tower (arXiv:2103.00020): causal attention, the features of
the end token.  Its weights map one to one onto open_clip's `TextTransformer`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vislang.config import from_dict, to_dict
from vislang.errors import UserError
from vislang.models.tokenizers import build_tokenizer, trim
from vislang.models.towers.named import TEXT_SIZES, of_size
from vislang.models.towers.sides import check_side, choose
from vislang.models.transformer import Transformer
from vislang.models.weights import load_pretrained

POOLS = ("eot", "last", "cls", "mean", "max")


@dataclass(frozen=True)
class TextOptions:
    """Options of `scratch_text`; the defaults are the text tower of CLIP ViT-B.

    Args:
        tokenizer: a key of TOKENIZERS: clip, bytes, or file:tokenizer.json.
        context: longest text in tokens; longer ones are cut, keeping the end token.
        width: features of a token.
        depth: blocks.
        heads: attention heads; 0 takes one for each 64 features.
        mlp_ratio: hidden width of a block's MLP, in widths.
        pool: eot or last (the last token that is not padding), cls (the first), mean, max.
        causal: a token sees only itself and those before it.
        dropout: on the output of each attention and MLP.
        size: S, B or L sets width, depth, heads and mlp_ratio, unless they are given, too.
    """

    tokenizer: str = "clip"
    context: int = 77
    width: int = 512
    depth: int = 12
    heads: int = 0
    mlp_ratio: float = 4.0
    pool: str = "eot"
    causal: bool = True
    dropout: float = 0.0
    size: str = ""


class ScratchText(nn.Module):
    """Text tower: tokens int64 [B, L] -> [B, D]."""

    def __init__(self, options: TextOptions):
        super().__init__()
        choose("pool of scratch_text", options.pool, POOLS)
        if options.pool == "cls" and options.causal:
            raise UserError(
                "pool cls takes the first token, which sees no other under causal attention."
                " Set causal to false, or pool to eot."
            )
        self.options, self.width = options, options.width
        self.tokenizer = build_tokenizer(options.tokenizer, options.context)
        self.pad: int = self.tokenizer.pad
        width = options.width
        self.token_embedding = nn.Embedding(self.tokenizer.vocab, width)
        self.positional_embedding = nn.Parameter(torch.randn(options.context, width) * 0.01)
        heads = options.heads or max(1, width // 64)
        mlp_width = int(width * options.mlp_ratio)
        self.transformer = Transformer(width, options.depth, heads, mlp_width, options.dropout)
        self.ln_final = nn.LayerNorm(width)
        self.drop = nn.Dropout(options.dropout)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    @property
    def settings(self) -> dict[str, Any]:
        """Options that rebuild this tower."""
        return to_dict(self.options) | {"tokenizer": self.tokenizer.portable}

    def files(self) -> dict[str, bytes]:
        """What `settings` refers to as "{here}/name"."""
        return self.tokenizer.files()

    def prepare(self, texts: list[str]) -> Tensor:
        """Texts -> tokens int64 [n, L]."""
        return self.tokenizer(texts)

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.transformer.grad_checkpointing = on

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [B, L] -> [B, D]; columns that are padding throughout are left out."""
        tokens = trim(tokens, self.pad)
        length = tokens.shape[1]
        if length > self.options.context:
            raise UserError(
                f"The text tower takes at most {self.options.context} tokens, got {length}."
                " Use its own tokenizer (tower.prepare)."
            )
        position = torch.arange(length, device=tokens.device)
        # Not `tokens != pad`: CLIP's padding id 0 is also its "!" inside a word.
        end = (position * (tokens != self.pad)).amax(1)
        inside = position <= end[:, None]
        x = self.token_embedding(tokens.clamp_min(0)) + self.positional_embedding[:length]
        x = self.drop(x)
        mask = None if self.options.causal else inside[:, None, None]
        if self.options.pool in ("eot", "last", "cls"):
            row = torch.zeros_like(end) if self.options.pool == "cls" else end
            # The end token's causal mask is the very mask of the text.
            x = self.transformer(x, mask, self.options.causal, row, inside[:, None, None])
            return self.ln_final(x)
        x = self.ln_final(self.transformer(x, mask, self.options.causal))
        if self.options.pool == "max":
            return x.masked_fill(~inside[..., None], -torch.inf).amax(1)
        return (x * inside[..., None]).sum(1) / inside.sum(1, keepdim=True)


def build(*, side: str, pretrained: str = "", weights: bool = True, **options: Any) -> ScratchText:
    """Our own text transformer of any size (text)."""
    check_side(side, ("text",), "scratch_text")
    options = of_size(options, TEXT_SIZES)
    tower = ScratchText(from_dict(TextOptions, options, f"model.{side}.options"))
    if pretrained and weights:
        load_pretrained(tower, pretrained, side)
    return tower
