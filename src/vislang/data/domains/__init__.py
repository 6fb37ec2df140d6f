"""Described domains: a shift of the picture, and the sentences that name it.

from vislang.data.domains import apply_domains, open_domains
domains = open_domains(["described"])                       # the 18
pictures = apply_domains(pixels, domains, seed=0, id="a.jpg")

Families: "described" (the 18, DOMAINS), "cifar" (corrupted CIFAR, ten corruptions, severity 1-5)
and "imagenet_c" (19 corruptions, severity 1-5). An operation of your own is a function of pixels.
"""

from vislang.lookup import lazily

# Loaded when asked for, so that a list of names needs neither numpy nor OpenCV.
__getattr__ = lazily(
    __name__,
    {
        "CIFAR": "vislang.data.domains.corruptions",
        "DOMAINS": "vislang.data.domains.table",
        "Domain": "vislang.data.domains.domain",
        "IMAGENET_C": "vislang.data.domains.corruptions",
        "apply_domains": "vislang.data.domains.apply",
        "each_domain": "vislang.data.domains.apply",
        "open_domains": "vislang.data.domains.names",
        "own_domain": "vislang.data.domains.names",
    },
)
