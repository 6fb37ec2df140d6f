"""Prompt tuning: learned vectors before the words of every text.

B: texts, L: tokens, D: width of a token, n: learned vectors.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vislang.errors import UserError


class Prompt(nn.Module):
    """n learned vectors in the place of token embeddings, behind the start token.

        [start] v_1 ... v_n word word [end] padding

    The tokens are widened by n before the tower sees them, so its positions, its mask and its end
    token (index + n) are those of the longer text; the vectors then replace the embeddings of the
    placeholders.  The tokenizer gives rows that are n shorter: the total is the tower's context.
    CoOp, Zhou et al. 2022, arXiv:2109.01134, section 3.2.
    """

    def __init__(self, n: int, width: int, at: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(n, width) * 0.02)
        self.at = at

    def widen(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Hook before the tower: [B, L] -> [B, L + n].

        The placeholder is the first token: never padding, and never an end token, which some
        towers find as the largest id.
        """
        tokens, *rest = args
        gap = tokens[:, :1].expand(-1, len(self.vectors))
        return (torch.cat([tokens[:, : self.at], gap, tokens[:, self.at :]], 1), *rest)

    def place(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Hook behind the token embedding: [B, L + n, D] with the vectors at their places."""
        vectors = self.vectors.to(output.dtype).expand(len(output), -1, -1)
        after = self.at + len(self.vectors)
        return torch.cat([output[:, : self.at], vectors, output[:, after:]], 1)


def insert_prompt(tower: nn.Module, n: int) -> Prompt:
    """Put n learned vectors into a text tower, as its child `prompt`.

    Raises:
        UserError: n < 1, no text tower, or no room for three tokens beside the vectors.
    """
    if n < 1:
        raise UserError(f"prompt_tokens must be at least 1, or 0 for none; got {n}.")
    tokenizer: Any = getattr(tower, "tokenizer", None)
    tables = [m for m in tower.modules() if isinstance(m, nn.Embedding)]
    table = next((m for m in tables if m.num_embeddings >= getattr(tokenizer, "vocab", 1)), None)
    if tokenizer is None or table is None:
        raise UserError(
            f"prompt_tokens needs a text tower with a table of token embeddings;"
            f" {type(tower).__name__} has none. Set it to 0."
        )
    left = tokenizer.context - n
    if left < 3:
        raise UserError(
            f"prompt_tokens {n} leaves {left} of {tokenizer.context} tokens for the text, which"
            " needs 3 (start, one, end). Give fewer."
        )
    tower.tokenizer = shortened(tokenizer, left)
    firsts = tower.tokenizer(["a", "b"])[:, 0]  # type: ignore[operator]
    own = table.weight
    prompt = Prompt(n, table.embedding_dim, at=int(firsts[0] == firsts[1]))
    tower.prompt = prompt.to(own.device, own.dtype)
    tower.register_forward_pre_hook(prompt.widen)
    table.register_forward_hook(prompt.place)
    return prompt


def shortened(tokenizer: Any, context: int) -> Any:
    """The same tokenizer for rows of another length."""
    if hasattr(tokenizer, "source"):
        rest = (tokenizer.pad, tokenizer.cleaning, tokenizer.hide)
        return type(tokenizer)(tokenizer.source, context, *rest)
    try:
        return type(tokenizer)(context)
    except (TypeError, UserError) as error:
        raise UserError(
            f"prompt_tokens cannot shorten the texts of {type(tokenizer).__name__}. Set it to 0."
        ) from error
