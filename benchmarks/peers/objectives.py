"""Public implementations of objectives, and plain PyTorch where we found none to install.

Each function takes a copy of our objective, whose heads and queues the peer uses too, and returns a
function from embeddings to the loss, and what the peer is. State (banks, centres, teachers) is
updated inside, as the peer's users do.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Call = Callable[[dict[str, Tensor]], Tensor]
Peer = tuple[Call, str]


def unit(rows: Tensor) -> Tensor:
    """Unit rows."""
    return F.normalize(rows, dim=-1)


def infonce(ours: Any) -> Peer:
    """open_clip's loss."""
    from open_clip.loss import ClipLoss

    loss = ClipLoss()
    return lambda x: loss(unit(x["image"]), unit(x["text"]), ours.log_scale.exp()), "open_clip"


def siglip(ours: Any) -> Peer:
    """open_clip's loss."""
    from open_clip.loss import SigLipLoss

    loss = SigLipLoss()

    def call(x: dict[str, Tensor]) -> Tensor:
        return loss(unit(x["image"]), unit(x["text"]), ours.log_scale.exp(), ours.bias)

    return call, "open_clip"


def coca(ours: Any) -> Peer:
    """open_clip's loss."""
    from open_clip.loss import CoCaLoss

    loss = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0, pad_id=-1)

    def call(x: dict[str, Tensor]) -> Tensor:
        clip, caption = loss(
            unit(x["image"]), unit(x["text"]), x["caption_logits"], x["caption_ids"],
            ours.log_scale.exp(),
        )  # fmt: skip
        return clip + caption

    return call, "open_clip"


def unicl(ours: Any) -> Peer:
    """pytorch-metric-learning's SupCon across the two sides, both ways."""
    from pytorch_metric_learning.losses import SupConLoss

    loss = SupConLoss(temperature=float(1 / ours.log_scale.exp()))

    def call(x: dict[str, Tensor]) -> Tensor:
        image, text, label = x["image"], x["text"], x["label"]
        other = label.clone()  # of the same tensor it would take out the own pairs
        forth = loss(image, label, ref_emb=text, ref_labels=other)
        return (forth + loss(text, label, ref_emb=image, ref_labels=other)) / 2

    return call, "pytorch-metric-learning SupConLoss both ways"


def cross_entropy(ours: Any) -> Peer:
    """torch's own."""
    loss = torch.nn.CrossEntropyLoss(ignore_index=-1)
    return lambda x: loss(ours.classifier(x["image"]), x["label"]), "torch CrossEntropyLoss"


def simcse(ours: Any) -> Peer:
    """sentence-transformers' in-batch negatives."""
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=ours.scale)  # type: ignore[arg-type]
    return (
        lambda x: loss.compute_loss_from_embeddings([x["text"], x["text_2"]], None),  # type: ignore[arg-type]
        "sentence-transformers MultipleNegativesRankingLoss",
    )


def simreg(ours: Any) -> Peer:
    """lightly's negative cosine: 2 + 2 of it."""
    from lightly.loss import NegativeCosineSimilarity

    loss = NegativeCosineSimilarity()
    return lambda x: 2 + 2 * loss(x["image"], x["text"].detach()), "lightly cosine"


def simreg_l1(ours: Any) -> Peer:
    """torch's own."""

    def call(x: dict[str, Tensor]) -> Tensor:
        return F.l1_loss(unit(x["image"]), unit(x["text"].detach())) * x["text"].shape[1]

    return call, "torch l1_loss"


def simreg_smooth_l1(ours: Any) -> Peer:
    """torch's own."""

    def call(x: dict[str, Tensor]) -> Tensor:
        return F.smooth_l1_loss(unit(x["image"]), unit(x["text"].detach())) * x["text"].shape[1]

    return call, "torch smooth_l1_loss"


def rkd(ours: Any) -> Peer:
    """torchdistill's loss, after the authors' code."""
    from torchdistill.losses.mid_level import RKDLoss

    loss = RKDLoss("s", "t", *ours.weights, "mean")
    return (
        lambda x: loss({"s": {"output": x["image"]}}, {"t": {"output": x["text"]}}),
        "torchdistill",
    )


def vicreg(ours: Any) -> Peer:
    """lightly's loss."""
    from lightly.loss import VICRegLoss

    loss = VICRegLoss(*ours.weights)
    return lambda x: loss(x["image"], x["text"]), "lightly"


def barlow_twins(ours: Any) -> Peer:
    """lightly's loss."""
    from lightly.loss import BarlowTwinsLoss

    loss = BarlowTwinsLoss(lambda_param=ours.redundancy)
    return lambda x: loss(x["image"], x["text"]), "lightly"


def ntxent(ours: Any) -> Peer:
    """lightly's loss."""
    from lightly.loss import NTXentLoss

    loss = NTXentLoss(temperature=ours.temperature)
    return lambda x: loss(ours.projector(x["image"]), ours.projector(x["image_2"])), "lightly"


def slip(ours: Any) -> Peer:
    """open_clip's and lightly's losses."""
    from lightly.loss import NTXentLoss

    clip, ssl = infonce(ours)[0], NTXentLoss(temperature=ours.ssl_temperature)

    def call(x: dict[str, Tensor]) -> Tensor:
        views = (ours.projector(x[f"image_{i}_features"]) for i in (2, 3))
        return clip(x) + ssl(*views)

    return call, "open_clip + lightly"


def simsiam(ours: Any) -> Peer:
    """lightly's loss."""
    from lightly.loss import NegativeCosineSimilarity

    loss = NegativeCosineSimilarity()

    def call(x: dict[str, Tensor]) -> Tensor:
        z, w = ours.projector(x["image"]), ours.projector(x["image_2"])
        p, q = ours.predictor(z), ours.predictor(w)
        return (loss(p, w.detach()) + loss(q, z.detach())) / 2

    return call, "lightly"


def byol(ours: Any) -> Peer:
    """lightly's loss and momentum update."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.utils import update_momentum

    loss = NegativeCosineSimilarity()

    def call(x: dict[str, Tensor]) -> Tensor:
        p, q = (ours.predictor(ours.projector(x[key])) for key in ("image", "image_2"))
        with torch.no_grad():
            z, w = (ours.teacher(x[f"{key}_teacher"]) for key in ("image", "image_2"))
        update_momentum(ours.projector, ours.teacher, m=0.996)
        return 4 + 2 * (loss(p, w) + loss(q, z))

    return call, "lightly"


def _bank(ours: Any) -> Any:
    from lightly.models.modules import NNMemoryBankModule

    bank = NNMemoryBankModule(size=tuple(ours.queue.rows.shape))
    bank(ours.queue.rows.float())  # makes the bank
    bank.bank = ours.queue.rows.clone() if len(bank.bank) == len(ours.queue.rows) else (
        ours.queue.rows.T.clone()
    )  # fmt: skip
    bank.bank_ptr.zero_()
    return bank


def nnclr(ours: Any) -> Peer:
    """lightly's bank; its NT-Xent has other candidates than the paper, so the loss is plain."""
    bank = _bank(ours)

    def call(x: dict[str, Tensor]) -> Tensor:
        z, w = ours.projector(x["image"]), ours.projector(x["image_2"])
        p, q = unit(ours.predictor(z)), unit(ours.predictor(w))
        near_w = unit(bank(w.detach(), update=False))
        near_z = unit(bank(z.detach(), update=True))
        own = torch.arange(len(p))
        return (
            F.cross_entropy(ours.scale * near_z @ q.T, own)
            + F.cross_entropy(ours.scale * near_w @ p.T, own)
        ) / 2

    return call, "lightly's bank + torch cross_entropy"


def declip(ours: Any) -> Peer:
    """lightly's bank and open_clip's loss."""
    from open_clip.loss import ClipLoss

    bank, loss = _bank(ours), ClipLoss()

    def call(x: dict[str, Tensor]) -> Tensor:
        image, text, scale = unit(x["image"]), unit(x["text"]), ours.log_scale.exp()
        near = unit(bank(text.detach(), update=True))
        return 0.8 * loss(image, text, scale) + 0.2 * loss(image, near, scale)

    return call, "lightly's bank + open_clip"


def swav(ours: Any) -> Peer:
    """lightly's loss."""
    from lightly.loss import SwaVLoss

    loss = SwaVLoss(sinkhorn_epsilon=ours.epsilon, temperature=ours.temperature)

    def call(x: dict[str, Tensor]) -> Tensor:
        views = [unit(ours.projector(x[key])) for key in ("image", "image_2")]
        return loss([view @ ours.prototypes.T for view in views], []).sum()

    return call, "lightly"


def dino(ours: Any) -> Peer:
    """lightly's loss and momentum update."""
    from lightly.loss import DINOLoss
    from lightly.models.utils import update_momentum

    loss = DINOLoss(ours.center.shape[1])

    def call(x: dict[str, Tensor]) -> Tensor:
        students = [ours.head(x[key]) for key in ("image", "image_2")]
        with torch.no_grad():
            teachers = [ours.teacher_head(x[f"{key}_teacher"]) for key in ("image", "image_2")]
        update_momentum(ours.head, ours.teacher_head, m=0.996)
        return loss(teachers, students)

    return call, "lightly"


# -- no public package that we could install: plain torch, the queue cloned as published ---------


def seed(ours: Any) -> Peer:
    """The formula with a cloned queue, as in MoCo's and SEED's code."""
    queue = ours.queue.rows.T.clone()

    def call(x: dict[str, Tensor]) -> Tensor:
        a, b = unit(x["text"].detach()), unit(x["image"])
        stored = queue.clone().detach()
        found = torch.cat([(b * a).sum(1, keepdim=True), b @ stored], 1) / ours.temperature
        wanted = torch.cat([(a * a).sum(1, keepdim=True), a @ stored], 1)
        target = (wanted / ours.teacher_temperature).softmax(1)
        queue[:, : len(a)] = a.T
        return -(target * found.log_softmax(1)).sum(1).mean()

    return call, "plain torch, queue cloned"


def compress(ours: Any) -> Peer:
    """The formula with cloned queues."""
    queues = {"text": ours.queue.rows.clone(), "image": ours.students_queue.clone()}
    two = ours.students_queue is not ours.queue.rows

    def call(x: dict[str, Tensor]) -> Tensor:
        a, b = unit(x["text"].detach()), unit(x["image"])
        stored = queues["text"].clone()
        wanted = (a @ stored.T / ours.temperature).softmax(1)
        other = queues["image"].clone() if two else stored
        found = (b @ other.T / ours.temperature).log_softmax(1)
        queues["text"][: len(a)] = a
        if two:
            queues["image"][: len(b)] = b.detach()
        return F.kl_div(found, wanted, reduction="batchmean")

    return call, "plain torch, queue cloned"


def protocpc(ours: Any) -> Peer:
    """The formula."""

    def call(x: dict[str, Tensor]) -> Tensor:
        teacher, student = ours.head(x["text"]).detach(), ours.head(x["image"]) / ours.temperature
        target = (teacher / ours.teacher_temperature).softmax(1)
        ours.prior.mul_(0.9).add_(0.1 * target.sum(0) / target.sum() * target.shape[1])
        return -(target * student).sum(1).mean() + (student.exp() * 1.0).sum(1).log().mean()

    return call, "plain torch"


def protoclip(ours: Any) -> Peer:
    """The formula, with open_clip's loss for its first part."""
    clip = infonce(ours)[0]

    def call(x: dict[str, Tensor]) -> Tensor:
        image, text = ours.project(x["image"], x["text"])
        a, index = ours.prototype_log_scale.exp(), x["index"]
        total = clip(x)
        for z, own, labels, centroids in (
            (image, ours.image_from_text, ours.text_labels, ours.text_centroids),
            (text, ours.text_from_image, ours.image_labels, ours.image_centroids),
        ):
            similar = centroids[labels[index]] @ centroids.T / ours.target_temperature
            logits = a * z @ own.T
            total = total - (similar.softmax(1) * logits.log_softmax(1)).sum(1).mean() / 2
        return total

    return call, "open_clip + plain torch"


REFERENCES: dict[str, Callable[[Any], Peer]] = {
    "infonce": infonce,
    "siglip": siglip,
    "coca": coca,
    "unicl": unicl,
    "cross_entropy": cross_entropy,
    "simcse": simcse,
    "simreg": simreg,
    "simreg_l1": simreg_l1,
    "simreg_smooth_l1": simreg_smooth_l1,
    "rkd": rkd,
    "vicreg": vicreg,
    "barlow_twins": barlow_twins,
    "ntxent": ntxent,
    "slip": slip,
    "simsiam": simsiam,
    "byol": byol,
    "nnclr": nnclr,
    "declip": declip,
    "swav": swav,
    "dino": dino,
    "seed": seed,
    "compress_1q": compress,
    "compress_2q": compress,
    "protocpc": protocpc,
    "protoclip": protoclip,
}
