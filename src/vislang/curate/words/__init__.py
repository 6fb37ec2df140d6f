"""Words of a language, counted in a dump of its Wikipedia (or of any other MediaWiki).

from vislang.curate.words import RULES, count_words
count_words("enwiki-pages-articles.xml.bz2", "words/", RULES["original"])
"""

from vislang.lookup import lazily

# The parser of wikitext loads when something is counted.
__getattr__ = lazily(
    __name__,
    {
        "RULES": "vislang.curate.words.rules",
        "Rules": "vislang.curate.words.rules",
        "count_words": "vislang.curate.words.job",
        "plain_text": "vislang.curate.words.wikitext",
        "read_pages": "vislang.curate.words.dump",
        "read_words": "vislang.curate.words.job",
    },
)
