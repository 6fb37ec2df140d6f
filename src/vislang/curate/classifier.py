"""Which domain an embedding shows: a small network, trained on sentences or on pictures.

n: rows, D: width of an embedding, C: domains, H: hidden width, round(D / 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vislang.errors import UserError
from vislang.files import fingerprint, read_json, write_json, write_whole
from vislang.lookup import nearest

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

KINDS = ("mlp", "linear")
WEIGHTS, ABOUT = "classifier.safetensors", "classifier.json"


class DomainClassifier(nn.Module):
    """One logit a domain, of the unit embedding x.

        mlp:     W2 gelu(W1 x + b1) + b2 + W x + b        H = round(D / 4)
        linear:  W x + b

    Args:
        names: of the domains, in the order of the columns.
        width: D.
        kind: mlp or linear.

    Attributes:
        temperature: by which logits are divided in `log_probs`; 1 unless it was calibrated.
        about: what it was trained on, for the record.
    """

    def __init__(self, names: Sequence[str], width: int, kind: str = "mlp"):
        super().__init__()
        if kind not in KINDS:
            raise UserError(
                f"A classifier is one of {', '.join(KINDS)}, got {kind!r}.{nearest(kind, KINDS)}"
            )
        self.names, self.width, self.kind = tuple(names), width, kind
        self.temperature = 1.0
        self.about: dict[str, Any] = {}
        self.skip = nn.Linear(width, len(names))
        if kind == "mlp":
            hidden = round(0.25 * width)
            self.hidden = nn.Linear(width, hidden)
            self.out = nn.Linear(hidden, len(names))

    def forward(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n C"]:
        """Logits. Rows need not have unit length; a zero row gives NaN."""
        return self._logits(x, *self._joined(x.dtype))

    def _joined(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(weights [H + C + p, D], biases) of both products with x; linear has H = 0.

        p rows of zeros make them a multiple of 8, with which the product is a tenth faster.
        """
        weights: list[Tensor] = [self.skip.weight]
        biases: list[Tensor] = [self.skip.bias]
        if self.kind == "mlp":
            weights.insert(0, self.hidden.weight)
            biases = [self.hidden.bias, self.skip.bias + self.out.bias]
        weight, bias = torch.cat(weights).to(dtype), torch.cat(biases)
        more = -len(bias) % 8
        return F.pad(weight, (0, 0, 0, more)), F.pad(bias, (0, more))

    def _logits(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # Scaling the results instead of the rows saves a pass over the widest array, and one
        # product with both matrices another one.
        scale = 1 / torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        both = torch.addcmul(bias, F.linear(x, weight).float(), scale)
        hidden = len(self.hidden.bias) if self.kind == "mlp" else 0
        skipped = both[:, hidden : hidden + len(self.names)]
        if not hidden:
            return skipped
        return torch.addmm(skipped, F.gelu(both[:, :hidden]), self.out.weight.T)

    def log_probs(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n C"]:
        """log softmax(logits / temperature)."""
        return self._log_softmax(self(x))

    def _log_softmax(self, logits: Tensor) -> Tensor:
        return (logits / self.temperature if self.temperature != 1 else logits).log_softmax(dim=1)

    def scorer(self, dtype: torch.dtype) -> Callable[[Iterable[np.ndarray]], np.ndarray]:
        """`log_probs` for streams: of tiles [t, D] of any float type, as one float32 [n, C].

        Tiles should be small, some hundred rows: they stay in the processor's cache from the
        conversion to `dtype` to the result.  Several threads may call it at once.
        """
        with torch.inference_mode():
            joined = self._joined(dtype)

        def score(tiles: Iterable[np.ndarray]) -> np.ndarray:
            found, room = [], torch.empty(0, self.width, dtype=dtype)
            with torch.inference_mode():
                for tile in tiles:
                    if not tile.dtype.isnative:
                        tile = tile.astype(tile.dtype.newbyteorder("="))
                    if len(room) < len(tile):
                        room = torch.empty(len(tile), self.width, dtype=dtype)
                    x = room[: len(tile)].copy_(torch.from_numpy(tile))
                    found.append(self._log_softmax(self._logits(x, *joined)).T)
                return torch.cat(found, dim=1).numpy().T  # a domain's scores lie together

        return score

    @property
    def fingerprint(self) -> str:
        """Changes with the weights, the domains and the temperature."""
        weights = {k: v.double().numpy().tobytes().hex() for k, v in self.state_dict().items()}
        return fingerprint([self.names, self.kind, self.temperature, weights])

    def save(self, folder: Path | str) -> None:
        """Write weights and description into a folder."""
        from safetensors.torch import save

        folder = Path(folder)
        weights = {k: v.detach().contiguous() for k, v in self.state_dict().items()}
        write_whole(folder / WEIGHTS, save(weights))
        about = {"names": self.names, "width": self.width, "kind": self.kind}
        write_json(folder / ABOUT, about | {"temperature": self.temperature, "about": self.about})


def load_classifier(folder: Path | str) -> DomainClassifier:
    """A classifier that `save` wrote."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    folder = Path(folder)
    if not (folder / ABOUT).exists():
        raise UserError(
            f"{folder} holds no classifier ({ABOUT}). `vislang curate classifier` trains one."
        )
    about = read_json(folder / ABOUT)
    try:
        made = DomainClassifier(about["names"], about["width"], about["kind"])
        made.load_state_dict(load((folder / WEIGHTS).read_bytes()))
    except (KeyError, TypeError, RuntimeError, OSError, SafetensorError) as error:
        raise UserError(f"{folder} is no whole classifier ({error}). Train it again.") from error
    made.temperature, made.about = float(about["temperature"]), about["about"]
    return made.eval()


@dataclass(frozen=True)
class Fit:
    """How a classifier is trained; the defaults are the original's.

    Args:
        kind: mlp or linear.
        epochs: passes.
        batch_size: rows in a step; the last, smaller batch counts.
        lr: peak of the one-cycle schedule of Adam.
        held_out: share of the groups (class words) that is kept for the report and calibration.
        calibrate: choose the temperature that makes held-out probabilities true.
        seed: of weights, order and split.
    """

    kind: str = "mlp"
    epochs: int = 10
    batch_size: int = 32
    lr: float = 2e-3
    held_out: float = 0.1
    calibrate: bool = True
    seed: int = 0


def one_cycle(step: int, steps: int, peak: float) -> tuple[float, float]:
    """(learning rate, Adam's beta 1) of a step: up by a cosine for 30 % of the steps, then down.

    From peak / 25 to peak to peak / 250,000; beta 1 goes 0.95, 0.85, 0.95 at the same time.
    Smith & Topin 2018, arXiv:1708.07120.

    >>> [round(v, 6) for v in one_cycle(0, 400, 2e-3)]
    [8e-05, 0.95]
    """
    turn, last = 0.3 * steps - 1, steps - 1
    if step <= turn:
        low, high, share, b = peak / 25, peak, step / turn, (0.95, 0.85)
    else:
        low, high, share, b = peak, peak / 25 / 1e4, (step - turn) / (last - turn), (0.85, 0.95)
    bend = (1 + math.cos(math.pi * share)) / 2  # 1 at the beginning of a phase, 0 at its end
    return high + (low - high) * bend, b[1] + (b[0] - b[1]) * bend


def train_classifier(
    rows: Float[np.ndarray, "n D"],
    labels: Int64[np.ndarray, " n"],
    names: Sequence[str],
    groups: Int64[np.ndarray, " n"] | None = None,
    fit: Fit = Fit(),
) -> DomainClassifier:
    """Cross-entropy over rows that are all of one kind: embeddings of sentences, or of pictures.

    Args:
        rows: embeddings; need not have unit length.
        labels: domain of each.
        names: of the domains.
        groups: rows of one group are held out together, so that the held-out numbers speak of
            words that were not seen; by default each row is its own.
        fit: how.

    Raises:
        UserError: a row is not finite or zero, or a domain has no row left to learn from.
    """
    rows = np.asarray(rows, np.float32)
    _check_rows(rows, labels, names)
    held = _held_out(labels if groups is None else groups, len(rows), groups is None, fit)
    learnt = np.flatnonzero(~held)
    missing = set(range(len(names))) - set(labels[learnt].tolist())
    if missing:
        raise UserError(
            f"The domain {names[min(missing)]!r} has no row to learn from: give more class words,"
            " or hold out fewer (held_out)."
        )
    generator = torch.Generator().manual_seed(fit.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fit.seed)
        made = DomainClassifier(names, rows.shape[1], fit.kind)
    _descend(made, torch.from_numpy(rows), torch.as_tensor(labels), learnt, fit, generator)
    made.eval()
    made.about = {"rows": len(rows), "held_out_rows": int(held.sum()), "fit": vars(fit)}
    if held.any():
        _judge(made, rows[held], np.asarray(labels)[held], fit)
    return made


def _check_rows(rows: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    bad = ~np.isfinite(rows).all(axis=1) | ~np.abs(rows).max(axis=1, initial=0).astype(bool)
    if bad.any():
        raise UserError(
            f"{int(bad.sum())} of {len(rows)} embeddings are zero or not finite, first row"
            f" {int(np.flatnonzero(bad)[0])}: the model that made them is at fault."
        )
    if len(labels) != len(rows) or labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"labels must be 0..{len(names) - 1}, one for each of {len(rows)} rows")


def _held_out(groups: np.ndarray, n: int, single: bool, fit: Fit) -> np.ndarray:
    if not 0 <= fit.held_out < 1:
        raise UserError(f"held_out must be a share from 0 to below 1, got {fit.held_out}.")
    members = np.arange(n) if single else np.asarray(groups)
    every = np.unique(members)
    rng = np.random.default_rng([fit.seed, 7])
    chosen = rng.permutation(every)[: round(fit.held_out * len(every))]
    return np.isin(members, chosen)


def _descend(
    made: DomainClassifier, rows: Tensor, labels: Tensor, learnt: np.ndarray, fit: Fit,
    generator: torch.Generator,
) -> None:  # fmt: skip
    per_epoch = -(-len(learnt) // fit.batch_size)
    steps = max(fit.epochs * per_epoch, 8)  # the schedule needs a few to have a shape
    # foreach=False: the tensors are tiny, and grouping them costs more than it saves.
    adam = torch.optim.Adam(made.parameters(), lr=fit.lr, foreach=False)
    places, step = torch.from_numpy(learnt), 0
    for _ in range(fit.epochs):
        order = places[torch.randperm(len(places), generator=generator)]
        for chosen in order.split(fit.batch_size):
            for group in adam.param_groups:
                rate, beta = one_cycle(step, steps, fit.lr)
                group["lr"], group["betas"] = rate, (beta, 0.999)
            loss = F.cross_entropy(made(rows[chosen]), labels[chosen])
            adam.zero_grad()
            loss.backward()
            adam.step()
            step += 1


@torch.no_grad()
def _judge(made: DomainClassifier, rows: np.ndarray, labels: np.ndarray, fit: Fit) -> None:
    """Held-out accuracy and calibration, before and after choosing the temperature."""
    from vislang.curate.judged import calibration_error, choose_temperature

    logits = made(torch.from_numpy(rows)).double().numpy()
    found = {"accuracy": float((logits.argmax(1) == labels).mean())}
    found["calibration_error_before"] = calibration_error(logits, labels)
    if fit.calibrate:
        made.temperature = choose_temperature(logits, labels)
    found["calibration_error"] = calibration_error(logits / made.temperature, labels)
    made.about["held_out"] = found | {"n": len(labels), "temperature": made.temperature}
