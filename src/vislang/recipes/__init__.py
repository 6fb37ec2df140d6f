"""Recipes: functions that return a complete TrainConfig.  A recipe is data, it trains nothing.

    config = find_config("clip")                  # or a config.yaml, or a run folder
    config = with_changes(config, {"optim.lr": 1e-4})

Adding one: a file here with a function, a line in RECIPES.
"""

from pathlib import Path

from vislang.config import TrainConfig, read_config
from vislang.errors import UserError
from vislang.lookup import lookup, nearest

RECIPES: dict[str, str] = {
    "clip": "vislang.recipes.clip:clip",
    "scratch": "vislang.recipes.scratch:scratch",
    "finetune": "vislang.recipes.finetune:finetune",
    "siglip": "vislang.recipes.siglip:siglip",
    "lit": "vislang.recipes.lit:lit",
    "protoclip": "vislang.recipes.protoclip:protoclip",
    "unicl": "vislang.recipes.unicl:unicl",
    "coca": "vislang.recipes.coca:coca",
    "slip": "vislang.recipes.slip:slip",
    "declip": "vislang.recipes.declip:declip",
    "text_to_image": "vislang.recipes.distillation:text_to_image",
    "image_to_text": "vislang.recipes.distillation:image_to_text",
    "simclr": "vislang.recipes.simclr:simclr",
    "simsiam": "vislang.recipes.simsiam:simsiam",
    "byol": "vislang.recipes.byol:byol",
    "nnclr": "vislang.recipes.nnclr:nnclr",
    "swav": "vislang.recipes.swav:swav",
    "dino": "vislang.recipes.dino:dino",
    "vicreg": "vislang.recipes.vicreg:vicreg",
    "barlow": "vislang.recipes.barlow:barlow",
    "lgsimclr": "vislang.recipes.language_guided:lgsimclr",
    "lgsimsiam": "vislang.recipes.language_guided:lgsimsiam",
    "lgslip": "vislang.recipes.language_guided:lgslip",
    "demo": "vislang.recipes.demo:demo",
}


def find_config(recipe: str) -> TrainConfig:
    """The config that `recipe` names.

    Args:
        recipe: a key of RECIPES, a config.yaml, a run folder (its config.yaml), or your own
            'package.module:function'.

    Raises:
        UserError: there is no such recipe or file, or the file is no config.
    """
    path = Path(recipe)
    if recipe not in RECIPES:
        if path.is_dir():
            if not (path / "config.yaml").exists():
                raise UserError(
                    f"{recipe} is a folder without config.yaml, so no run folder."
                    f" Give a recipe ({', '.join(RECIPES)}), a config.yaml or a run folder."
                )
            return read_config(path / "config.yaml")
        if path.suffix in (".yaml", ".yml", ".json"):
            return read_config(path)
        if ":" not in recipe:
            raise UserError(
                f"No recipe is called {recipe!r}.{nearest(recipe, RECIPES)}"
                f" Known: {', '.join(RECIPES)}. A config.yaml, a run folder or your own"
                " 'package.module:function' may stand in its place."
            )
    config = lookup("recipe", RECIPES, recipe)()
    if not isinstance(config, TrainConfig):
        raise UserError(
            f"The recipe {recipe!r} must return a TrainConfig, got {type(config).__name__}."
        )
    return config
