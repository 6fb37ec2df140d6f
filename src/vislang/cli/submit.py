"""vislang submit: results in the form that a leaderboard takes."""

from pathlib import Path


def elevater(scores: list[str], *, out: Path, task: str = "", registry: str = "") -> None:
    """Write the zip that ELEVATER's leaderboard takes, checked before it is written.

    Args:
        scores: run folders that `vislang evaluate --suite elevater` wrote to, folders or files of
            predictions; the toolkit's own JSON files may be among them.
        out: the zip to write.
        task: of a run folder, whose predictions: zeroshot, probe-5, probe-full, finetune-5 ...
        registry: JSON of the toolkit's form that describes other sets.
    """
    from vislang.data.elevater_sets import ELEVATER, read_registry
    from vislang.evaluate.elevater.predictions import submit

    sets = read_registry(registry) if registry else ELEVATER
    lost = submit(scores, out, task, sets)
    print(f"Written: {out}")
    if lost:
        print(f"Without {len(lost)} sets, so there is no average: {', '.join(lost)}.")
