"""Models: towers, heads, a text decoder and the dual encoder that they make.

The registries stand here, as plain text, so that `vislang list` reads them without torch.
"""

HEADS = {
    "none": "vislang.models.heads:none_head",
    "linear": "vislang.models.heads:linear_head",
    "mlp": "vislang.models.heads:mlp_head",
    "adapter": "vislang.models.adapter_head:adapter_head",
}

DECODERS = {
    "transformer": "vislang.models.decoder:build",
}

TOKENIZERS = {
    "bytes": "vislang.models.tokenizers:ByteTokenizer",
    "clip": "vislang.models.clip_bpe:ClipTokenizer",
    "file": "vislang.models.file_tokenizer:FileTokenizer",
}
