"""The encoder of a pre-training run on disk: a JSON that says what it is, and safetensors.

encoder.safetensors holds what training may change. The backbones' frozen part is not copied: it is
built again from its name and checked by fingerprint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, write_json
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder.fingerprint import frozen_fingerprint
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder, build_item_encoder

FORMAT = 2
WEIGHTS_FILE = "encoder.safetensors"
SPEC_FILE = "encoder.json"
WIDTH_BEFORE = 128  # of every encoder whose file names no width

# Names of encoders that are treated apart from the others.
OFF_THE_SHELF, CLIP_E = "off-the-shelf", "clip-e"


@dataclass(frozen=True)
class SavedEncoder:
    """``name``: how it was trained, such as "scl". ``encoder``: on the CPU, in eval mode."""

    name: str
    encoder: ItemEncoder


def frozen_fingerprints(encoder: ItemEncoder) -> dict[str, str]:
    """By modality; all frozen weights are read for it."""
    return {modality: frozen_fingerprint(part) for modality, part in encoder.encoders.items()}


def save_encoder(
    run_dir: Path,
    name: str,
    encoder: ItemEncoder,
    frozen: Mapping[str, str] | None = None,
    weights: ItemEncoder | None = None,
) -> None:
    """Write both files into ``run_dir``, each in one step.

    Args:
        run_dir: of the run. name: how it was trained. encoder: says what training may change.
        frozen: the ``frozen_fingerprints`` of the encoder, where they are known already.
        weights: a copy of the encoder whose weights are saved, such as the momentum encoder.
    """
    frozen = frozen_fingerprints(encoder) if frozen is None else frozen
    saved = (encoder if weights is None else weights).state_dict()
    state = {name: saved[name] for name in encoder.trained_state()}
    with new_file(run_dir / WEIGHTS_FILE) as aside:
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, aside)
    modalities = {
        modality: asdict(spec) | {"frozen": frozen[modality]}
        for modality, spec in encoder.specs.items()
    }
    write_json(run_dir / SPEC_FILE, {"format": FORMAT, "encoder": name, "modalities": modalities})


def trained_modalities(run_dir: Path) -> tuple[str, ...]:
    """Those of a run; InputError as of ``load_encoder``."""
    return tuple(_read(run_dir)[1])


def load_encoder(run_dir: Path, wanted: Sequence[str] = ()) -> SavedEncoder:
    """Read what ``save_encoder`` wrote.

    Args:
        run_dir: folder of a run.
        wanted: modalities to load; all by default. With both there is the gate.

    Raises:
        InputError: a missing or garbled file, a modality the run did not train, or a backbone
            whose frozen weights are not those of the run.
    """
    name, described, tensors = _read(run_dir)
    missing = sorted(set(wanted) - described.keys())
    if missing:
        rule = f"modality must be one the encoder was trained for, {', '.join(described)}"
        raise InputError(f"{rule}, got {', '.join(missing)}")
    described = {modality: described[modality] for modality in wanted or described}
    encoder = build_item_encoder(spec for spec, _ in described.values()).eval()
    found_by_modality = frozen_fingerprints(encoder)
    for modality, (spec, frozen) in described.items():
        if (found := found_by_modality[modality]) != frozen:
            raise InputError(
                f"{run_dir / SPEC_FILE} backbone {spec.backbone} must have the weights it was "
                f"trained with, fingerprint {frozen}, got {found}"
            )
    _load_trained(encoder, tensors, run_dir / WEIGHTS_FILE)
    return SavedEncoder(name, encoder)


def _read(run_dir: Path) -> tuple[str, dict[str, tuple[EncoderSpec, str]], dict[str, Tensor]]:
    """The encoder's name; spec and frozen fingerprint by modality; the trained tensors."""
    file, weights = run_dir / SPEC_FILE, run_dir / WEIGHTS_FILE
    for needed in (file, weights):
        if not needed.is_file():
            rule = "encoder must be a run of apps.pretrain"
            raise InputError(f"{rule}, got {run_dir}: no {needed.name} in it")
    saved = read_json(file)
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{run_dir} must hold whole encoder files: {error}") from error
    found = saved.get("format") if isinstance(saved, dict) else None
    if found != FORMAT:
        raise InputError(f"{file} format must be {FORMAT}, got {found}")
    try:
        modalities = {
            m: {"width": WIDTH_BEFORE} | fields for m, fields in saved["modalities"].items()
        }
        frozen = {m: fields.pop("frozen") for m, fields in modalities.items()}
        specs = {m: EncoderSpec(**fields) for m, fields in modalities.items()}
        return saved["encoder"], {m: (specs[m], frozen[m]) for m in specs}, tensors
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file} must describe an encoder: {error}") from error


def _load_trained(encoder: ItemEncoder, tensors: dict[str, Tensor], file: Path) -> None:
    expected = encoder.trained_state()
    roots = tuple(f"{name}." for name in _roots(encoder))
    state = {name: tensor for name, tensor in tensors.items() if name.startswith(roots)}
    wrong = sorted(
        name
        for name in expected.keys() | state.keys()
        if name not in expected or name not in state or expected[name].shape != state[name].shape
    )
    if wrong:
        raise InputError(f"{file} must hold exactly the trained tensors, see {wrong[0]}")
    encoder.load_state_dict(state, strict=False)


def _roots(encoder: ItemEncoder) -> list[str]:
    gate = [] if encoder.gate is None else ["gate"]
    return [f"encoders.{modality}" for modality in encoder.encoders] + gate
