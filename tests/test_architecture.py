"""The house's arrows: who may import whom, and which doors stay shut.

A room that starts to import backwards is a design question: answer it, then change the table.
"""

import ast
import functools
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "torchrec_mm").rglob("*.py"))
APPS = sorted(path for path in (ROOT / "apps").glob("*.py") if path.name != "__init__.py")
COMPONENTS = sorted((ROOT / "torchx_components").glob("*.py"))
EVERYTHING = LIBRARY + APPS + COMPONENTS

# The walls every room shares: modules right under torchrec_mm/.
WALLS = {"config", "documents", "errors", "files", "ids", "targets"}
PURE = set()

# Room -> what it may import of torchrec_mm besides itself. A room of sub-rooms ("data") is not
# imported whole: each sub-room has arrows of its own, and there is no circle among all of them.
ARROWS = {
    "kernels": {"nn", "kernels.triton"},  # nn's modules define what some of them compute
    "kernels.triton": PURE,
    "nn": PURE,
    "losses": {"kernels", "kernels.triton"},
    "metrics": PURE,
    "columns": WALLS | {"kernels"},
    "item_vectors": WALLS | {"columns"},
    # From the folders a user brings to what a training step reads
    "data.contract": WALLS | {"columns"},
    "data.logs": WALLS | {"columns"},
    "data.prepare": WALLS | {"columns", "data.contract", "data.logs"},
    "data.public": WALLS | {"columns", "data.contract", "data.logs", "data.prepare"},
    "data.served": WALLS | {"columns", "data.contract", "data.logs", "data.prepare", "data.public"},
    "data.content": WALLS | {"columns", "data.contract", "item_vectors"},
    "data.encoded": WALLS | {"columns", "data.contract"},
    "data.encode": WALLS | {"columns", "data.contract", "data.encoded", "kernels"},
    "data.stream": WALLS | {"columns", "data.encoded", "item_vectors", "kernels"},
    "simulation.market": WALLS | {"columns", "data.contract", "data.content", "data.prepare"},
    "simulation.taobao_mm": {"columns", "data.encode", "simulation.market"},
    # What ranks exchange, and on which devices
    "parallel": WALLS
    | {"data.stream", "item_vectors", "kernels", "commands", "environment", "gpus"},
    # What every run has, whichever phase
    "runs": WALLS | {"parallel", "environment"},
    # Phase one
    "pretraining.encoder": WALLS,
    "pretraining.pairs": WALLS
    | {"columns", "data.content", "item_vectors", "parallel", "runs", "pretraining.encoder"},
    "pretraining.judge": WALLS
    | {"metrics", "parallel", "runs", "pretraining.encoder", "pretraining.pairs"},
    "pretraining.scl": WALLS
    | {"losses", "data.content", "parallel", "runs", "run_settings"}
    | {"pretraining.encoder", "pretraining.pairs", "pretraining.judge"},
    "pretraining.embed": WALLS
    | {"data.contract", "data.content", "item_vectors", "parallel", "runs"}
    | {"pretraining.encoder", "pretraining.pairs"},
    # What lies between phase one and the index that goes on
    "near_line": WALLS
    | {"data.content", "item_vectors", "pretraining.embed", "pretraining.encoder"},
    # Phase two
    "ranking": WALLS
    | {"kernels", "nn", "data.contract", "data.encoded", "data.stream", "item_vectors"},
    "scoring": WALLS
    | {"metrics", "columns", "data.contract", "data.encoded", "data.stream", "item_vectors"}
    | {"nn", "parallel", "runs", "ranking"},
    "serving": WALLS
    | {"columns", "data.content", "data.contract", "data.encode", "data.encoded", "data.stream"}
    | {"item_vectors", "commands", "parallel", "ranking", "runs", "scoring"},
    "exporting": WALLS
    | {"columns", "data.contract", "data.encoded", "data.stream", "item_vectors", "kernels"}
    | {"nn", "ranking", "scoring", "serving"},
    "train": WALLS
    | {"metrics", "data.encode", "data.encoded", "data.stream", "parallel", "runs", "run_settings"}
    | {"scoring"},
    "online": WALLS
    | {"metrics", "columns", "data.contract", "data.encode", "data.encoded", "data.stream"}
    | {"item_vectors", "parallel", "ranking", "runs", "scoring", "train"}
    | {"serving"},  # whose encoder takes requests in memory
    "reporting": WALLS
    | {"nn", "metrics", "columns", "data.contract", "data.content", "item_vectors"},
    "study": WALLS
    | {"columns", "data.contract", "item_vectors", "metrics", "reporting", "runs", "stages"},
    # The running system on the past: what answers, and an index that fills up
    "replay": WALLS
    | {"columns", "data.contract", "item_vectors", "metrics", "reporting", "serving"}
    | {"commands", "runs", "scoring"},
    "stages": WALLS | {"commands", "ending", "gpus"},
    # the walls themselves
    "errors": set(),
    "ids": {"errors"},
    "files": {"errors"},
    "targets": {"errors", "files"},
    "config": {"config_words", "documents", "ending", "errors"},
    "commands": {"config", "environment", "errors"},
    "config_words": set(),
    "documents": {"errors"},
    "ending": {"errors"},
    "environment": set(),
    "gpus": {"environment"},
    "install": {"environment"},
    "network_interfaces": {"gpus"},
    "run_settings": {"config"},
    "trials": {"environment", "gpus"},
}
# Benchmarks measure every room, from above all of them.
ARROWS["benchmarks"] = set(ARROWS)

# Package that is slow to import or touches machines -> the only rooms that open it.
DOORS = {
    "torchrec": {
        "data.stream",
        "exporting",
        "ranking",
        "parallel",
        "serving",
        "train",
        "benchmarks",
    },
    "fbgemm_gpu": {"parallel"},
    "triton": {"kernels.triton"},
    "torchx": {"torchx_components"},
    "timm": {"pretraining.encoder"},
    "torchvision": {"pretraining.encoder"},
    "sentence_transformers": {"pretraining.encoder"},
    "transformers": {"pretraining.encoder"},
    "jsonargparse": {"config"},
    "tensorboard": {"runs"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting", "serving"},
    "pandas": {"benchmarks"},
    "faiss": {"item_vectors"},
    "lmdb": {"item_vectors", "serving"},
    "redis": {"item_vectors", "near_line", "online", "benchmarks"},
    "confluent_kafka": {"near_line"},
    "prometheus_client": {"near_line", "serving"},
    "duckdb": {"data.logs", "data.prepare", "data.public", "benchmarks"},
    "pyspark": {"data.prepare"},
    "fastapi": {"serving"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "orjson": {"serving"},
}

# Rooms of pure tensors: these packages and the standard library.
TENSORS_ONLY = {"kernels", "nn", "losses", "metrics"}
TENSORS = {"torch", "numpy"}

# Modules that execute what they read.
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(path: Path) -> str:
    """``torchrec_mm/data/stream/loader.py`` -> ``data.stream``; ``apps/demo.py`` -> ``apps``."""
    return room_of_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def room_of_module(name: str) -> str:
    """The room that a dotted name lies in: the longest that the arrows know."""
    package, *rest = name.split(".")
    if package != "torchrec_mm":
        return package
    sub_room = ".".join(rest[:2])
    return sub_room if sub_room in ARROWS else rest[0]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports, inside functions too; of commands not their siblings."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 1 and path in APPS + COMPONENTS:  # the wheel gives them other names
                continue
            assert node.level == 0, f"{name_of(path)}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(path: Path) -> set[str]:
    """Top-level names of what a file imports from outside the standard library."""
    return {name.partition(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)


def rooms(path: Path) -> set[str]:
    """The other rooms of torchrec_mm that a file imports."""
    names = {room_of_module(name) for name in imports(path) if name.startswith("torchrec_mm.")}
    return names - {room_of(path)}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_room_imports_only_the_rooms_below_it(path):
    if path == ROOT / "torchrec_mm" / "__init__.py":
        assert not path.read_text(), "importing torchrec_mm must load nothing"
        return
    room = room_of(path)
    if path.name == "__init__.py" and room not in ARROWS:  # of a room of sub-rooms
        assert not packages(path), "a room of sub-rooms is a name, no more"
        return
    assert room in ARROWS, f"{room} is new: say above what it may import"
    assert rooms(path) <= ARROWS[room]


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if path.name == "__init__.py"], ids=name_of
)
def test_what_a_room_offers_is_its_own(path):
    # Every import of the room's files runs it: what it loads, all of them load.
    assert not rooms(path)
    assert packages(path) <= {"torchrec_mm"}


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if path.name == "__init__.py"][1:], ids=name_of
)
def test_a_room_says_what_lives_in_it_and_what_to_read_first(path):
    docstring = ast.get_docstring(tree_of(path)) or ""
    assert 0 < len(docstring.splitlines()) <= 10
    first = re.search(r"^Read first: ([\w/]+(?:\.py)?)", docstring, re.MULTILINE)
    assert first, "the last line must be, say, Read first: fit.py"
    assert (path.parent / first[1]).exists()


def test_no_arrows_make_a_circle():
    settled: set[str] = set()
    while free := {room for room, below in ARROWS.items() if below - {room} <= settled} - settled:
        settled |= free
    assert settled == set(ARROWS)


def test_no_room_has_more_than_20_files():
    folders = {path.parent for path in [*LIBRARY, *COMPONENTS, *(ROOT / "tests").rglob("*.py")]}
    crowded = {
        name_of(folder): len(files)
        for folder in folders
        if len(files := [path for path in folder.glob("*.py") if path.name != "__init__.py"]) > 20
    }
    assert not crowded


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_nothing_imports_what_the_wheel_has_not(path):
    assert not packages(path) & {"apps", "torchx_components", "tests"}


def test_the_two_phases_never_meet():
    for path in LIBRARY:
        phase = room_of(path).partition(".")[0]
        if phase in ("pretraining", "ranking"):
            others = {room.partition(".")[0] for room in rooms(path)} - {phase}
            assert not others & {"pretraining", "ranking", "train", "scoring"}, name_of(path)


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_heavy_packages_come_in_through_their_own_doors(path):
    shut = {package for package, allowed in DOORS.items() if room_of(path) not in allowed}
    assert not packages(path) & shut


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if room_of(path) in TENSORS_ONLY], ids=name_of
)
def test_pure_rooms_import_tensors_and_nothing_else(path):
    assert packages(path) <= TENSORS | {"torchrec_mm"}


@pytest.mark.parametrize("path", COMPONENTS, ids=name_of)
def test_launch_pads_import_torchx_only(path):
    assert packages(path) <= {"torchx"}


@pytest.mark.parametrize("module", ["environment", "install"])
def test_what_installs_the_packages_needs_none_of_them(module):
    path = ROOT / "torchrec_mm" / f"{module}.py"
    assert packages(path) <= {"torchrec_mm", "pip", "tomllib"}


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_nothing_that_is_read_can_run_code(path):
    assert not {name.partition(".")[0] for name in imports(path)} & UNSAFE
    complaints = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and is_unsafe(node)
    ]
    assert not complaints


def is_unsafe(call: ast.Call) -> bool:
    """Whether a call could execute the file or text it is given."""
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    match ast.unparse(call.func):
        case "torch.load":
            return given.get("weights_only") != "True"
        case "np.load" | "numpy.load":
            return given.get("allow_pickle") != "False"
        case "yaml.load" | "yaml.unsafe_load" | "yaml.full_load" | "eval" | "exec":
            return True
    return False


@pytest.mark.parametrize(
    ("line", "unsafe"),
    [
        ("torch.load(f)", True),
        ("torch.load(f, weights_only=False)", True),
        ("torch.load(f, weights_only=True)", False),
        ("np.load(f)", True),
        ("np.load(f, mmap_mode='r', allow_pickle=False)", False),
        ("yaml.load(f)", True),
        ("yaml.safe_load(f)", False),
    ],
)
def test_the_rule_on_reading_files_can_fail(line, unsafe):
    assert is_unsafe(ast.parse(line, mode="eval").body) == unsafe


def test_no_text_depends_on_the_locale():
    complaints = [
        f"{name_of(path)} line {node.lineno}: {ast.unparse(node)}"
        for path in EVERYTHING
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and is_in_the_locales_encoding(node)
    ]
    assert not complaints


def is_in_the_locales_encoding(call: ast.Call) -> bool:
    """Whether a call reads or writes text without saying in what encoding."""
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if "encoding" in given:
        return False
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    of_path = isinstance(call.func, ast.Attribute)
    modes = [ast.unparse(word).strip("'") for word in call.args[0 if of_path else 1 :]]
    mode = given.get("mode", modes[0] if modes else "r").strip("'")
    opens = name == "open" and re.fullmatch(r"[rwaxt+]+", mode) is not None
    reads = of_path and name in ("read_text", "write_text", "FileHandler")
    return opens or reads or given.get("text", given.get("universal_newlines")) == "True"


@pytest.mark.parametrize(
    ("line", "bound"),
    [
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("open(p, mode='a')", True),
        ("open(p, 'rb')", False),
        ("open(p, encoding='utf-8')", False),
        ("p.open()", True),
        ("p.open('r+b')", False),
        ("p.read_text()", True),
        ("read_text(p)", False),
        ("p.write_text(t)", True),
        ("p.write_text(t, encoding='utf-8')", False),
        ("ItemVectors.open(folder)", False),
        ("os.open(p, os.O_RDONLY)", False),
        ("subprocess.run(c, text=True)", True),
        ("subprocess.run(c, encoding='utf-8')", False),
        ("logging.FileHandler(p)", True),
    ],
)
def test_the_rule_on_encodings_can_fail(line, bound):
    assert is_in_the_locales_encoding(ast.parse(line, mode="eval").body) == bound


@pytest.mark.parametrize("path", APPS, ids=name_of)
def test_the_docstring_of_an_app_holds_the_command_to_run(path):
    docstring = ast.get_docstring(tree_of(path)) or ""
    command = f"python -m apps.{path.stem}"
    assert any(line.startswith(command) for line in docstring.splitlines())


@pytest.mark.parametrize("path", APPS, ids=name_of)
def test_every_flag_of_an_app_is_explained(path):
    app = importlib.import_module(f"apps.{path.stem}")
    names = {
        ast.unparse(call.args[0])
        for call in ast.walk(tree_of(path))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "parse"
    }
    configs = [getattr(app, name) for name in names if hasattr(app, name)]
    assert configs
    for config in configs:
        explained = set().union(*map(explained_fields, config.__mro__[:-1]))
        assert {field.name for field in fields(config)} <= explained, config


def explained_fields(config: type) -> set[str]:
    """The fields in a class's own body that have words below them."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    return {
        ast.unparse(field.target)
        for field, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
    }


@pytest.mark.parametrize("path", APPS, ids=name_of)
def test_every_app_answers_help_and_leaves_with_0(path, capsys):
    main = importlib.import_module(f"apps.{path.stem}").main
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code in (0, None)
    assert f"python -m apps.{path.stem}" in capsys.readouterr().out
