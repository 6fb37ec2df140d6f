"""Towers: what turns an image or a text into a row of features.  One file a builder.

A builder is called as `builder(side=..., pretrained=..., weights=..., **options)`:

    side        "image" or "text"; a builder that has no such tower raises UserError
    pretrained  a tag that the library knows, a local file or folder, or "" for random weights
    weights     False builds the architecture that `pretrained` names but leaves its weights
                random, because a checkpoint is about to be loaded over them
    options     the builder's own, `TowerConfig.options`

and returns an `nn.Module` with

    width: int           features of a row
    settings: dict       options that rebuild this architecture without any file or download,
                         save for those in `files`; a string may say "{here}/name"
    set_grad_checkpointing(on)

    image:  preprocess: Preprocess;  prepare(image) -> uint8 [3, H, W]
            forward(uint8, or float in [0, 1], [B, 3, H, W]) -> [B, width]
            optional dense(x) -> [B, H', W', width], with_dense(x) -> (forward(x), dense(x))
    text:   tokenizer (picklable);  prepare(texts) -> int64 [n, L];  pad: int
            forward(int64 [B, L]) -> [B, width]
            optional files() -> {name: bytes}, what `settings` refers to as "{here}/name"
"""

TOWERS = {
    "scratch_vit": "vislang.models.towers.scratch_vit:build",
    "scratch_text": "vislang.models.towers.scratch_text:build",
    "open_clip": "vislang.models.towers.open_clip:build",
    "timm": "vislang.models.towers.timm:build",
    "torchvision": "vislang.models.towers.torchvision:build",
    "huggingface": "vislang.models.towers.huggingface:build",
    "sentence_transformers": "vislang.models.towers.sentence_transformers:build",
    "word_vectors": "vislang.models.towers.word_vectors:build",
}
