"""ELEVATER: zero-shot, linear probe and fine-tuning over its data sets, by two protocols.

`elevater` is the toolkit's: its sampling of few shots, its search of rate and weight decay, its
SGD.
`validated` is ours: everything is chosen on held-out training samples, and test samples are asked
once. Li et al. 2022, arXiv:2204.08790.
"""

PROTOCOLS = ("elevater", "validated")
