"""Many models of one architecture, of which one is in memory at a time."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from vislang.models.dual import DualEncoder

State = Mapping[str, Tensor]


class Swapped(Mapping[str, DualEncoder]):
    """Name -> model; asking for another one puts its weights into the same model.

    So only the latest that was asked for is right: loops that use one model after the other take
    the memory of one, on the device as well.

    Args:
        model: built as all of them are; its own weights are lost.
        states: name -> what gives the weights, all tensors of the model.
        others: models that stay as they are, before the others in the order.
    """

    def __init__(
        self,
        model: DualEncoder,
        states: Mapping[str, Callable[[], State]],
        others: Mapping[str, DualEncoder] | None = None,
    ):
        self._model, self._states, self._others = model, dict(states), dict(others or {})
        self._at = ""

    def __getitem__(self, name: str) -> DualEncoder:
        if name in self._others:
            return self._others[name]
        if self._at != name:
            state = self._states[name]()
            self._at = ""  # neither, if it fails
            self._model.load_state_dict(state, strict=True)
            self._at = name
        return self._model

    def __iter__(self) -> Iterator[str]:
        yield from (*self._others, *self._states)

    def __len__(self) -> int:
        return len(self._others) + len(self._states)
