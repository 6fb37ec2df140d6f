"""Objectives: what is minimised, as plain single-process mathematics on the global batch.

An objective is an `nn.Module` (`objective.Objective`) that names the batch keys it `needs`,
returns one scalar for the whole global batch, and owns its temperature, predictors,
prototypes and queues. It never gathers, and it never sees a device or a chunk: the seam
(`train/step.py`) does that once for all of them. `forward` changes nothing that a later step
reads; `after_step()`, called after each optimizer step, writes queues, centres and moving
averages and clamps or renormalises parameters.

Keys of a batch (B rows each; embeddings are fp32, in the joint space, *not* normalised):

    image            embedding of the image, view 1
    image_2, image_3 embeddings of further views of the same image, or of a paired neighbour
    image_crop_1 ... embeddings of small local crops of the same image (multi-crop)
    text             embedding of the text
    text_2           the text embedded once more (other dropout), or another caption
    image_teacher, image_2_teacher, text_teacher
                     the same input embedded without gradient by the momentum (EMA) copy of
                     the model, or by a fixed teacher model
    image_features, image_2_features, image_3_features
                     output of the image tower before its head
    label            int64 [B], class index, -1 where there is none
    index            int64 [B], position of the sample in its source
    caption_logits   [B, L, V] next-token logits of a text decoder (a per-sample key)
    caption_ids      int64 [B, L] the tokens to be predicted, -1 where nothing is
"""

OBJECTIVES = {
    "infonce": "vislang.objectives.infonce:InfoNCE",
    "siglip": "vislang.objectives.siglip:SigLIP",
    "unicl": "vislang.objectives.unicl:UniCL",
    "cross_entropy": "vislang.objectives.cross_entropy:CrossEntropy",
    "simcse": "vislang.objectives.simcse:SimCSE",
    "declip": "vislang.objectives.declip:DeCLIP",
    "slip": "vislang.objectives.slip:SLIP",
    "coca": "vislang.objectives.coca:CoCa",
    "protoclip": "vislang.objectives.protoclip:ProtoCLIP",
    "simreg": "vislang.objectives.regression:SimReg",
    "simreg_l1": "vislang.objectives.regression:SimRegL1",
    "simreg_smooth_l1": "vislang.objectives.regression:SimRegSmoothL1",
    "rkd": "vislang.objectives.rkd:RKD",
    "seed": "vislang.objectives.seed:SEED",
    "compress_1q": "vislang.objectives.compress:CompRess1q",
    "compress_2q": "vislang.objectives.compress:CompRess2q",
    "protocpc": "vislang.objectives.protocpc:ProtoCPC",
    "dino": "vislang.objectives.dino:DINO",
    "vicreg": "vislang.objectives.vicreg:VICReg",
    "barlow_twins": "vislang.objectives.barlow:BarlowTwins",
    "ntxent": "vislang.objectives.ntxent:NTXent",
    "simsiam": "vislang.objectives.simsiam:SimSiam",
    "byol": "vislang.objectives.byol:BYOL",
    "nnclr": "vislang.objectives.nnclr:NNCLR",
    "swav": "vislang.objectives.swav:SwAV",
    "disentangle": "vislang.objectives.disentangle:Disentangle",
}
