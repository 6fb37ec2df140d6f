"""vislang data: which data sets of a benchmark are there."""

from pathlib import Path

from vislang.errors import UserError
from vislang.lookup import nearest


def elevater(action: str, root: Path, *, registry: str = "") -> None:
    """Say which of ELEVATER's twenty sets and ImageNet are below a folder, and what is missing.

    Args:
        action: status.
        root: the folder that holds classification/, as ELEVATER's toolkit left it.
        registry: JSON of the toolkit's form that describes other sets.
    """
    from vislang.data.elevater_sets import status_table

    if action != "status":
        raise UserError(
            f"vislang data elevater knows no {action!r}.{nearest(action, ['status'])}"
            " Known: status."
        )
    table = status_table(root, registry)
    for name, state, train, test, classes, missing in table["rows"]:
        lost = f"  missing: {missing}" if missing else ""
        print(f"{name:<24}{state:<12}{classes:>5} classes {train:>8,} / {test:<7,}{lost}".rstrip())
    count = sum(row[1] == "present" for row in table["rows"])
    print(f"{count} of {len(table['rows'])} sets are whole below {root}.")
