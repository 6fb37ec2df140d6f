"""Names of classes beyond their own: synonyms, and what they are a kind of."""

import pytest

from layouts import add_files
from pictures import jpeg
from vislang.data.kinds import LEVELS, called, kinds_of, read_nouns
from vislang.data.sources import open_source
from vislang.errors import UserError

# as in WordNet 3.0's data.noun, with made-up synsets; 00000006 is a kind of two things
NOUNS = """  1 a line of the licence
00000001 03 n 01 thing 0 001 ~ 00000002 n 0000 | all there is
00000002 03 n 02 animal 0 living_being 0 002 @ 00000001 n 0000 ~ 00000003 n 0000 | that lives
00000003 05 n 01 dog 0 001 @ 00000002 n 0000 | barks at (@ 00000009 n 0000)
00000004 05 n 02 hound 0 hunting_dog 0 001 @ 00000003 n 0000 | runs
00000005 05 n 01 beagle 0 001 @ 00000004 n 0000 | small
00000006 05 n 01 Rex 0 002 @i 00000005 n 0000 @ 00000007 n 0000 | a beagle and a star
00000007 05 n 01 star 0 000 | of films
"""


@pytest.fixture
def nouns(tmp_path):
    path = tmp_path / "data.noun"
    path.write_text(NOUNS)
    return path


def test_kinds_go_four_levels_up(nouns):
    above = read_nouns(nouns)
    assert above["00000002"] == (["animal", "living being"], ["00000001"])
    assert above["00000003"][1] == ["00000002"]  # what a gloss says counts for nothing
    up = ["hound", "hunting dog", "dog", "animal", "living being", "thing"]
    assert kinds_of("00000005", above) == up and LEVELS == 4
    assert kinds_of("00000006", above) == ["beagle", "star", *up[:-1]]
    assert kinds_of("00000001", above) == kinds_of("99999999", above) == []


def test_half_of_the_names_or_more_are_the_classes_own(nouns):
    words = {"n00000005": ["beagle", "English beagle"]}
    found = called(["n00000005", "n00000001"], ["beagle", "thing"], words, nouns)
    own = sum(name in words["n00000005"] for name in found[0])
    assert own >= len(found[0]) / 2 and set(found[0]) > {"dog", "beagle", "English beagle"}
    assert found[1] == ("thing",)
    assert called(["n00000005"], ["beagle"], words) == [("beagle", "English beagle")]


def test_captions_of_imagenets_layout_say_it(nouns, tmp_path):
    root = tmp_path / "data"
    add_files(root, {f"{n}/{n}_{i}.JPEG": jpeg(i, 16, 16)
                     for n in ("n00000003", "n00000005") for i in range(2)})  # fmt: skip
    (root / "words.txt").write_text("n00000003\tdog, hot dog\nn00000005\tbeagle\n")
    plain = open_source(f"imagenet:{root}", template="a {}.")
    assert plain[0].texts == ("a dog.",)
    several = open_source(f"imagenet:{root}", template="a {}.", synonyms=True)
    assert several[0].texts == ("a dog.", "a hot dog.")
    kinds = open_source(f"imagenet:{root}", template=["a {}.", "{}"], wordnet=str(nouns))
    assert {"a dog.", "dog", "a beagle.", "hunting dog"} <= set(kinds[2].texts)
    assert kinds.classes == plain.classes == ("dog", "beagle")
    assert len({plain.fingerprint, several.fingerprint, kinds.fingerprint}) == 3
    with pytest.raises(UserError, match="need a template"):
        open_source(f"imagenet:{root}", synonyms=True)


def test_what_is_no_file_of_nouns_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("n1\tdog\n")
    with pytest.raises(UserError, match=r"takes data\.noun of WordNet"):
        read_nouns(tmp_path / "words.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_nouns(tmp_path / "binary")
