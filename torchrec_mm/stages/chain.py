"""A chain of stages: every flag checked, and every folder named, before the first stage runs."""

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchrec_mm.config import flag_words, parse
from torchrec_mm.errors import InputError
from torchrec_mm.stages.fingerprint import fingerprint
from torchrec_mm.stages.stage import Stage


class Chain:
    """Stages in the order in which they run.

    stages: by the name of their app.
    """

    def __init__(
        self,
        run_dir: Path,
        configs: Mapping[str, type[Any]],
        flags: Mapping[str, Mapping[str, Any]],
        left_out: Collection[str],
        folders_or_names: Collection[str] = (),
    ) -> None:
        """Begin an empty chain.

        Args:
            run_dir: where the stages' folders go.
            configs: the config of each app.
            flags: the user's, by app.
            left_out: names of flags that a fingerprint does not depend on: what only changes how
                the work is done, and where the chain itself says what is read and written.
            folders_or_names: names of flags whose value may be a folder; its files count then.
        """
        self.stages: dict[str, Stage] = {}
        self._run_dir, self._configs, self._flags = run_dir, configs, flags
        self._left_out, self._folders_or_names = left_out, folders_or_names

    def add(
        self,
        app: str,
        flags: Mapping[str, Any],
        reads: Mapping[str, Stage],
        inputs: Mapping[str, str],
        **more: Any,
    ) -> Stage:
        """Append a stage; it is given --run_dir unless it reads another stage's folder as that.

        Args:
            app: the command.
            flags: what it is given; the user's own win.
            reads: stages whose folders are the values of flags.
            inputs: signatures of what it reads from outside.
            more: further fields of Stage.

        Raises:
            InputError: what the app would refuse, after its name.
        """
        given = {**flags, **{name: stage.folder for name, stage in reads.items()}}
        given |= self._flags[app]
        own_folder = {} if "run_dir" in given else {"run_dir": self._run_dir}
        settings = self._settings(app, given | own_folder)
        before = {name: stage.fingerprint for name, stage in reads.items()}
        name = fingerprint(app, settings, before, inputs)
        folder = self._run_dir / f"{app}-{name[:8]}"
        given |= dict.fromkeys(own_folder, folder)
        self.stages[app] = Stage(app, given, name, folder, **more)
        return self.stages[app]

    def _settings(self, app: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """All that the result depends on, defaults included."""
        try:
            config = parse(self._configs[app], flag_words(given))
        except InputError as error:
            raise InputError(f"{app}: {error}") from error
        settings = {n: v for n, v in asdict(config).items() if n not in self._left_out}
        for name in self._folders_or_names:
            if settings.get(name) is not None and Path(settings[name]).is_dir():
                settings[name] = Path(settings[name])
        return settings
