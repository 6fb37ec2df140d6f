"""ImageNet and its relatives: WordNet ids for folders, words.txt for their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vislang.data.kinds import called
from vislang.data.labelled import LabelledImages, choose_split
from vislang.data.labels import encode, read_words, readable
from vislang.data.patterns import name_of
from vislang.data.trees import Tree, open_tree
from vislang.errors import UserError

# The id stands before a "/" (a folder) or a "_" (n01440764_10026.JPEG).
_WNID = re.compile(r"(?:^|/)(n\d{8})(?=[/_])")
_WORDS = ("words.txt", "LOC_synset_mapping.txt", "words.json")
_ANNOTATIONS = ("val_annotations.txt", "LOC_val_solution.csv")


class ImageNet(LabelledImages):
    """ImageNet layout: <root>/[<split>/]<wnid>/**/<image>, class names from words.txt.

    The folder may be a zip archive, which is read in place. Class indices follow the sorted
    WordNet ids (for ImageNet-1k the usual 0..999) of wnids.txt beside the data, or else of those
    that occur.

    Args:
        path: the folder, or zip archives.
        split: a folder right below it: train, val ...
        words: file of 'wnid<tab>synonym, synonym ...' lines; found by itself when it is called
            words.txt or LOC_synset_mapping.txt and lies in the folder or beside it.
        annotations: for images not in class folders: file whose lines begin with the image's
            name and hold its wnid, such as tiny-imagenet's val_annotations.txt.
        wnids: file with the ids of all classes, one a line.
        template: captions made of class names, as in 'a photo of a {}.'
        synonyms: captions name a class by any of its words, not by the first alone.
        wordnet: WordNet 3.0's data.noun: captions also say what a class is a kind of, so that
            a golden retriever is a dog, too; at least half name the class itself.
    """

    def __init__(
        self,
        path: str,
        *,
        split: str = "",
        words: str = "",
        annotations: str = "",
        wnids: str = "",
        template: str | Sequence[str] = (),
        synonyms: bool = False,
        wordnet: str = "",
    ):
        tree = open_tree(path)
        tree, _ = choose_split(tree, split, path)
        if len(tree) == 0:
            raise UserError(f"The source {path} is empty: it has no images.")
        homes = _homes(Path(path), split)
        given = _given(annotations, "annotations") or _find(homes, _ANNOTATIONS)
        ids = _ids_of(tree, given)
        if not any(ids):
            raise UserError(
                f"No image in {path} has a WordNet id (n + 8 digits) in its name or in an"
                " annotations file. Give annotations=FILE, or open it as a folder of classes."
            )
        listed = _given(wnids, "wnids") or _find(homes, ("wnids.txt",))
        known = sorted(set(_WNIDS.findall(listed.read_text()))) if listed else ()
        labels, classes = encode(ids, known or sorted({i for i in ids if i}))
        file = _given(words, "words") or _find(homes, _WORDS)
        known_words = read_words(file) if file else {}
        names = readable(classes, known_words)
        self.wnids = tuple(classes)
        # All that a class may be called, for prompts; empty where the file does not know it.
        self.words = tuple(tuple(known_words.get(wnid, ())) for wnid in classes)
        nouns = _given(wordnet, "wordnet")
        others = called(classes, names, known_words, nouns) if synonyms or nouns else None
        super().__init__(tree, labels, names, name_of(path, split), template, called=others)

    @staticmethod
    def recognises(path: Path) -> bool:
        """A folder with words.txt, or with folders named by WordNet ids."""
        if not path.is_dir():
            return False
        if any((path / name).exists() for name in _WORDS):
            return True
        folders = [path, path / "train", path / "val"]
        return any(
            re.fullmatch(r"n\d{8}", child.name)
            for folder in folders if folder.is_dir()
            for child in list(folder.iterdir())[:50]
        )  # fmt: skip


_WNIDS = re.compile(r"\bn\d{8}\b")


def _homes(path: Path, split: str) -> list[Path]:
    """Folders where the companion files may lie."""
    inside = [path / split, path] if path.is_dir() else []
    return [*inside, path.parent]


def _given(path: str, option: str) -> Path | None:
    from vislang.data.sources import missing_path

    if path and not Path(path).is_file():
        raise missing_path(Path(path), f"{option} file")
    return Path(path) if path else None


def _find(homes: Sequence[Path], names: Sequence[str]) -> Path | None:
    for home in homes:
        for name in names:
            if (home / name).is_file():
                return home / name
    return None


def _ids_of(tree: Tree, annotations: Path | None) -> list[str | None]:
    by_stem = {}
    if annotations:
        for line in annotations.read_text(encoding="utf-8").splitlines():
            match = _WNIDS.search(line)
            if match:
                by_stem[Path(re.split(r"[\t, ]", line, maxsplit=1)[0]).stem] = match.group()
    matches = [_WNID.search(folder + "/") for folder in tree.names.folders]
    of_folder = [match.group(1) if match else None for match in matches]
    ids: list[str | None] = []
    for row, folder in enumerate(tree.names.folder):
        found = of_folder[folder]
        if found is None:
            name = tree.names[row]
            match = _WNID.search(name)
            found = match.group(1) if match else by_stem.get(Path(name).stem)
        ids.append(found)
    return ids
