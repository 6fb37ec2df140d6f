"""Adapters: small trainable parts inside a transformer whose own weights rest.  One file a method.

A method is called as `build(blocks, **options)` with the blocks of a tower (`models.anatomy`) and
returns a `Plan`: which part sits at which seat of which block.  A part at a seat is a module

    forward(x, y) -> y'      y: what the tower's own layer gave for its input x

and the seats of a block are

    query key value    behind the projections of the attention
    out                behind the layer that ends the attention
    ffn_in ffn_out     behind the first and the last layer of the feed-forward network
    hidden             the input of that last layer (x is not given)
    ffn                beside the whole network: x its input, y its output
    norm               at the norm behind the network, in blocks that norm the sum (BERT): x the
                       norm's output, y its input
    prefix             further keys and values of the attention (see prefix.py)

`insert.py` puts a plan into a tower, `merge.py` folds parts into the weights, `saved.py` writes
them alone.  The registry is plain text, so that `vislang list` reads it without torch.
"""

ADAPTERS = {
    "bottleneck": "vislang.models.adapters.bottleneck:build",
    "language": "vislang.models.adapters.language:build",
    "prefix_tuning": "vislang.models.adapters.prefix:build",
    "compacter": "vislang.models.adapters.compacter:build",
    "lora": "vislang.models.adapters.lora:build",
    "ia3": "vislang.models.adapters.ia3:build",
    "mam": "vislang.models.adapters.mam:build",
    "unipelt": "vislang.models.adapters.unipelt:build",
}
