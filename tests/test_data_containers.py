"""Tars, zips and folders: the same members as the standard library finds, whatever is broken."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vislang.data import tar_index
from vislang.data.patterns import expand
from vislang.data.places import read_bytes
from vislang.data.sample import BadSample
from vislang.data.tar_index import read_index
from vislang.data.tars import read_members
from vislang.data.trees import FolderTree, ZipTree, open_tree
from vislang.errors import UserError

NAMES = st.text("aé/.b0-_ ", min_size=1, max_size=300).map(lambda s: "x" + s.replace("/.", "/y"))
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6)


def write_tar(path: Path, files, kind=tarfile.GNU_FORMAT) -> bytes:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path.read_bytes()


@settings(max_examples=60)
@given(files=FILES, kind=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_members_are_those_of_tarfile(tmp_path_factory, files, kind):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    block = write_tar(path, files, kind)
    members = read_members(path)
    with tarfile.open(path) as tar:
        expected = [(m.name.rstrip("/"), m.offset_data, m.size) for m in tar.getmembers()]
    found = [
        (name.rstrip("/"), offset, size)
        for name, offset, size in zip(members.names, members.offsets, members.sizes)
    ]
    assert found == expected and members.damage == ""
    for (_, content), (_, offset, size) in zip(files, found):
        assert block[offset : offset + size] == content


def test_ustar_prefixes_links_and_folders(tmp_path):
    path, long = tmp_path / "a.tar", "folder/" * 20 + "name.txt"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind in [("dir", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "elsewhere"
            tar.addfile(info)
        info = tarfile.TarInfo(long)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    members = read_members(path)
    assert members.names == [long] and members.sizes == [3]


def test_sizes_beyond_octal_are_read(tmp_path):
    """A header for a member of 9 GB, which GNU tar writes in base 256; its data is missing."""
    info = tarfile.TarInfo("big.jpg")
    info.size = 9 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    assert read_members(tmp_path / "a.tar").sizes == [9 << 30]


@settings(max_examples=80)
@given(cut=st.integers(0, 7000))
def test_a_cut_tar_gives_all_that_is_whole(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    files = [(f"{i}.txt", bytes([i]) * 700) for i in range(4)]  # 512 + 1,024 bytes each
    path.write_bytes(write_tar(path, files)[:cut])
    if cut < 512:
        with pytest.raises(UserError, match=r"is empty|is not a tar archive"):
            read_members(path)
        return
    members = read_members(path)
    headers = min(4, 1 + max(0, cut - 512) // 1536)  # a member whose header is whole is known
    assert members.names == [f"{i}.txt" for i in range(headers)]
    assert bool(members.damage) == (cut < 6144 and 0 < cut % 1536 < 512)


def test_damage_in_the_middle_is_described(tmp_path):
    path = tmp_path / "a.tar"
    block = bytearray(write_tar(path, [(f"{i}.txt", b"x" * 100) for i in range(3)]))
    block[1024:1030] = b"\xff" * 6
    path.write_bytes(block)
    members = read_members(path)
    assert members.names == ["0.txt"]
    assert members.damage == f"no tar header at byte 1,024 of {len(block):,}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The tar {} is empty: it has 0 bytes."),
        (b"\x1f\x8b" + bytes(600), "{} is compressed, so its members cannot be read in place."),
        (b"hello" * 200, "{} is not a tar archive: no tar header at its first byte."),
    ],
)
def test_what_is_no_tar_is_said(tmp_path, content, message):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_members(path)
    assert str(caught.value).startswith(message.format(path))


@settings(max_examples=80)
@given(place=st.integers(0, 6143), junk=st.binary(min_size=1, max_size=30))
def test_no_damage_makes_the_walk_fail_or_hang(tmp_path_factory, place, junk):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    block = bytearray(write_tar(path, [("n" * 150, b"x" * 100), ("b", b"y"), ("c", b"z")]))
    block[place : place + len(junk)] = junk
    path.write_bytes(block)
    try:
        assert len(read_members(path).names) <= 4
    except UserError as error:
        assert str(path) in str(error)


# --- the index of a tar -----------------------------------------------------------------------

MEMBERS = [("a.jpg", b"1"), ("a.txt", b"one"), ("d/b.seg.png", b"2"), ("d/b.json", b"{}")]


def test_an_index_groups_by_key_and_is_built_once(tmp_path, monkeypatch):
    shard = tmp_path / "s.tar"
    write_tar(shard, [*MEMBERS, ("__info__.json", b""), (".hidden.jpg", b"")])
    table = read_index(shard)
    assert table["key"].to_pylist() == ["a", "d/b"]
    assert table["seg.png.size"].to_pylist() == [-1, 1]
    assert (tmp_path / ".s.tar.vislang-index").exists()
    monkeypatch.setattr(tar_index, "read_members", lambda _: pytest.fail("it was built again"))
    assert read_index(shard).equals(table)


def test_an_index_of_an_older_shard_or_a_torn_one_is_made_again(tmp_path):
    shard = tmp_path / "s.tar"
    write_tar(shard, MEMBERS)
    read_index(shard)
    write_tar(shard, [*MEMBERS, ("c.jpg", b"3")])
    assert read_index(shard)["key"].to_pylist() == ["a", "d/b", "c"]
    (tmp_path / ".s.tar.vislang-index").write_bytes(b"torn")
    assert read_index(shard)["key"].to_pylist() == ["a", "d/b", "c"]


def test_beside_a_folder_that_cannot_be_written_the_cache_is_used(tmp_path, monkeypatch):
    shard = tmp_path / "shards" / "s.tar"
    shard.parent.mkdir()
    write_tar(shard, MEMBERS)
    # a folder of the index's name: works also for root, whom permissions do not stop
    (shard.parent / ".s.tar.vislang-index").mkdir()
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "cache"))
    assert len(read_index(shard)) == 2
    assert len(list((tmp_path / "cache").glob("*/.s.tar.vislang-index"))) == 1
    monkeypatch.setattr(tar_index, "read_members", lambda _: pytest.fail("it was built again"))
    assert len(read_index(shard)) == 2
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="Set VISLANG_CACHE to a folder"):
        read_index(shard)


# --- zips -------------------------------------------------------------------------------------


def content_of(tree: ZipTree) -> dict[str, bytes]:
    return {tree.names[i]: read_bytes(tree.place(i), 10**6) for i in range(len(tree))}


@settings(max_examples=50)
@given(
    files=st.dictionaries(NAMES.filter(lambda n: not n.endswith("/")),
                          st.binary(min_size=1, max_size=900), max_size=6),
    packed=st.booleans(), wide=st.booleans(), before=st.binary(max_size=50),
    comment=st.binary(max_size=40),
)  # fmt: skip
def test_zip_members_are_those_of_zipfile(tmp_path_factory, files, packed, wide, before, comment):
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    method = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=wide) as member:
                member.write(content)
        archive.writestr("folder/", b"")
        archive.comment = comment
    path.write_bytes(before + path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        expected = {n: archive.read(n) for n in archive.namelist() if not n.endswith("/")}
    tree = ZipTree([path], lambda name: True)
    assert content_of(tree) == {
        n: c for n, c in expected.items() if not any(p.startswith(".") for p in n.split("/"))
    }


def test_more_members_than_sixteen_bits_count(tmp_path, monkeypatch):
    """The zip64 end of a directory, which the library writes from 65,536 members on."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(5):
            archive.writestr(f"{i}.jpg", bytes([i]))
    assert b"PK\6\6" in path.read_bytes()
    assert content_of(ZipTree([path])) == {f"{i}.jpg": bytes([i]) for i in range(5)}


def test_a_cut_or_foreign_zip_is_a_clear_error(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"x" * 500)
    whole = path.read_bytes()
    for part in (b"", b"hello", whole[:-30], whole[:300], whole[200:]):
        path.write_bytes(part)
        with pytest.raises(UserError, match="is not a whole zip archive"):
            ZipTree([path])


def test_an_encrypted_or_overwritten_member_is_a_bad_sample(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"x" * 50)
        archive.writestr("b.jpg", b"x" * 50)
    block = bytearray(path.read_bytes())
    entry = block.index(b"PK\1\2")
    block[entry + 8] |= 1  # a's flag: encrypted
    second = block.index(b"PK\3\4", 10)
    block[second : second + 4] = b"junk"
    path.write_bytes(block)
    tree = ZipTree([path])
    with pytest.raises(BadSample, match="unreadable zip member: it is encrypted"):
        tree.place(0)
    with pytest.raises(BadSample, match="damaged container"):
        tree.place(1)


def test_the_same_name_in_two_archives_is_an_error(tmp_path):
    for name in ("a.zip", "b.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("x.jpg", b"x")
    with pytest.raises(UserError, match=r"'x.jpg' is in .*b.zip and already in .*a.zip"):
        open_tree(str(tmp_path / "*.zip"))


# --- folders and patterns ---------------------------------------------------------------------


def test_a_folder_is_sorted_and_hides_what_is_hidden(tmp_path):
    for name in ("b/2.jpg", "b/10.jpg", "a/x/1.PNG", "z.jpg", "a/.hidden.jpg", ".git/x.jpg",
                 "b/notes.txt", "b-c/0.jpg"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    tree = FolderTree(tmp_path)
    names = [tree.names[i] for i in range(len(tree))]
    assert names == ["z.jpg", "a/x/1.PNG", "b/10.jpg", "b/2.jpg", "b-c/0.jpg"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/1.jpg").touch()
    (tmp_path / "root/a").mkdir(parents=True)
    (tmp_path / "root/b").symlink_to(tmp_path / "real")
    (tmp_path / "root/a/up").symlink_to(tmp_path / "root")
    (tmp_path / "real/self").symlink_to(tmp_path / "real")
    tree = FolderTree(tmp_path / "root")
    assert [tree.names[i] for i in range(len(tree))] == ["b/1.jpg"]


def test_a_name_that_is_not_text_is_named(tmp_path):
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))).touch()
    with pytest.raises(UserError, match="is not UTF-8: rename it"):
        FolderTree(tmp_path)


def test_patterns_name_files_in_order(tmp_path):
    for name in ("s-1.tar", "s-0.tar", "t-0.tar"):
        (tmp_path / name).touch()

    def names(pattern: str) -> list[str]:
        return [path.name for path in expand(str(tmp_path / pattern))]

    assert names("s-{0..1}.tar") == ["s-0.tar", "s-1.tar"]
    assert names("{t,s}-*.tar") == ["t-0.tar", "s-0.tar", "s-1.tar"]
    with pytest.raises(UserError, match=r"2 of 4 files of .* do not exist, first .*s-2.tar"):
        names("s-{0..3}.tar")
    with pytest.raises(UserError, match="No file matches"):
        names("u-*.tar")
    with pytest.raises(UserError, match=r"does not exist\. Did you mean 's-0.tar'\?"):
        names("s0.tar")
