"""Which layer each parameter of a tower belongs to, for locks and for layer-wise learning rates.

    0            embeddings: everything before the blocks
    1 ... N      the blocks (of a convolutional net its stages), from the input on
    N + 1        final: norms, poolers and projections behind them

The blocks are found by structure, not by the name of a model.  What lies before or behind them is
told by the order in which a model defines its parts; parameters that hang on the model itself (a
class token, a projection matrix) by whether their name says that they are embeddings.
"""

import re
from dataclasses import dataclass

from torch import nn

from vislang.models.anatomy import LISTS, find_blocks

EMBEDDING = re.compile(
    r"emb|(^|[._])(pos(?!t)|rel(ative)?_|cls|reg|dist|mask|class(?!if)|patch|stem)", re.IGNORECASE
)
# What was added to a tower in order to be trained.
ADDED = ("adapters.", "prompt.")


@dataclass(frozen=True)
class Layers:
    """The layers of a tower.

    Attributes:
        blocks: dotted names of the blocks (or stages), in order.
        number: layer of each parameter by its name; added ones (adapters, prompts) are final.
    """

    blocks: tuple[str, ...]
    number: dict[str, int]

    @property
    def last(self) -> int:
        """The number of the final layer, N + 1."""
        return len(self.blocks) + 1


def find_layers(tower: nn.Module) -> Layers:
    """The layers of any tower; one without recognisable blocks has a single one."""
    names = [block.name for block in find_blocks(tower)] or _stages(tower)
    if names and not _anything_before(tower, names):
        names = names[1:]  # a net that is one list begins with its stem
    order = {name: i + 1 for i, name in enumerate(names)}
    ancestors = {name.rsplit(".", i)[0] for name in names for i in range(1, name.count(".") + 1)}
    ancestors.add("")
    number: dict[str, int] = {}
    done = 0  # blocks that the walk in order of definition has passed
    for module_name, module in tower.named_modules():
        inside = _owner(module_name, order)
        if inside:
            done = max(done, inside)
        for name, _ in module.named_parameters(recurse=False, remove_duplicate=False):
            full = f"{module_name}.{name}" if module_name else name
            if full.startswith(ADDED):
                number[full] = len(names) + 1
            elif inside:
                number[full] = inside
            elif _is_embedding(full, ancestors) or (done == 0 and module_name not in ancestors):
                number[full] = 0
            elif module_name in ancestors or done == len(names):
                number[full] = len(names) + 1
            else:
                number[full] = done + 1  # between two stages: with the one that follows
    return Layers(tuple(names), number)


def _owner(name: str, order: dict[str, int]) -> int:
    """The layer of the block that a module is or lies in; 0 for none."""
    path = name.split(".")
    for end in range(1, len(path) + 1):
        if found := order.get(".".join(path[:end])):
            return found
    return 0


def _is_embedding(name: str, ancestors: set[str]) -> bool:
    """Whether the part of a name below the modules that hold the blocks speaks of embeddings."""
    path = name.split(".")
    start = max(i for i in range(len(path)) if ".".join(path[:i]) in ancestors)
    return bool(EMBEDDING.search(path[start]))


def _anything_before(tower: nn.Module, names: list[str]) -> bool:
    """Whether a parameter is defined before the first block."""
    for name, module in tower.named_modules():
        if name == names[0] or name.startswith(names[0] + "."):
            return False
        if any(True for _ in module.parameters(recurse=False)):
            return True
    return False


def _stages(tower: nn.Module) -> list[str]:
    """The parts of a convolutional net: the items of its longest list, or layer1, layer2 ...

    The walk goes down into the child with the most layers until it meets a list, or children
    that are numbered.
    """
    module, prefix = tower, ""
    while True:
        children = {n: m for n, m in module.named_children() if _size(m) and f"{n}." not in ADDED}
        if not children:
            return []
        numbered: dict[str, list[str]] = {}
        for name in children:
            if found := re.match(r"([A-Za-z_]+)\d\w*$", name):
                numbered.setdefault(found[1], []).append(name)
        series = max(
            numbered.values(), key=lambda s: sum(_size(children[n]) for n in s), default=[]
        )
        largest = max(children, key=lambda name: _size(children[name]))
        if isinstance(module, LISTS) and len(children) > 1:
            # A norm in a list belongs to the convolution before it.
            return [prefix + n for n, m in children.items() if "Norm" not in type(m).__name__]
        if len(series) > 1 and sum(_size(children[n]) for n in series) >= _size(children[largest]):
            return [prefix + name for name in series]
        module, prefix = children[largest], f"{prefix}{largest}."


def _size(module: nn.Module) -> int:
    """How many modules with parameters of their own it holds."""
    return sum(any(True for _ in m.parameters(recurse=False)) for m in module.modules())
