"""A text decoder: writes an image's caption token by token, looking at the image's patches.

B: pairs, L: tokens of a caption, N: patches of an image, F: features of the image tower,
D: width of the decoder, V: vocabulary.

CoCa, Yu et al. 2022, arXiv:2205.01917, section 3.2.  Simpler here than there: the paper's decoder
stands on the upper half of the text tower, ours has embeddings and blocks of its own, so that it
goes with any text tower; the paper's attentional pooler condenses the patches to 256 queries, ours
is one linear layer on every patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vislang.config import from_dict
from vislang.errors import UserError
from vislang.models.transformer import Attention, Mlp

NOTHING = -1  # in caption_ids: no token is to be predicted here


@dataclass(frozen=True)
class DecoderOptions:
    """Options of the decoder `transformer`; the defaults are half of CoCa-Base's depth.

    Args:
        width: features of a token.
        depth: blocks, each of self-attention, cross-attention and MLP.
        heads: attention heads; 0 takes one for each 64 features.
        mlp_ratio: hidden width of a block's MLP, in widths.
        dropout: on the output of each attention and MLP.
        tie: the output layer is the token embedding, transposed.
    """

    width: int = 512
    depth: int = 6
    heads: int = 0
    mlp_ratio: float = 4.0
    dropout: float = 0.0
    tie: bool = False


class CrossAttention(nn.Module):
    """Queries from the caption, keys and values from the image."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.kv_proj = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x [B, L, D], seen [B, N, D] -> [B, L, D]."""
        batch, length, width = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, -1).transpose(1, 2)
        kv = self.kv_proj(seen).view(batch, seen.shape[1], 2, self.heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).reshape(batch, length, width))


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention to the image, MLP; each on a norm, each added."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.ln_1, self.ln_cross, self.ln_2 = (nn.LayerNorm(width) for _ in range(3))
        self.attn = Attention(width, heads)
        self.cross = CrossAttention(width, heads)
        self.mlp = Mlp(width, hidden)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x [B, L, D], seen [B, N, D] -> [B, L, D]."""
        x = x + self.drop(self.attn(self.ln_1(x), None, True))
        x = x + self.drop(self.cross(self.ln_cross(x), seen))
        return x + self.drop(self.mlp(self.ln_2(x)))


class Decoder(nn.Module):
    """Next-token logits of a caption, given the image: patches [B, N, F], tokens [B, L].

        logits_i = W LN(blocks(tokens up to i, patches)),   i = 0 ... L - 2, for token i + 1

    Args:
        features: F.
        tokenizer: of the text side; its start and end tokens frame every caption.
        options: see `DecoderOptions`.

    Raises:
        UserError: the tokenizer has no start or end token, or heads do not divide the width.
    """

    def __init__(self, features: int, tokenizer: Any, options: DecoderOptions):
        super().__init__()
        width, heads = options.width, options.heads or max(1, options.width // 64)
        if width % heads:
            raise UserError(f"heads must divide width, got heads {heads} and width {width}.")
        if options.depth < 1:
            raise UserError(f"depth must be at least 1, got {options.depth}.")
        self.options, self.grad_checkpointing = options, False
        self.pad, self.context = int(tokenizer.pad), int(tokenizer.context)
        self.start, self.end = frame_of(tokenizer)
        vocabulary = int(tokenizer.vocab)
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(self.context, width) * 0.01)
        self.image_proj = nn.Linear(features, width)
        self.ln_image = nn.LayerNorm(width)
        hidden = int(width * options.mlp_ratio)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, heads, hidden, options.dropout) for _ in range(options.depth)
        )
        self.ln_final = nn.LayerNorm(width)
        self.drop = nn.Dropout(options.dropout)
        self.output = None if options.tie else nn.Linear(width, vocabulary, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        """As the towers from scratch: the deeper, the smaller each residual's share."""
        width, share = self.options.width, (3 * self.options.depth * self.options.width) ** -0.5
        for name, parameter in self.named_parameters():
            if name.endswith(("out_proj.weight", "c_proj.weight")):
                nn.init.normal_(parameter, std=share)
            elif name.endswith(("in_proj_weight", "q_proj.weight", "kv_proj.weight")):
                nn.init.normal_(parameter, std=width**-0.5)
            elif name.endswith("c_fc.weight"):
                nn.init.normal_(parameter, std=(2 * width) ** -0.5)
            elif name.endswith(("token_embedding.weight", "output.weight")):
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def set_grad_checkpointing(self, on: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = on

    def forward(self, patches: Tensor, tokens: Tensor) -> Tensor:
        """Logits of tokens 1 ... L - 1: [B, N, F], int64 [B, L] -> [B, L - 1, V]."""
        return self._logits(self._blocks(self._seen(patches), tokens[:, :-1]))

    def targets(self, tokens: Tensor) -> Tensor:
        """What `forward` should predict: int64 [B, L] -> [B, L - 1], -1 behind the end token."""
        position = torch.arange(tokens.shape[1], device=tokens.device)
        # The last that is not padding, as CLIP's padding id 0 is also its "!" inside a word.
        end = (position * (tokens != self.pad)).amax(1, keepdim=True)
        return tokens[:, 1:].masked_fill(position[1:] > end, NOTHING)

    @torch.no_grad()
    def generate(self, patches: Tensor, max_tokens: int) -> list[list[int]]:
        """The likeliest next token again and again (greedy), until the end token.

        Args:
            patches: [B, N, F].
            max_tokens: longest caption, at most the context less the start token.

        Returns:
            For each image its tokens, without the start and the end token.
        """
        most = self.context - 1
        if not 1 <= max_tokens <= most:
            raise UserError(f"max_tokens must be from 1 to {most}, got {max_tokens}.")
        seen = self._seen(patches)
        tokens = torch.full((len(seen), 1), self.start, device=seen.device)
        over = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
        for _ in range(max_tokens):
            following = self._logits(self._blocks(seen, tokens)[:, -1]).argmax(-1)
            tokens = torch.cat([tokens, following[:, None]], 1)
            over |= following == self.end
            if bool(over.all()):
                break
        rows = tokens[:, 1:].tolist()
        return [row[: row.index(self.end)] if self.end in row else row for row in rows]

    def _seen(self, patches: Tensor) -> Tensor:
        return self.ln_image(self.image_proj(patches))

    def _blocks(self, seen: Tensor, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if length > self.context:
            raise UserError(
                f"The decoder writes at most {self.context} tokens, got {length}."
                " Use the text tower's own tokenizer."
            )
        x = self.token_embedding(tokens.clamp_min(0)) + self.positional_embedding[:length]
        x = self.drop(x)
        recompute = self.grad_checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, seen, use_reentrant=False) if recompute else block(x, seen)
        return x

    def _logits(self, x: Tensor) -> Tensor:
        x = self.ln_final(x)
        return F.linear(x, self.token_embedding.weight) if self.output is None else self.output(x)


def frame_of(tokenizer: Any) -> tuple[int, int]:
    """The start and end token that a tokenizer puts around every text.

    >>> from vislang.models.tokenizers import ByteTokenizer
    >>> frame_of(ByteTokenizer(8))
    (257, 258)
    """
    texts: Sequence[str] = ("a", "b c")
    rows = [[int(t) for t in row if int(t) != tokenizer.pad] for row in tokenizer(list(texts))]
    first, last = ({row[i] for row in rows} for i in (0, -1))
    if len(first) > 1 or len(last) > 1 or first == last:
        raise UserError(
            "A text decoder needs a tokenizer that begins and ends each text with a token of its"
            f" own; this one ends {texts[0]!r} and {texts[1]!r} in {rows}. Choose another text"
            " tower (its tokenizer: clip, bytes, a BERT's), or leave model.decoder empty."
        )
    return first.pop(), last.pop()


def build(*, features: int, tokenizer: Any, **options: Any) -> Decoder:
    """A causal transformer with cross-attention to the image's patches (CoCa)."""
    return Decoder(features, tokenizer, from_dict(DecoderOptions, options, "model.decoder.options"))
