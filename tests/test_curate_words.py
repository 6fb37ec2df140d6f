"""Counting words: real excerpts against another way of counting, rules, resuming, cut dumps."""

import bz2
import os
import re
import signal
import subprocess
import sys
import time
import unicodedata
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dumps import HEAD, TAIL, dump, page, write_dump
from vislang.cli import main as cli
from vislang.curate.words import RULES, Rules, count_words, plain_text, read_pages, read_words
from vislang.curate.words import job as job_module
from vislang.curate.words.rules import Tally, read_stop, why_dropped
from vislang.curate.words.tables import sum_tables, write_table
from vislang.curate.words.wikitext import prefixes
from vislang.errors import UserError
from vislang.files import read_json

EN = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
BG = "bgwiki-latest-pages-articles-shortened.xml.bz2"
TABLES = "enwiki-table-markup.xml.bz2"


@pytest.fixture(scope="module")
def excerpts() -> Path:
    root = os.environ.get("VISLANG_TEST_DATA")
    if not root or not (Path(root) / "wikipedia-dump").exists():
        pytest.skip("needs VISLANG_TEST_DATA with wikipedia-dump")
    return Path(root) / "wikipedia-dump"


def table(out: Path) -> dict[str, tuple[int, int]]:
    rows = pq.read_table(out / "words.parquet").to_pylist()
    assert [row["word"] for row in rows] == sorted({row["word"] for row in rows})
    return {row["word"]: (row["count"], row["documents"]) for row in rows}


def rough_text(wikitext: str) -> str:
    """Another way to a plain text, by a few patterns: roughly right, and nothing of ours."""
    for _ in range(6):
        wikitext = re.sub(r"\{\{[^{}]*\}\}|\{\|(?:(?!\{\|).)*?\|\}", " ", wikitext, flags=re.S)
    wikitext = re.sub(r"<!--.*?-->", " ", wikitext, flags=re.S)
    wikitext = re.sub(
        r"<(ref|math|gallery)\b[^>/]*>.*?</\1>|<ref[^>]*/>", " ", wikitext, flags=re.S
    )
    wikitext = re.sub(r"\[\[(?:Category|Image|File|[a-z-]{2,9}):[^\]]*\]\]", " ", wikitext)
    wikitext = re.sub(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]", r"\1", wikitext)
    wikitext = re.sub(r"\[https?:\S+|<[^>]*>|''+", " ", wikitext)
    return wikitext.replace("&nbsp;", " ").lower()


def articles(path: Path) -> list[str]:
    """Wikitext of the articles, read by ElementTree at once."""
    space = "{http://www.mediawiki.org/xml/export-0.10/}"
    found = []
    for item in ET.fromstring(bz2.decompress(path.read_bytes())).iter(f"{space}page"):
        text = item.findtext(f"{space}revision/{space}text") or ""
        if item.findtext(f"{space}ns") == "0" and item.find(f"{space}redirect") is None:
            found.append(text)
    return found


# -- real excerpts --------------------------------------------------------------------------------


def test_counts_of_the_english_excerpt_agree_with_another_way_of_counting(excerpts, tmp_path):
    done = count_words(excerpts / EN, tmp_path / "out", workers=1)
    assert (done["pages"], done["counted"]) == (206, 106)
    assert done["skipped"] == {"redirect": 99, "other namespace": 1}
    words = table(tmp_path / "out")
    texts = [rough_text(text) for text in articles(excerpts / EN)]
    found = [re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.replace("’", "'")) for text in texts]
    rough = Counter(word for several in found for word in several)
    documents = Counter(word for several in found for word in set(several))
    for word in ("the", "anarchism", "autism", "alabama", "philosophy", "lincoln", "achilles",
                 "temperature", "language", "abortion"):  # fmt: skip
        count, several = words[word]
        assert count == pytest.approx(rough[word], rel=0.08, abs=3), word  # it drops tables
        assert several == pytest.approx(documents[word], rel=0.05, abs=1), word
    # No markup: these would be the commonest "words" if templates or tags were counted.
    assert not {"nbsp", "ref", "colspan", "https", "reflist"} & set(words)
    assert words["thumb"][0] == 4 and words["cite"][0] == 1  # "a rule of thumb", "figures who cite"
    assert done["words"]["occurrences"] == sum(count for count, _ in words.values())


def test_the_bulgarian_excerpt_is_utf_16_and_has_names_of_its_own(excerpts, tmp_path):
    done = count_words(excerpts / BG, tmp_path / "out", Rules(script="Cyrillic"), workers=1)
    assert done["counted"] == 1 and done["skipped"] == {"other namespace": 2}
    words = table(tmp_path / "out")
    rough = re.findall(r"[^\W_]+", rough_text(articles(excerpts / BG)[0]))
    for word in ("календар", "година", "григорианският"):
        assert words[word][0] == pytest.approx(rough.count(word), rel=0.15), word
    assert "мини" not in words and "файл" not in words and "категория" not in words
    assert all("CYRILLIC" in unicodedata.name(char) for word in words for char in word
               if char.isalpha())  # fmt: skip
    assert done["words"]["dropped"]["other script"] > 10


def test_tables_give_the_words_of_their_cells(excerpts):
    links = prefixes({})
    texts = [plain_text(p.text, links) for p in read_pages(excerpts / TABLES)]
    joined = "\n".join(texts)
    assert "wikitable" not in joined and "colspan" not in joined and "{|" not in joined
    assert "Languages of Qatar" not in joined and "Brahui" in joined


def test_the_rules_of_the_original(excerpts, tmp_path):
    rules = replace(RULES["original"], minimum=20)
    done = count_words(excerpts / TABLES, tmp_path / "out", rules, workers=1)
    words = table(tmp_path / "out")
    assert min(count for count, _ in words.values()) == 20 and "government" in words
    assert not {"the", "style", "type", "class"} & set(words)
    assert all(word == word.lower() and "_" not in word for word in words)
    assert {"capital letter", "stop word"} <= set(done["words"]["dropped"])
    # The minimum may be changed afterwards: nothing is counted again.
    told: list[str] = []
    rules = replace(rules, inclusive=False)
    more = count_words(
        excerpts / TABLES, tmp_path / "out", rules, on_done=lambda name, note: told.append(name)
    )
    assert not told and more["words"]["kept"] == sum(count > 20 for count, _ in words.values())
    for part in (tmp_path / "out" / "parts").glob("*.parquet"):
        part.unlink()
    with pytest.raises(UserError, match="is gone"):
        count_words(excerpts / TABLES, tmp_path / "out", replace(rules, minimum=5))
    assert (RULES["original"].minimum, RULES["original"].inclusive) == (100, True)


# -- wikitext and rules ---------------------------------------------------------------------------


@pytest.mark.parametrize(("wikitext", "text"), [
    ("[[File:a.jpg|thumb|200px|A [[red]] kite]] flies", "A red kite flies"),
    ("[[Category:Kites]] [[:Category:Kites]] [[de:Drachen]] [[:de:Drachen|dt.]]",
     "Category:Kites dt."),
    ("a<ref name=x>note</ref>b<ref/>c<!-- d -->e", "abce"),
    ("{{a|{{b}}}} {{{c|d}}} x", "x"),
    ("{|class=x\n! head\n|-\n| style=y | cell || other\n|}", "head cell other"),
    ("* one\n*# two\n; term : meaning", "one two term meaning"),
    ("'''b''' ''i'' '''''bi'''''", "b i bi"),
    ("[http://a.org the site] http://a.org/b [http://a.org]", "the site"),
    ("&nbsp;&lt;b&gt; &#65;&#x42; &eacute;", "<b> AB é"),
    ("<math>x^2</math> <span style='a'>y</span> <nowiki>[[z]]</nowiki>", "y [[z]]"),
    ("== A ==\nb\n__NOTOC__", "A b"),
    ("<li>a<li>b</ul>", "a b"), ('{|\n| colspan="5" {{yes}} c\n|}', "c"),
    ("[[link", "[[link"), ("{{open", "{{open"),
])  # fmt: skip
def test_what_a_reader_sees(wikitext, text):
    assert " ".join(plain_text(wikitext).split()) == text


@given(st.text(alphabet="a b[]{}|<>/='*:;!\n&#x1;-refbr", max_size=60))
def test_any_wikitext_gives_a_text(wikitext):
    assert isinstance(plain_text(wikitext), str)


def test_names_of_files_and_categories_in_another_language():
    links = prefixes({6: ["Файл"], 14: ["Категория"]})
    text = "[[Файл:x.jpg|мини|Голям кон]] [[категория:Коне]] [[Image:y.jpg|thumb]] кон"
    assert plain_text(text, links).split() == ["Голям", "кон", "кон"]


def count(text: str, **rules) -> dict[str, int]:
    tally = Tally(Rules(**rules))
    tally.add(text)
    return {word: n for word, n, _ in tally.take()}


def test_rules_one_by_one():
    text = "The naïve Sun_x Sun don’t 3 r2d2 हिन्दी"
    assert count(text) == {"the": 1, "naïve": 1, "sun": 2, "x": 1, "don't": 1, "3": 1, "r2d2": 1,
                           "हिन्दी": 1}  # fmt: skip
    assert set(count(text, case="keep")) >= {"The", "Sun"}
    assert set(count(text, case="refuse")) == {"naïve", "x", "don't", "3", "r2d2", "हिन्दी"}
    assert "sun_x" not in count(text, tokens="runs") and "sun" in count(text, tokens="runs")
    assert set(count(text, digits="numbers")) & {"3", "r2d2"} == {"r2d2"}
    assert not set(count(text, digits="drop")) & {"3", "r2d2"}
    assert set(count(text, script="Devanagari", digits="drop")) == {"हिन्दी"}
    assert set(count(text, shortest=4, longest=5)) == {"naïve", "don't", "r2d2"}
    assert "the" not in count(text, stop=("the",))
    assert count("na\u0069\u0308ve naïve") == {"naïve": 2}  # composed and decomposed


def test_ngrams_end_at_marks_lines_and_dropped_words():
    found = count("big red kite, red kite\nkite of paper red-kite", ngrams=3, stop=("of",))
    assert found == {
        "big": 1, "red": 3, "kite": 4, "paper": 1, "big red": 1, "red kite": 3, "big red kite": 1,
        "paper red": 1, "paper red kite": 1,
    }  # fmt: skip


def test_wrong_rules_are_refused_with_what_is_allowed():
    with pytest.raises(UserError, match="Did you mean 'lower'"):
        Rules(case="lowr")
    with pytest.raises(UserError, match="no script 'Klingon'"):
        Rules(script="Klingon")
    with pytest.raises(UserError, match="at least 1"):
        Rules(ngrams=0)
    with pytest.raises(UserError, match="neither 'english' nor a text file"):
        read_stop("nowhere.txt")
    assert why_dropped("x" * 65, Rules()) == "too long" and len(read_stop("english")) == 179


@settings(max_examples=20)
@given(st.lists(st.dictionaries(st.sampled_from("abcdé文字𝔸ẞ"), st.integers(1, 5)), max_size=5))
def test_tables_sum_exactly(counts):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, one in enumerate(counts):
            paths.append(Path(folder) / f"{i}.parquet")
            write_table(paths[-1], [(w, n, 1) for w, n in sorted(one.items())])
        rows = [r for t in sum_tables(paths, Path(folder), lambda t: t) for r in t.to_pylist()]
    total = sum((Counter(one) for one in counts), Counter())
    assert [(row["word"], row["count"]) for row in rows] == sorted(total.items())
    assert all(row["documents"] == sum(row["word"] in one for one in counts) for row in rows)


def test_more_tables_than_can_be_open_are_summed_in_levels(tmp_path, monkeypatch):
    monkeypatch.setattr("vislang.curate.words.tables.AT_ONCE", 3)
    monkeypatch.setattr("vislang.curate.words.tables._ROWS", 2)
    paths = []
    for i in range(11):
        paths.append(tmp_path / f"{i}.parquet")
        write_table(paths[-1], [(f"w{j:02d}", 1, 1) for j in range(i, i + 7)])
    rows = [r for t in sum_tables(paths, tmp_path / "s", lambda t: t) for r in t.to_pylist()]
    expected = Counter(f"w{j:02d}" for i in range(11) for j in range(i, i + 7))
    assert [(r["word"], r["count"]) for r in rows] == sorted(expected.items())


# -- dumps ----------------------------------------------------------------------------------------

SENTENCES = [f"alpha beta w{n % 13} [[gamma|delta]] {'word ' * (n % 5)}" for n in range(60)]


def test_packed_in_any_way_the_words_are_the_same(tmp_path):
    paths = [write_dump(tmp_path / f"a.xml{end}", SENTENCES) for end in ("", ".bz2", ".gz")]
    paths.append(write_dump(tmp_path / "multi.xml.bz2", SENTENCES, per_stream=7))
    pages = [list(read_pages(path)) for path in paths]
    assert [p.text for p in pages[0]] == SENTENCES
    assert pages[1] == pages[2] == pages[3] == pages[0]


def test_pages_that_are_no_articles_are_skipped_by_reason(tmp_path):
    text = HEAD + "".join([
        page(1, "talk", ns=1), page(2, "#REDIRECT [[a]]", more='<redirect title="a" />'),
        page(3, "#REDIRECT [[a]]"), page(4, "#виж [[а]]"), page(5, "# [[a]] is a list"),
        page(6, ""),
        page(7, "x" * 50), page(8, "{}").replace("wikitext", "json"),
        page(9, "gone").replace("<text", '<text deleted="deleted"'),
        page(10, "old").replace("</page>", "<revision><text>new</text></revision></page>"),
    ]) + TAIL  # fmt: skip
    path = tmp_path / "a.xml"
    path.write_text(text)
    assert [p.skip for p in read_pages(path, 40)] == [
        "other namespace", "redirect", "redirect", "redirect", "", "no text", "too long",
        "not wikitext", "deleted", "",
    ]  # fmt: skip
    assert list(read_pages(path))[-1].text == "new"  # the last revision


@pytest.mark.parametrize(("data", "message"), [
    (b"<html><body>404</body></html>", "begins with <html>"),
    (b"", "no MediaWiki XML dump"), (b"not xml", "no MediaWiki XML dump"),
    (b"7z\xbc\xaf\x27\x1c0000", "Unpack it first"),
    (b'<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]><mediawiki>&y;</mediawiki>', "DOCTYPE"),
    (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><mediawiki/>', "DOCTYPE"),
])  # fmt: skip
def test_what_is_no_dump(data, message, tmp_path):
    (tmp_path / "a.xml").write_bytes(data)
    with pytest.raises(UserError, match=message):
        count_words(tmp_path / "a.xml", tmp_path / "out", workers=1)
    with pytest.raises(UserError, match="cannot be read"):
        count_words(tmp_path / "nowhere.xml", tmp_path / "out2", workers=1)


@pytest.mark.parametrize(("ending", "share"), [(".bz2", 0.7), (".gz", 0.6), ("", 0.5)])
def test_a_dump_cut_in_the_middle_counts_as_far_as_it_goes(ending, share, tmp_path, capsys):
    texts = [f"{text} {os.urandom(25_000).hex()}" for text in SENTENCES]  # several blocks
    path = write_dump(tmp_path / f"a.xml{ending}", texts)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    arguments = ["curate", "words", str(path), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert "ends early" in said and "--partial true" in said
    count, documents = table(tmp_path / "out")["alpha"]
    assert 0 < count == documents < 60
    assert read_json(tmp_path / "out" / "words.json")["ended_early"]
    assert cli.main([*arguments, "--partial", "true"]) == 0  # and nothing is counted again
    assert "ends early" in capsys.readouterr().out


def test_damage_in_the_middle_is_told_from_an_end(tmp_path):
    data = bytearray(bz2.compress(dump([os.urandom(9000).hex() for _ in range(200)]).encode()))
    data[len(data) // 2] ^= 255
    (tmp_path / "a.bz2").write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        count_words(tmp_path / "a.bz2", tmp_path / "out", workers=1)
    bad = dump(SENTENCES).replace("Page 30</title>", "Page 30</tit>")
    (tmp_path / "b.xml").write_text(bad)
    with pytest.raises(UserError, match="XML is damaged in line 3"):
        count_words(tmp_path / "b.xml", tmp_path / "out2", workers=1)
    assert table(tmp_path / "out2")["alpha"] == (30, 30)


# -- resuming -------------------------------------------------------------------------------------


@pytest.fixture
def small_spans(monkeypatch):
    monkeypatch.setattr(job_module, "SPAN_PAGES", 7)


def test_killed_and_repeated_gives_the_same_bytes(small_spans, tmp_path):
    path = write_dump(tmp_path / "a.xml.bz2", SENTENCES)
    program = (
        "import os, signal, sys; from vislang.curate.words import count_words, job;"
        "job.SPAN_PAGES = 7; seen = [];"
        "count_words(sys.argv[1], sys.argv[2], workers=1, on_done=lambda name, note:"
        " (seen.append(name), os.kill(os.getpid(), signal.SIGKILL) if len(seen) == 3 else None))"
    )
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", program, str(path), str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((out / "units").glob("*.json"))) == 3 and not (out / "words.parquet").exists()
    again = []
    count_words(path, out, workers=2, on_done=lambda name, note: again.append(name))
    assert sorted(again) == [f"{n:05d}" for n in range(3, 9)]
    count_words(path, tmp_path / "whole", workers=1)
    for name in ("words.parquet", "words.json", "skipped.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert table(out)["alpha"] == (60, 60)
    began = time.perf_counter()  # done is done
    count_words(path, out, workers=1)
    assert time.perf_counter() - began < 1


def test_other_rules_or_another_dump_are_refused(tmp_path):
    path = write_dump(tmp_path / "a.xml", SENTENCES[:2])
    count_words(path, tmp_path / "out", workers=1)
    with pytest.raises(UserError, match=r"rules\.case"):
        count_words(path, tmp_path / "out", Rules(case="keep"))
    write_dump(path, SENTENCES[:3])
    with pytest.raises(UserError, match=r"dump\.bytes"):
        count_words(path, tmp_path / "out")


def test_words_are_read_from_folders_tables_and_lists(tmp_path):
    path = write_dump(tmp_path / "a.xml", ["b a c a"])
    count_words(path, tmp_path / "out", Rules(minimum=2), workers=1)
    assert read_words(tmp_path / "out") == read_words(tmp_path / "out" / "words.parquet") == ["a"]
    (tmp_path / "list.txt").write_text("red kite\n\n sun \n")
    assert read_words(tmp_path / "list.txt") == ["red kite", "sun"]
    with pytest.raises(UserError, match="no column word"):
        read_words(tmp_path / "out" / "skipped.parquet")
    with pytest.raises(UserError, match="There is no"):
        read_words(tmp_path / "nothing")
