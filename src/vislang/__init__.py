"""vislang: vision-language representation learning.

    sources -> samples -> batches -> embeddings -> scores -> report

Importing the package loads nothing heavy; each part is imported where it is used.
"""

__version__ = "0.1.0"
