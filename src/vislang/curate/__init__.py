"""Curation: from what there is to what one trains on.

from vislang.curate import find_neighbours
table = find_neighbours("redcaps/", "sentence_transformers:all-mpnet-base-v2", "nn/redcaps", k=5)
"""

from vislang.lookup import lazily

# Torch loads when something is embedded.
__getattr__ = lazily(
    __name__,
    {
        "count_words": "vislang.curate.words",
        "search_images": "vislang.curate.images",
        "find_neighbours": "vislang.curate.neighbours",
        "nearest_among": "vislang.curate.exact",
        "read_original": "vislang.curate.original",
        "write_original": "vislang.curate.original",
        "make_dictionary": "vislang.curate.dictionary",
        "open_collection": "vislang.curate.collections",
        "pick_shards": "vislang.curate.shards",
        "fetch_shards": "vislang.curate.shards",
        "teach_sentences": "vislang.curate.sentences",
        "teach_pictures": "vislang.curate.sentences",
        "train_classifier": "vislang.curate.classifier",
        "load_classifier": "vislang.curate.classifier",
        "judge_classifier": "vislang.curate.judged",
        "score_collection": "vislang.curate.score",
        "sample_top": "vislang.curate.sample",
        "sample_uniform": "vislang.curate.sample",
        "sample_text": "vislang.curate.sample",
        "fetch_sample": "vislang.curate.fetch",
        "draw_collages": "vislang.curate.collage",
        "make_tokenizer": "vislang.curate.tokenizer",
    },
)
