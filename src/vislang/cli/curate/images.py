"""vislang curate images: search for words at sites with pictures."""

from pathlib import Path


def images(
    words: Path,
    *,
    out: Path,
    providers: tuple[str, ...] = ("openverse",),
    per_word: int = 100,
    most_words: int = 0,
    max_caption: int = 2000,
    need_caption: bool = True,
    endpoints: dict[str, str] | None = None,
    tries: int = 6,
    wait_s: float = 1.0,
    patience_s: float = 3700.0,
    pause_s: float = 0.0,
    agent: str = "vislang",
    retry_failed: bool = False,
) -> None:
    """Search for words at providers of pictures; the same command again goes on where it stopped.

    Writes OUT/images.parquet with url, caption, word, provider, page, author, licence and sizes: a
    row a picture, with all the words and captions under which it was found.

    Args:
        words: folder of `vislang curate words`, a table with a column word, or a text file.
        out: folder to fill.
        providers: openverse, wikimedia, unsplash; keys come from the environment.
        per_word: pictures of one word at one provider; 0 takes all that it gives.
        most_words: words from the beginning of the list; 0 takes all.
        max_caption: characters of a caption; a longer one is none.
        need_caption: reject pictures without a caption.
        endpoints: addresses to ask instead, as in {unsplash: 'http://127.0.0.1:8000/search'}.
        tries: of one request, for what may pass.
        wait_s: seconds before the second try, doubled for each further one.
        patience_s: the longest wait that a provider may ask for.
        pause_s: seconds between two requests.
        agent: how we call ourselves; with an address to write to, as Wikimedia asks.
        retry_failed: ask again for words that got no answer.
    """
    from vislang.curate.images import Searching, search_images
    from vislang.curate.images.asking import Manners

    done = search_images(
        words, out, providers, Searching(per_word, max_caption, need_caption, most_words),
        endpoints=endpoints, retry_failed=retry_failed,
        manners=Manners(tries, wait_s, patience_s, pause_s, agent=agent),
        on_done=lambda unit, note: print(
            f"{unit}: {note['rows']:,} pictures of {note['words']} words", flush=True
        ),
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    print(f"Pictures: {out / 'images.parquet'} ({done['pictures']:,}; {done['merged']:,} rows were"
          " of pictures found before)")  # fmt: skip
    for name, counts in done["providers"].items():
        print(f"  {name}: {counts['rows']:,} of {counts['words']:,} words"
              f" in {counts['requests']:,} requests")  # fmt: skip
        for what in ("rejected", "failed"):
            for reason, count in sorted(counts[what].items(), key=lambda item: -item[1]):
                print(f"    {what}: {count:,} ({reason})")
    print(f"Next: vislang curate fetch {out / 'images.parquet'} --out PICTURES")
