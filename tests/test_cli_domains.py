"""`vislang domains show` and `vislang list domains`, as a user runs them."""

import pytest
from PIL import Image

from pictures import encoded, pixels
from vislang.cli.main import main


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(pixels(0, 60, 80), "PNG"))
    return path


def test_a_sheet_of_all_18(photo, tmp_path, capsys):
    assert main(["domains", "show", str(photo), "--out", str(tmp_path / "s.png")]) == 0
    assert "18 of 18 domains drawn" in capsys.readouterr().out
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (6 * 170 + 10, 3 * 209 + 10)
        assert len(sheet.getcolors(1 << 24)) > 500


def test_own_domains_and_failures(photo, tmp_path, capsys):
    own = "{test_domains:neon: ['a neon photo of a {}'], test_domains:crashing: ['a {}']}"
    names = "dim,cifar/fog,test_domains:neon,test_domains:crashing"
    arguments = ["--domains", names, "--sentences", own, "--out", str(tmp_path / "s.png")]
    assert main(["domains", "show", str(photo), *arguments]) == 0
    out = capsys.readouterr().out
    assert "crashing: failed with RuntimeError: no ink" in out
    assert "4 of 5 domains drawn" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing.png"], "missing file"),
        (["{photo}", "--domains", "blurr"], "Did you mean 'blur'"),
        (["{photo}", "--axes", "swapped"], "corrected, original"),
        (["{photo}", "--columns", "0"], "columns 1"),
    ],
)
def test_bad_input_is_one_line(photo, arguments, says, capsys):
    given = [argument.replace("{photo}", str(photo)) for argument in arguments]
    assert main(["domains", "show", *given]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_the_list_has_all_families(capsys):
    assert main(["list", "domains"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 18 + 10 + 19
