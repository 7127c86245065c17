"""Flags and YAML into dataclasses, and the user's mistakes as one line with status 2."""

import builtins
import contextlib
import errno
import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from torchrec_mm import config
from torchrec_mm.config import check_fields, parse, run, to_yaml
from torchrec_mm.errors import HostError, InputError


@dataclass(frozen=True)
class Optimizer:
    """A part with a name of its own."""

    learning_rate: float = 0.1
    """Step size, above 0."""


@dataclass(frozen=True)
class Config:
    """Bake bread."""

    data: Path
    """Folder of the flour."""
    method: Literal["sour", "yeast"] = "yeast"
    """What makes it rise."""
    seed: int = 0
    """Seed of the random numbers."""
    hours: float = 1.5
    """Time in the oven."""
    starter: Path | None = None
    """A loaf to start from."""
    crust: bool = True
    """Whether to bake it through."""
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    """Loaves by size."""
    name: str = ""
    """What to call it."""
    optimizer: Optimizer = Optimizer()
    """How to get better at it."""

    def __post_init__(self):
        if self.hours <= 0:
            raise ValueError(f"hours must be above 0,\n got {self.hours}")


def complaint(*argv: str) -> str:
    """What the user is told."""
    with pytest.raises(InputError) as caught:
        parse(Config, argv)
    return str(caught.value)


def test_what_is_not_given_has_its_default():
    assert parse(Config, ["--data", "d"]) == Config(data=Path("d"))


def test_no_flag_at_all_is_enough_where_nothing_is_required():
    assert parse(Optimizer, []) == Optimizer()


def test_every_kind_of_field_is_read_from_flags():
    argv = "--data d --method sour --seed 7 --hours 1e-3 --starter old --crust false --name 12"
    assert parse(Config, [*argv.split(), "--sizes", "[3, 4]", "--optimizer.learning_rate=2"]) == (
        Config(
            data=Path("d"),
            method="sour",
            seed=7,
            hours=0.001,
            starter=Path("old"),
            crust=False,
            sizes=[3, 4],
            name="12",
            optimizer=Optimizer(2.0),
        )
    )


def test_null_says_that_an_optional_field_is_absent():
    assert parse(Config, ["--data", "d", "--starter", "null"]).starter is None


@pytest.mark.parametrize(
    ("argv", "crust"),
    [("--crust", True), ("--crust true", True), ("--crust false", False), ("--crust=false", False)],
)
def test_the_flag_of_a_bool_alone_means_true(argv, crust):
    argv = [*argv.split(), "--data", "d"]
    assert parse(Config, argv).crust is crust
    assert parse(Config, argv[-2:] + argv[:-2]).crust is crust


def test_a_field_may_come_first_without_its_flag():
    assert parse(Config, ["7", "--data", "d"], positional="seed").seed == 7
    assert parse(Config, ["--data", "d", "--seed", "7"], positional="seed").seed == 7
    with pytest.raises(InputError, match="--seed must be a whole number, got x"):
        parse(Config, ["x", "--data", "d"], positional="seed")


def test_flags_win_over_yaml_wherever_they_stand(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("data: d\nseed: 3\nhours: 2\n")
    for argv in (["--seed", "4", "--config", str(file)], ["--config", str(file), "--seed", "4"]):
        config = parse(Config, argv)
        assert (config.seed, config.hours) == (4, 2.0)


@pytest.mark.parametrize(
    "config",
    [
        Config(data=Path("d")),
        Config(
            data=Path("7"),
            seed=-1,
            hours=1e-9,
            starter=Path("a b/c"),
            crust=False,
            sizes=[],
            name="null: no",
            optimizer=Optimizer(3e-4),
        ),
    ],
)
def test_a_config_written_as_yaml_reads_back_equal(config, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(config))
    assert parse(Config, ["--config", str(file)]) == config


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What several commands have."""

    seed: int
    """Seed of the random numbers."""
    hours: float = 1.5
    """Time in the oven."""


@dataclass(frozen=True, kw_only=True)
class Own(Shared):
    """Bake bread."""

    data: Path = Path("flour")
    """Folder of the flour."""
    seed: int = 3


def test_a_commands_own_fields_stand_before_those_that_it_shares(capsys):
    assert list(yaml.safe_load(to_yaml(Own()))) == ["data", "seed", "hours"]
    with pytest.raises(SystemExit):
        parse(Own, ["--help"])
    out = capsys.readouterr().out.partition("options:")[2]
    assert re.findall(r"^  --(data|seed|hours)", out, re.MULTILINE) == ["data", "seed", "hours"]
    assert "Seed of the random numbers. (type: int, default: 3)" in " ".join(out.split())
    assert parse(Own, ["--hours", "2"]) == Own(hours=2.0)


def test_print_config_prints_yaml_of_the_result_and_leaves_with_0(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        parse(Config, ["--data", "d", "--seed", "5", "--print_config"])
    assert left.value.code in (0, None)
    file = tmp_path / "c.yaml"
    file.write_text(capsys.readouterr().out)
    assert parse(Config, ["--config", str(file)]) == Config(data=Path("d"), seed=5)


def test_help_shows_the_command_and_the_words_under_each_field(capsys):
    with pytest.raises(SystemExit) as left:
        parse(Config, ["--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0
    assert f"python -m {__name__}" in out
    assert "<class" not in out
    for words in ("Bake bread.", "Folder of the flour.", "Time in the oven.", "A loaf to start"):
        assert words in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--seed x", "--seed must be a whole number, got x"),
        ("--seed 1.5", "--seed must be a whole number, got 1.5"),
        ("--seed=", "--seed must be a whole number, got nothing"),
        ("--hours long", "--hours must be a number, got long"),
        ("--crust maybe", "--crust must be true or false, got maybe"),
        ("--method hope", "--method must be one of sour, yeast, got hope"),
        ("--sizes 3", "--sizes must be a [list], each a whole number, got 3"),
        ("--sizes [3,x]", "--sizes must be a [list], each a whole number, got x"),
        ("--optimizer.learning_rate x", "--optimizer.learning_rate must be a number, got x"),
        ("--seed", "--seed must have a value, got none"),
        ("--sede 3", "unknown flag: --sede 3"),
        ("--see 3", "unknown flag: --see 3"),
        ("loose", "unknown flag: loose"),
        ("--hours -1", "hours must be above 0, got -1.0"),
    ],
)
def test_a_mistake_is_answered_with_flag_rule_and_value(argv, words):
    assert complaint("--data", "d", *argv.split()) == words


def test_a_required_flag_that_is_missing_is_named():
    assert complaint("--seed", "3") == "--data must be given"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sede: 3", "--config holds an unknown key: sede"),
        ("optimizer:\n  rate: 1", "unknown key: optimizer.rate"),
        ("seed: abc", "--seed must be a whole number, got abc"),
        ("seed: [", "--config must be a YAML file: while parsing"),
        ("", "--config must hold `flag: value` lines, got nothing"),
        ("- 1", "--config must hold `flag: value` lines, got - 1"),
        ("seed: 1\nhours: 2\nseed: 1", "c.yaml must give each key once, got seed on lines 1 and 3"),
        (
            "optimizer:\n  learning_rate: 1\n  'learning_rate': 2",
            "c.yaml must give each key once, got optimizer.learning_rate on lines 2 and 3",
        ),
        (
            "optimizer: {learning_rate: 1}\noptimizer.learning_rate: 2",
            "got optimizer.learning_rate on lines 1 and 2",
        ),
    ],
)
def test_a_mistake_in_the_yaml_is_named(text, words, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    said = complaint("--data", "d", "--config", str(file))
    assert words in said and "\n" not in said


def test_a_yaml_file_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    file = tmp_path / "c.yaml"
    file.write_bytes("\ufeffname: Größe\n".encode())
    monkeypatch.setattr(builtins, "open", None)  # jsonargparse's is in the locale's encoding
    assert parse(Config, ["--data", "d", "--config", str(file)]).name == "Größe"
    file.write_bytes("name: Größe\n".encode("latin-1"))
    assert f"{file} must be UTF-8 text" in complaint("--data", "d", "--config", str(file))


@pytest.mark.parametrize("equals", [" ", "="])
def test_a_key_given_twice_in_the_value_of_a_flag_is_refused(equals):
    value = "{learning_rate: 1, learning_rate: 2}"
    words = ["--optimizer", value] if equals == " " else [f"--optimizer={value}"]
    assert complaint("--data", "d", *words) == (
        "--optimizer must give each key once, got learning_rate on lines 1 and 1"
    )


def test_of_a_flag_the_last_counts():
    assert parse(
        Config, ["--data", "d", "--seed", "1", "--crust", "--seed=2", "--crust=false"]
    ) == (Config(data=Path("d"), seed=2, crust=False))


@pytest.mark.parametrize("flag", ["--data", "--name"])
def test_what_the_locale_garbled_is_refused_with_the_cure(flag):
    argv = {"--data": "d"} | {flag: "caf\udce9"}
    said = complaint(*(word for pair in argv.items() for word in pair))
    assert said == f"{flag} must be UTF-8, got 'caf\\udce9': set PYTHONUTF8=1 if it is"


def test_a_path_that_the_locale_cannot_name_is_refused_with_the_cure(monkeypatch, tmp_path):
    assert parse(Config, ["--data", "größe"]).data == Path("größe")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    assert complaint("--data", "größe") == (
        "--data must be ASCII where names of files are iso8859-1, got 'gr\\xf6\\xdfe': "
        "set PYTHONUTF8=1"
    )
    assert parse(Config, ["--data", "d", "--name", "größe"]).name == "größe"


def test_a_missing_yaml_file_is_named(tmp_path):
    assert str(tmp_path / "none.yaml") in complaint("--config", str(tmp_path / "none.yaml"))
    assert "not a file" in complaint("--config", str(tmp_path))


def fail_with(error):
    def main(argv):
        raise error

    return main


def test_run_prints_the_users_mistake_as_one_line_and_returns_2(capsys):
    assert run(fail_with(InputError("seed must be\n  even"))) == 2
    assert capsys.readouterr() == ("", "error: seed must be even\n")


def test_of_several_ranks_the_others_let_the_first_one_speak(capsys, monkeypatch):
    waited = []
    monkeypatch.setattr(config.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "1")
    assert run(fail_with(InputError("no"))) == 2
    assert waited == [config.FIRST_SPEAKS_S]
    assert capsys.readouterr().err == "error: no\n"  # it is still here: nobody else has said it


def test_of_several_hosts_each_says_what_is_its_own(capsys, monkeypatch):
    monkeypatch.setattr(config.time, "sleep", lambda seconds: 1 / 0)
    monkeypatch.setenv("RANK", "8")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run(fail_with(HostError("n1 must have a GPU"))) == 2
    assert capsys.readouterr().err == "error: n1 must have a GPU\n"


def test_run_returns_0_when_done_and_130_when_interrupted():
    assert run(lambda argv: None) == 0
    assert run(fail_with(KeyboardInterrupt())) == 130


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "gone", "f"), OSError("odd")]
)
def test_our_own_mistakes_keep_their_traceback(error):
    with pytest.raises(type(error)):
        run(fail_with(error))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "full", "a/b"), "a/b: No space left on device"),
        (OSError(errno.EDQUOT, "full", "a/b"), "a/b: Disk quota exceeded"),
        (OSError(errno.EROFS, "no", "a/b"), "a/b: Read-only file system"),
        (OSError(errno.EIO, "[Errno 5] disk"), "Input/output error: [Errno 5] [Errno 5] disk"),
        (RuntimeError("I/O: (os error 28)"), "No space left on device: I/O: (os error 28)"),
    ],
)
def test_what_the_machine_ran_into_is_one_line_and_status_1(capsys, error, line):
    assert run(fail_with(error)) == 1
    assert capsys.readouterr() == ("", f"error: {line}\n")


def test_a_name_that_is_not_utf8_is_one_line_and_status_2(capsys):
    def main(argv):
        "part-\udce9".encode()

    assert run(main) == 2
    assert capsys.readouterr().err == (
        "error: names must be UTF-8, got 'part-\\udce9': set PYTHONUTF8=1 if it is\n"
    )


def test_a_full_disk_under_stdout_is_one_line_and_status_1(monkeypatch, capsys):
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # again when it is closed
        monkeypatch.setattr(sys, "stdout", full)
        assert run(lambda argv: print("figures")) == 1
    line = "error: No space left on device: [Errno 28] No space left on device\n"
    assert capsys.readouterr().err == line


def test_a_command_whose_reader_has_left_is_done_all_the_same(monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    unread = open(writing, "w")
    monkeypatch.setattr(sys, "stdout", unread)
    assert run(lambda argv: print("figures")) == 0
    assert capsys.readouterr().err == ""
    with contextlib.suppress(BrokenPipeError):
        unread.close()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_command_prints_whatever_the_encoding_of_its_terminal(monkeypatch, encoding):
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding=encoding))
    text = "Größe 赤 \udce9"
    assert run(lambda argv: print(text)) == 0
    assert terminal.getvalue() == f"{text}\n".encode(encoding, "backslashreplace")


def test_a_command_runs_where_stdout_is_no_stream_of_bytes(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert run(lambda argv: print("figures")) == 0
    assert sys.stdout.getvalue() == "figures\n"


FILL = {
    "Python": lambda: Path("/dev/full").write_text("x"),
    "NumPy": lambda: np.zeros(10_000).tofile("/dev/full"),
    "Arrow": lambda: pq.write_table(pa.table({"x": range(10_000)}), pa.OSFile("/dev/full", "w")),
}


@pytest.mark.parametrize("library", FILL)
def test_a_full_disk_is_one_line_and_status_1_whoever_writes(library, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")  # it may be the disk of this rank's machine alone
    assert run(lambda argv: FILL[library]()) == 1
    line = "error: (/dev/full: )?No space left on device.*\n"
    assert re.fullmatch(line, capsys.readouterr().err)


@pytest.mark.parametrize("words", ["[Errno 122] Disk quota exceeded", "No space left on device"])
def test_a_full_disk_is_one_that_a_library_tells_in_words_or_that_broke_a_reader(words, capsys):
    def main(argv):
        try:
            raise RuntimeError(f"An error occurred\n\tjava.io.IOException: {words}\n\tat Write")
        except RuntimeError as error:
            raise InputError("log could not be read") from error

    assert run(main) == 1
    line = f"error: (No space|Disk quota)[^:]*: java.io.IOException: {re.escape(words)}\n"
    assert re.fullmatch(line, capsys.readouterr().err)


COMMAND = '''
import sys
from dataclasses import dataclass
from torchrec_mm.config import parse, run

@dataclass(frozen=True)
class Config:
    """Bake."""

    seed: int = 0
    """Seed."""

if __name__ == "__main__":
    sys.exit(run(lambda argv: print(parse(Config, argv).seed)))
'''


def command(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    package = folder / "kitchen"
    package.mkdir(exist_ok=True)
    (package / "bake.py").write_text(COMMAND)
    return subprocess.run(
        [sys.executable, "-m", "kitchen.bake", *argv],
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )


def test_a_real_command_leaves_with_2_and_one_line_on_stderr(tmp_path):
    done = command(tmp_path, "--seed", "many")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --seed must be a whole number, got many\n"


def test_a_real_command_calls_itself_what_the_user_typed(tmp_path):
    done = command(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m kitchen.bake ")


def test_printed_yaml_is_plain(tmp_path):
    assert yaml.safe_load(to_yaml(Config(data=Path("d"))))["data"] == "d"


def test_nothing_heavy_is_loaded_before_a_command_knows_its_flags():
    code = (
        "import sys, torchrec_mm.config;"
        "print(*{'torch', 'jsonargparse', 'yaml', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("value", [0, (2, 0), ()])
def test_a_field_that_breaks_a_rule_is_named_with_rule_and_value(value):
    @dataclass(frozen=True)
    class Layers:
        hidden: object

    check_fields(Layers((1, 2)), lambda x: x >= 1, "at least 1", "hidden")
    with pytest.raises(InputError, match="hidden must be at least 1, got "):
        check_fields(Layers(value), lambda x: x >= 1, "at least 1", "hidden")
