"""Pointing at what the words say: boxes, scores and heat-maps for phrases.

Every localizer is called as `localizer(images, phrases) -> found`, see `protocol.Localizer`.
A builder is called as `build(spec, device=, **options)`, spec being a MODEL of the commands or,
for detectors, a folder in their library's own format.
"""

LOCALIZERS: dict[str, str] = {
    "slicvit": "vislang.localize.slicvit:build",
    "maskclip": "vislang.localize.dense:maskclip",
    "sclip": "vislang.localize.dense:sclip",
    "naclip": "vislang.localize.dense:naclip",
    "resnet": "vislang.localize.resnet:build",
    "selective_search": "vislang.localize.proposals:build",
    "regionclip": "vislang.localize.regionclip:build",
    "owlvit": "vislang.localize.owl:build",
    "owlv2": "vislang.localize.owl:build",
    "grounding_dino": "vislang.localize.grounding_dino:build",
    "centre": "vislang.localize.baselines:centre",
    "random": "vislang.localize.baselines:random",
}
