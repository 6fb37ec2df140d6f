"""Promises that every layout keeps: to be listed in SOURCES is to be tested."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from layouts import CAPTIONS, LAYOUTS
from vislang.data import sources
from vislang.data.batches import Batches
from vislang.data.decode import decode_sample
from vislang.data.sample import BadSample, Sample, Source
from vislang.data.sources import GIVES, SOURCES, open_source, recognise
from vislang.data.sources.pure import Pure
from vislang.errors import UserError
from vislang.lookup import lookup, one_line
from vislang.preprocess import Preprocess

# digits come with scikit-learn and are always the same; the others are files that can change
ON_DISK = [name for name in SOURCES if name not in ("digits", "torchvision", "mix", "pure")]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[Path, str, dict]]:
    """name -> (folder, spec, options) of a small source of each layout."""
    found = {}
    for name in SOURCES:
        root = tmp_path_factory.mktemp(name)
        found[name] = (root, *LAYOUTS[name](root))
    return found


@pytest.fixture
def source(request, made) -> Source:
    _, spec, options = made[request.param]
    return open_source(spec, **options)


every = pytest.mark.parametrize("source", SOURCES, indirect=True)


def equal(left: Sample, right: Sample) -> bool:
    def plain(sample: Sample) -> tuple:
        image = sample.image.tobytes() if hasattr(sample.image, "tobytes") else sample.image
        return sample.id, image, sample.texts, sample.labels, sample.origin

    return plain(left) == plain(right)


def test_every_layout_is_described_and_has_a_case():
    assert set(LAYOUTS) == set(SOURCES) == set(GIVES)
    for name in SOURCES:
        assert len(one_line(SOURCES, name)) > 20, name


@every
def test_samples_have_what_is_promised(source):
    assert isinstance(source, Source)
    assert len(source) == (500 if source.name == "digits-test" else 6)
    samples = [source[i] for i in range(len(source))]
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        assert ("image" in source.gives) == (sample.image is not None)
        assert ("text" in source.gives) == bool(sample.texts)
        assert ("label" in source.gives) == bool(sample.labels)
        assert all(isinstance(text, str) and text for text in sample.texts)
        assert all(0 <= label < len(source.classes) for label in sample.labels)
        assert sample.origin
        pixels = decode_sample(sample).pixels
        assert pixels.shape[2] == 3 and min(pixels.shape[:2]) >= 8


@pytest.mark.parametrize("name", SOURCES)
def test_it_gives_no_more_than_its_layout_says(made, name):
    _, spec, options = made[name]
    source = open_source(spec, **options)
    assert source.gives <= GIVES[name]
    # the cases give all that their layout can, or the promise would not be tested
    assert source.gives == GIVES[name] - ({"text"} if name == "torchvision" else set())


@every
def test_access_is_random_and_repeatable(source):
    forwards = [source[i] for i in range(6)]
    backwards = [source[i] for i in reversed(range(6))]
    assert all(equal(a, b) for a, b in zip(forwards, reversed(backwards)))


@every
def test_it_travels_to_a_worker_process(source):
    source[0]  # handles that are open now must not travel
    block = pickle.dumps(source)
    copy = pickle.loads(block)
    assert len(copy) == len(source) and copy.fingerprint == source.fingerprint
    assert all(equal(copy[i], source[i]) for i in range(6))
    assert len(block) < 300_000


@every
def test_shards_cover_everything_once(source):
    shards = source.shards()
    assert [i for shard in shards for i in shard] == list(range(len(source)))


@pytest.mark.parametrize("name", SOURCES)
def test_opening_again_gives_the_same_source(made, name):
    _, spec, options = made[name]
    one, two = open_source(spec, **options), open_source(spec, **options)
    assert one.fingerprint == two.fingerprint and one.name == two.name
    assert all(equal(one[i], two[i]) for i in range(6))


@pytest.mark.parametrize("name", ON_DISK)
def test_its_path_is_recognised(made, name):
    _, spec, options = made[name]
    path = Path(options["split"] and spec if "split" in options else spec)
    assert recognise(path) == name


@pytest.mark.parametrize("name", SOURCES)
def test_naming_the_layout_is_the_same_as_recognising_it(made, name):
    _, spec, options = made[name]
    named = spec if spec.startswith(name + ":") else f"{name}:{spec}"
    assert open_source(named, **options).fingerprint == open_source(spec, **options).fingerprint


@pytest.mark.parametrize("name", SOURCES)
def test_an_unknown_option_is_an_error_with_the_nearest(made, name):
    _, spec, options = made[name]
    known = {"digits": "split", "webdataset": "caption", "coco": "images", "torchvision": "root",
             "mix": "parts", "pure": "parts", "pairs": "source"}  # fmt: skip
    option = known.get(name, "split" if name not in ("table",) else "caption")
    if name == "huggingface":
        option = "caption"
    wrong = option + "x"
    with pytest.raises(UserError, match=f"no option '{wrong}'. Did you mean '{option}'"):
        open_source(spec, **options, **{wrong: "x"})


@pytest.mark.parametrize("name", ON_DISK)
def test_a_missing_path_is_an_error_with_the_nearest(made, name):
    root, spec, options = made[name]
    if name == "webdataset":
        spec = str(root / "shards")
    wrong = spec[:-1] + "_" + spec[-1]
    with pytest.raises(UserError, match=r"does not exist|cannot be opened") as caught:
        open_source(f"{name}:{wrong}", **options)
    if name != "huggingface":  # a name there may be one on the hub
        assert f"Did you mean {Path(spec).name!r}?" in str(caught.value)


@pytest.mark.parametrize("name", [name for name in ON_DISK if name != "pairs"])  # it refuses
def test_another_content_has_another_fingerprint_and_another_time_has_not(tmp_path, name):
    spec, options = LAYOUTS[name](tmp_path)
    before = open_source(spec, **options).fingerprint
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    assert open_source(spec, **options).fingerprint == before  # as a copy has it
    if name == "huggingface":
        return  # its library makes fingerprints of content
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix == ".jpg":
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        elif path.is_file() and path.suffix != ".zip":
            path.write_bytes(path.read_bytes() + b"\n")
    for path in tmp_path.rglob("*.zip"):
        with zipfile.ZipFile(path) as old:
            members = [(info, old.read(info)) for info in old.infolist()]
        with zipfile.ZipFile(path, "w") as new:
            for info, content in members:
                new.writestr(info, content[:-1] + b"?" if content else content)
    assert open_source(spec, **options).fingerprint != before


@every
def test_it_makes_batches(source):
    def tokenize(texts: list[str]) -> torch.Tensor:
        return torch.tensor([[len(text)] for text in texts])

    needs = sorted(source.gives)
    options = {"needs": needs, "image": Preprocess((8, 8)), "tokenizer": tokenize}
    size = 2 if isinstance(source, Pure) else 6  # a batch must fit into each of its parts
    batch = next(Batches(source, size, **options).start())
    assert not batch["rejected"] and len(batch["id"]) == size


def test_captions_are_those_that_were_written(made):
    for name in ("table", "redcaps", "webdataset", "huggingface"):
        _, spec, options = made[name]
        source = open_source(spec, **options)
        assert [source[i].texts for i in range(6)] == [(text,) for text in CAPTIONS], name


# --- specs -----------------------------------------------------------------------------------


def test_specs_that_name_nothing_are_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"No source is called 'foldr'\. Did you mean 'folder'\?"):
        open_source("foldr:photos")
    with pytest.raises(UserError, match="The source digts does not exist"):
        open_source("digts")
    with pytest.raises(UserError, match=r"The source is empty\. Give a path"):
        open_source("")
    with pytest.raises(UserError, match="The source 'folder' needs a path, as in 'folder:PATH'"):
        open_source("folder")
    (tmp_path / "strange.xyz").write_text("?")
    with pytest.raises(UserError, match=r"No layout is recognised at strange.xyz\. Say which"):
        open_source("strange.xyz")


def test_a_file_with_a_layouts_name_is_still_found(tmp_path, monkeypatch):
    """A folder called 'zip' is a path, not the layout."""
    monkeypatch.chdir(tmp_path)
    folder, _ = LAYOUTS["folder"](tmp_path)
    Path(folder).rename("zip")
    assert len(open_source("zip")) == 6


def test_your_own_layout_needs_no_registration(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "class Mine:\n"
        "    name, gives, classes, fingerprint = 'mine', frozenset({'text'}), (), 'f'\n"
        "    def __init__(self, path='', *, n=2): self.n, self.path = n, path\n"
        "    def __len__(self): return self.n\n"
        "    def __getitem__(self, i): ...\n"
    )
    (tmp_path / "pkg").mkdir()
    (tmp_path / "mine.py").rename(tmp_path / "pkg/mine.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(open_source("pkg.mine:Mine", n=3)) == 3
    assert open_source("pkg.mine:Mine:some/path").path == "some/path"
    with pytest.raises(UserError, match="has no 'Mime'"):
        open_source("pkg.mine:Mime")


def test_a_source_without_samples_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "nothing", f"{__name__}:Nothing")
    with pytest.raises(UserError, match="The source 'nothing:x' is empty: nothing found no samp"):
        open_source("nothing:x")


class Nothing:
    """A layout that finds nothing."""

    def __init__(self, path: str):
        self.path = path

    def __len__(self) -> int:
        return 0


def test_every_entry_can_be_imported():
    for name in SOURCES:
        assert lookup("source", SOURCES, name).__doc__


def test_digits_are_split_by_class_and_are_the_real_ones():
    from sklearn.datasets import load_digits

    train, test, everything = (open_source(f"digits:{s}") for s in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1297, 500, 1797)
    ids = {source[i].id for source in (train, test) for i in range(len(source))}
    assert len(ids) == 1797
    bunch = load_digits()
    labels = [test[i].labels[0] for i in range(500)]
    assert {labels.count(d) for d in range(10)} <= {48, 49, 50, 51}
    sample = test[17]
    row = int(sample.id.split("-")[1])
    pixels = decode_sample(sample).pixels[..., 0]
    assert abs(pixels.astype(float) - bunch.images[row] * 255 / 16).max() <= 0.5
    assert sample.labels == (bunch.target[row],)
    assert all(test.classes[sample.labels[0]] in text for text in sample.texts)
    assert len(set(sample.texts)) == 5
    assert open_source("digits", seed=1).fingerprint != train.fingerprint
    with pytest.raises(UserError, match=r"no split 'tset'\. Did you mean 'test'\?"):
        open_source("digits:tset")


def test_digits_are_the_same_when_scikit_learn_itself_reads_them(monkeypatch):
    expected = open_source("digits:test")
    monkeypatch.setattr("vislang.data.sources.digits.find_spec", lambda _: None)
    assert open_source("digits:test").fingerprint == expected.fingerprint


def test_bad_samples_survive_the_way_between_processes():
    bad = pickle.loads(pickle.dumps(BadSample("a", "b: c", "d")))
    assert (bad.id, bad.reason, bad.origin) == ("a", "b: c", "d")
