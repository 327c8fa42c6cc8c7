"""An encoder out of a run directory, or out of a file.

A finished training leaves `encoder.npz`, and unless a checkpoint is asked for, only that is read.
"""

import contextlib
import dataclasses
import os
from pathlib import Path

from ml_collections import config_dict

from sigah_jax.config import DECODER_STAGES
from sigah_jax.devices import parallel
from sigah_jax.encoder import archive, hasher
from sigah_jax.errors import BadInput
from sigah_jax.retrieval import metric
from sigah_jax.run import rundir

# about the encoder of a run directory
REMEDY = "remove it, then the training's command writes it anew"
LOOKS = 20  # at a run directory, where checkpoints come and go while it is read


@parallel.default_settings()
def load(path: str | Path, checkpoint: str | int | None = None) -> hasher.Hasher:
    """The hasher of a run directory or of a file.

    Args:
        path: a run directory, or a file that `Hasher.save` wrote.
        checkpoint: None: the encoder that a finished training left. Others are read also while a
            training saves there: "best" by validation map, of an unfinished training with the
            decoder of the last stage that is finished; "latest", or a step, with the decoder that
            was trained beside its codes. A run refines codes when it ends, so those of an
            unfinished one, of "latest" and of a step are not refined.

    Raises:
        BadInput: no run and no encoder there, one that is damaged or of another version, a
            finished run without it, an unfinished one without `checkpoint`, no such checkpoint.
    """
    path = Path(os.path.expanduser(path))
    parallel.local_devices()  # where there are none, before JAX is asked for anything else
    if not path.exists():
        raise BadInput(f"{path}: no such run directory or encoder; train first, or correct it")
    if path.is_file():
        if checkpoint is not None:
            raise BadInput(f"--checkpoint={checkpoint}: {path} is one encoder; leave it out")
        return hasher.read(path, "save it anew, or name another")
    if checkpoint in (None, "best"):
        with contextlib.suppress(FileNotFoundError):
            return in_run(path, hasher.read(rundir.encoder_path(path), REMEDY))
        if (path / "results.json").exists():  # its best checkpoint alone is another encoder
            raise BadInput(
                f"{rundir.encoder_path(path)}: is missing from a finished run; the training's "
                "command writes it anew"
            )
    if checkpoint is None:
        rundir.read_config(path)  # or there is no run
        raise BadInput(
            f"{path}: its training has not finished; the command that began it resumes it. encode, "
            "search and export use what it has so far with --checkpoint=best"
        )
    return of_checkpoint(path, str(checkpoint))


def in_run(workdir: Path, h: hasher.Hasher) -> hasher.Hasher:
    """The hasher with the name of its run directory among its facts."""
    return dataclasses.replace(h, facts=h.facts | {"workdir": str(workdir)})


def of_checkpoint(workdir: Path, checkpoint: str) -> hasher.Hasher:
    """The hasher of a checkpoint: see `load`."""
    from sigah_jax.run import checkpoints  # and orbax, which an encoder alone does not need

    for _ in range(LOOKS):  # a checkpoint may be replaced between the look at it and its reading
        with contextlib.suppress(checkpoints.Gone):
            return _look(workdir, checkpoint)
    return _look(workdir, checkpoint)


def _look(workdir: Path, checkpoint: str) -> hasher.Hasher:
    from sigah_jax.run import checkpoints

    config, config_hash = rundir.read_config(workdir)
    number = checkpoints.number_of(workdir, checkpoint)
    saved = checkpoints.facts(workdir, number)
    try:
        model, block_rows = config.model, config.eval.block_rows
        validation = {k.removeprefix("eval/"): v for k, v in (saved["metrics"] or {}).items()}
        facts = {
            "data": config.data.base or config.data.name,
            "preset": config.preset,
            "config_hash": config_hash,
            "step": number,
            "validation": validation,
        }
        directory, refitted = workdir, False
        for stage in DECODER_STAGES if checkpoint == "best" else ():
            source = rundir.stage_directory(workdir, stage)
            last = max(rundir.saved_steps(source), default=None)
            # versions before sealed none that was not
            if last and checkpoints.facts(source, last).get("last", True):
                directory, number, refitted = source, last, True
                if stage == "refit":
                    model.atoms = config.refit.atoms
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise BadInput(f"{workdir}: made by another version or damaged ({e}); train it anew") from e
    params = checkpoints.read(directory, number, ("standardiser", "gen"))
    model = config_dict.FrozenConfigDict(model)
    try:
        kept = metric.kept(config.data.metric, params["standardiser"])
        archive.check_shapes(model, params)
    except (AttributeError, KeyError, ValueError) as e:
        path = directory / "checkpoints" / str(number)
        raise BadInput(f"{path}: does not fit the config of its run ({e}); train it anew") from e
    facts["refitted"] = refitted
    h = hasher.Hasher(model, params, facts, block_rows, metric=kept)
    return in_run(workdir, h)
