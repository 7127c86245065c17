r"""Launch a component on Slurm by one plain sbatch script.

python -m torchx_components.slurm --dry-run --partition gpu --time 1-00:00:00 \
    torchx_components/ranking.py:train_ranker -j 2x8 --gpu 8 -- \
    --method id --data market --run_dir runs/id

Component and arguments are those of `torchx run`; torchx_components/README.md says when to use
which. sbatch and its environment may override the script: `sbatch --qos=high job.sbatch`.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Optional

from torchx.runner.config import apply, load_sections
from torchx.specs import AppDef
from torchx.specs.builders import materialize_appdef
from torchx.specs.finder import (
    ComponentNotFoundException,
    ComponentValidationException,
    get_component,
)

from .sbatch import sbatch_script


def parse(argv: Optional[Sequence[str]]) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__spec__.name}",
        usage="%(prog)s [options] COMPONENT [its arguments] [-- flags of the app]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--dry-run", action="store_true", help="print the script, submit nothing")
    parser.add_argument("--partition", help="[slurm] of .torchxconfig, or the cluster's default")
    parser.add_argument("--time", help="limit, for example 1-00:00:00; as partition")
    parser.add_argument("--account", help="whom to charge")
    parser.add_argument("--output", default="slurm-%j.out", help="log; %%j is the job's id")
    parser.add_argument("component", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if not given.component:
        parser.error("component must be given, for example torchx_components/ranking.py:evaluate")
    return parser, given


def options_of(given: argparse.Namespace) -> dict[str, Optional[str]]:
    """Options of sbatch: the flags, before what .torchxconfig says of Slurm."""
    flags = {name: getattr(given, name) for name in ("partition", "time", "account", "output")}
    options = {name: value for name, value in flags.items() if value is not None}
    apply("slurm", options)
    options.pop("job_dir", None)  # TorchX's own: it copies the code there
    return options


def app_of(name: str, arguments: Sequence[str]) -> AppDef:
    """What `torchx run` makes of a component and its arguments."""
    component = get_component(name).fn
    return materialize_appdef(component, list(arguments), load_sections("component").get(name))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Print the script, or submit it and print the job's id."""
    parser, given = parse(argv)
    try:
        script = sbatch_script(app_of(given.component[0], given.component[1:]), options_of(given))
    except (
        ComponentNotFoundException,
        ComponentValidationException,
        FileNotFoundError,
        ValueError,
    ) as error:
        parser.error(str(error))
    if given.dry_run:
        print(script, end="")
        return 0
    try:
        done = subprocess.run(
            ["sbatch", "--parsable"], input=script, stdout=subprocess.PIPE, encoding="utf-8"
        )
    except FileNotFoundError:
        parser.error("sbatch must be on the PATH; --dry-run prints the script without it")
    print(done.stdout.partition(";")[0].strip())
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
