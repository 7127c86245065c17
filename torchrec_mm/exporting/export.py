"""From a checkpoint to a program on disk, which is compared with the scorer before it is there."""

import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from torchrec_mm.data.encoded.arrays import EncodedItems, RequestArrays
from torchrec_mm.errors import InputError
from torchrec_mm.exporting.described import described
from torchrec_mm.exporting.drawn import CANDIDATES, Drawing
from torchrec_mm.exporting.inputs import Input, inputs_of, inputs_of_spec
from torchrec_mm.exporting.program import Program
from torchrec_mm.files import write_json
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.kernels.build import plain_versions
from torchrec_mm.ranking.collators import collator_for_ranker, with_codes
from torchrec_mm.scoring.trained_run import CODEBOOKS, VOCABULARIES, TrainedRun
from torchrec_mm.serving.scorer import NetworkScorer

Scores = Callable[..., Tensor]  # of inputs by name
PROGRAM, COMPILED, DESCRIPTION = "program.pt2", "compiled.pt2", "program.json"
TOLERANCE = 1e-5  # between probabilities: sums are rounded another way, nothing else may differ
MOST_DRAWN = 300  # behaviours of the longest list that a program is tried on
AVX2 = {"cpp.simdlen": 256, "cpp.march": "x86-64-v3"}


@dataclass(frozen=True)
class Trial:
    """Requests that were drawn, and how the scorer's model answers any of them.

    vectors: of the ranker, None without.
    """

    model: NetworkScorer
    behaviours_read: int
    arrays: RequestArrays
    items: EncodedItems
    wanted: Mapping[str, Input]

    def inputs(self, arrays: RequestArrays) -> dict[str, Tensor]:
        """What a program is given for some of the requests."""
        model, items = self.model, self.items
        vectors = model.source.begin() if model.source else None
        if model.codebooks is not None:
            assert vectors is not None  # codes are of vectors
            items = with_codes(items, vectors, model.codebooks)
        spec = model.ranker.network.spec
        collator = collator_for_ranker(spec, items, model.source, self.behaviours_read)
        # All behaviours are slots then: the program searches itself.
        gather = model.source.gather if model.source else None
        collator = replace(collator, search=None, gather=gather)
        return inputs_of(model.ranker, collator(arrays, 0.0), self.wanted)

    def difference(self, program: Scores) -> float:
        """The most that probabilities differ: of all requests at once, and of each alone."""
        rows = [np.arange(len(self.arrays)), *np.arange(len(self.arrays))[:, None]]
        return max(self._difference(program, self.arrays.take(some)) for some in rows)

    @torch.no_grad()
    def _difference(self, program: Scores, arrays: RequestArrays) -> float:
        given = self.inputs(arrays)
        found = program(**given)[given["candidates"] >= 0]
        wanted = torch.from_numpy(self.model.logits(arrays, self.items)).sigmoid()
        difference = float((found - wanted).abs().max())
        return difference if np.isfinite(difference) else np.inf


def trial_of(trained: TrainedRun, model: NetworkScorer, vectors: ItemVectors | None) -> Trial:
    """Draw requests for a ranker, always the same ones. ``vectors``: its item vectors."""
    spec, longest = model.ranker.network.spec, min(trained.behaviours_read, MOST_DRAWN)
    drawing = Drawing(spec, trained.vocabularies, longest, np.random.default_rng(0))
    dtype = None
    if vectors is not None and spec.vector_width and not spec.has("codes"):
        dtype = torch.from_numpy(np.empty(0, vectors.values.dtype)).dtype
    items = drawing.items(vectors)
    wanted = inputs_of_spec(spec, dtype)
    return Trial(model, trained.behaviours_read, drawing.requests(), items, wanted)


def exported(trial: Trial, max_behaviours: int) -> ExportedProgram:
    """The program of torch's own operators alone, its lists of any length.

    ``max_behaviours``: the newest that target attention sees.
    """
    network = trial.model.ranker.network
    with plain_versions(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch to itself
        program = torch.export.export(
            Program(network, max_behaviours),
            (),
            kwargs=trial.inputs(trial.arrays),
            dynamic_shapes={name: each.dynamic for name, each in trial.wanted.items()},
            strict=False,
        )
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace != "aten":
            raise RuntimeError(f"a program must be of torch's own operators, got {node.target}")
    return program


@dataclass(frozen=True)
class Told:
    """What is told of an export. bytes: of the program. difference: the most from the scorer.

    export_s, load_s: seconds. compiled_difference: likewise; None if it was not compiled.
    """

    bytes: int
    difference: float
    export_s: float
    load_s: float
    compiled_difference: float | None = None


def write_program(trained: TrainedRun, trial: Trial, folder: Path, compiles: bool) -> Told:
    """Fill an empty folder: program.pt2, program.json, vocabularies, codebooks, compiled.pt2.

    Raises:
        InputError: what was written does not say what the scorer says, or cannot be compiled.
    """
    start = time.monotonic()
    program = exported(trial, trained.config["max_behaviours"])
    torch.export.save(program, folder / PROGRAM)
    between = time.monotonic()
    loaded = torch.export.load(folder / PROGRAM).module()
    load_s = time.monotonic() - between
    told = Told(
        bytes=(folder / PROGRAM).stat().st_size,
        difference=checked(trial, loaded, PROGRAM),
        export_s=between - start,
        load_s=load_s,
    )
    if compiles:
        compile_program(program, folder / COMPILED)
        found = torch._inductor.aoti_load_package(str(folder / COMPILED))
        told = replace(told, compiled_difference=checked(trial, found, COMPILED))
    spec = trial.model.ranker.network.spec
    words = described(spec, trained.vocabularies, dict(trial.wanted), trained.behaviours_read)
    words |= {
        "checkpoint": trained.checkpoint.name,
        "torch": torch.__version__,
        "tolerance": TOLERANCE,
        "vectors": trained.model["vectors"],
    }
    write_json(folder / DESCRIPTION, words)
    for name in (VOCABULARIES, CODEBOOKS):
        if (trained.path / name).exists():
            shutil.copyfile(trained.path / name, folder / name)
    return told


def checked(trial: Trial, program: Scores, name: str) -> float:
    """How far a program is from the scorer; InputError if further than TOLERANCE."""
    difference = trial.difference(program)
    if not difference <= TOLERANCE:
        requests, candidates = len(CANDIDATES), sum(CANDIDATES)
        rule = f"{name} must score as the run does, to {TOLERANCE:g}"
        raise InputError(
            f"{rule}, got a difference of {difference:.2g} on {candidates} candidates of "
            f"{requests} requests: nothing is written"
        )
    return difference


def compile_program(program: ExportedProgram, path: Path) -> None:
    """Write a library for x86-64 with AVX2, whatever this machine could do besides.

    Raises:
        InputError: no compiler, or another processor.
    """
    try:
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=AVX2
        )
    except (torch._inductor.exc.InductorError, RuntimeError, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(f"aot must have a C++ compiler and an x86-64 processor: {why}") from error
