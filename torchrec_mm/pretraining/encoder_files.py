"""The encoders of a pre-training run on disk: a JSON that says what they are, and safetensors.

encoder.safetensors holds what training may change.

The backbone's frozen part is not copied: it is built again from its name and checked by
fingerprint.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, write_json
from torchrec_mm.pretraining.encoder import Encoder, EncoderSpec, build_encoder

FORMAT = 1
WEIGHTS_FILE = "encoder.safetensors"
SPEC_FILE = "encoder.json"
OFF_THE_SHELF, SCL = "off-the-shelf", "scl"


@dataclass(frozen=True)
class EncoderSet:
    """The encoders of one run.

    name: "off-the-shelf" before any training, "scl" after. specs, encoders: by modality.
    """

    name: str
    specs: dict[str, EncoderSpec]
    encoders: dict[str, Encoder]


def save_encoders(run_dir: Path, encoders: EncoderSet) -> None:
    """Write both files into ``run_dir``, each in one step."""
    tensors = {
        f"{modality}.{name}": value.cpu().contiguous()
        for modality, encoder in encoders.encoders.items()
        for name, value in encoder.trained_state().items()
    }
    with new_file(run_dir / WEIGHTS_FILE) as aside:
        save_file(tensors, aside)
    modalities = {
        modality: asdict(spec) | {"frozen": frozen_fingerprint(encoders.encoders[modality])}
        for modality, spec in encoders.specs.items()
    }
    write_json(
        run_dir / SPEC_FILE, {"format": FORMAT, "encoder": encoders.name, "modalities": modalities}
    )


def load_encoders(run_dir: Path, wanted: list[str] | None = None) -> EncoderSet:
    """Read what ``save_encoders`` wrote; ``wanted`` modalities only, all by default.

    Raises:
        InputError: a missing or garbled file, a modality the run did not train, or a backbone
            whose frozen weights are not those of the run.
    """
    spec_file, weights_file = run_dir / SPEC_FILE, run_dir / WEIGHTS_FILE
    try:
        saved = json.loads(spec_file.read_text())
        tensors = load_file(weights_file)
    except FileNotFoundError as error:
        raise InputError(
            f"encoder must be a run of apps.pretrain, got {run_dir}: {error}"
        ) from error
    except (ValueError, SafetensorError) as error:
        raise InputError(f"{run_dir} must hold whole encoder files: {error}") from error
    if saved.get("format") != FORMAT:
        raise InputError(f"{spec_file} format must be {FORMAT}, got {saved.get('format')}")
    missing = sorted(set(wanted or []) - set(saved["modalities"]))
    if missing:
        raise InputError(
            f"modality must be one the encoder was trained for, "
            f"{', '.join(saved['modalities'])}, got {', '.join(missing)}"
        )
    specs, encoders = {}, {}
    for modality in wanted or saved["modalities"]:
        fields = dict(saved["modalities"][modality])
        frozen = fields.pop("frozen")
        spec = specs[modality] = EncoderSpec(**fields)
        encoder = encoders[modality] = build_encoder(spec)
        if frozen_fingerprint(encoder) != frozen:
            raise InputError(
                f"{spec_file} backbone {spec.backbone} must have the weights it was trained with, "
                f"fingerprint {frozen}, got {frozen_fingerprint(encoder)}"
            )
        mine = f"{modality}."
        state = {n.removeprefix(mine): t for n, t in tensors.items() if n.startswith(mine)}
        expected = encoder.trained_state().keys()
        if state.keys() != expected:
            wrong = sorted(state.keys() ^ expected)[0]
            raise InputError(
                f"{weights_file} must hold exactly the trained tensors, see {mine}{wrong}"
            )
        encoder.load_state_dict(state, strict=False)
    return EncoderSet(saved["encoder"], specs, encoders)


def frozen_fingerprint(encoder: Encoder) -> str:
    """Names the exact values of all that training never changes: 16 hex digits."""
    trained = encoder.trained_state().keys()
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value.cpu().numpy()).data)
    return digest.hexdigest()[:16]
