"""The same sample through img2dataset, for those who have it and trust their list of URLs.

It does not refuse private addresses, reads robots.txt not at all, and follows redirects anywhere:
meant for comparison, and for machines that can reach nothing but the open web.
"""

from __future__ import annotations

from pathlib import Path

from vislang.curate.fetch.session import Fetching
from vislang.errors import UserError


def fetch_with_img2dataset(
    table: Path,
    out: Path,
    how: Fetching = Fetching(),  # noqa: B008  frozen
) -> None:
    """Hand a sample's table to img2dataset with the sizes and caps of `how`.

    Raises:
        UserError: img2dataset is not installed.
    """
    try:
        from img2dataset import download  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise UserError(
            "The engine img2dataset needs the package img2dataset: pip install img2dataset,"
            " or leave --engine out to use our own."
        ) from error
    download(
        url_list=str(table), input_format="parquet", url_col="url", caption_col="caption",
        output_folder=str(out), output_format="webdataset" if how.layout == "tar" else "files",
        image_size=how.side, resize_mode="keep_ratio", encode_quality=how.quality,
        number_sample_per_shard=how.shard, processes_count=1, thread_count=how.threads,
        timeout=int(how.caps.seconds), compute_hash="sha256",
        disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
    )  # fmt: skip
