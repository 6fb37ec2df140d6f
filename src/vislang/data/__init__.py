"""Samples and batches.

open_source -> Source -> Sample -> decode -> augment -> Batches
"""

# Here, and not beside the functions, so that `vislang list augments` need not import them.
AUGMENTS: dict[str, str] = {
    "clip": "vislang.data.transforms:clip",
    "global_crop": "vislang.data.transforms:global_crop",
    "light": "vislang.data.transforms:light",
    "local_crop": "vislang.data.transforms:local_crop",
    "none": "vislang.data.transforms:none",
    "simclr": "vislang.data.transforms:simclr",
}
