"""python -m apps.pack: one sentence, and what apps.pretrain reads."""

import pytest

from apps.pack import main
from tests.data.content.content_folders import write_data
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.errors import InputError


def test_it_says_in_a_line_what_it_packed(tmp_path, capsys):
    write_data(tmp_path / "data", title=["c", None, "c"])
    main(["--data", str(tmp_path / "data"), "--run_dir", str(tmp_path / "packed")])
    told = "packed 3 items and 3 searches: 4 distinct of 6 images, 4 distinct of 5 texts\n"
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("modality", ["image", "text"])
def test_one_modality_is_packed_alone(tmp_path, modality, capsys):
    write_data(tmp_path / "data")
    flags = ["--data", str(tmp_path / "data"), "--run_dir", str(tmp_path / "packed")]
    main([*flags, "--modality", modality])
    assert list(PackedContent.open(tmp_path / "packed").by_modality) == [modality]
    with pytest.raises(InputError, match="packed exists already"):
        main(flags)
