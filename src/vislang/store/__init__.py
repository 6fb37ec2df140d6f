"""Embeddings on disk, in the layout of clip-retrieval and of LAION's published embeddings.

    img_emb/img_emb_0000.npy     [n, D]     metadata/metadata_0000.parquet            n rows
    text_emb/text_emb_0000.npy   [m, D]     text_metadata/text_metadata_0000.parquet  m rows
    feat_emb/feat_emb_0000.npy   [n, F]     the image tower's output before the head
    rejected.parquet                        samples that could not be used
    manifest.json                           written last, with a checksum of every file

Rows join by position. `image_row` of the text metadata is the row, within the same part, of the
image that the text describes.
"""

from vislang.store.domain_writer import DomainWriter
from vislang.store.domains import DomainStore
from vislang.store.reader import Store, open_store
from vislang.store.rows import Rows
from vislang.store.writer import StoreWriter

__all__ = ["DomainStore", "DomainWriter", "Rows", "Store", "StoreWriter", "open_store"]
