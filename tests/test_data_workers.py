"""Loader processes change nothing: not the batches, not the errors, not the random state."""

import os
import pickle
import resource

import pytest
import torch

from mixed import Mixed, make, same
from vislang.data.sample import Sample
from vislang.errors import UserError


@pytest.fixture(scope="module")
def whole() -> list:
    return [list(make(batch_size=10).start(epoch)) for epoch in range(3)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_start_and_any_number_of_workers_give_the_same_batches(whole, workers):
    batches = make(batch_size=10, workers=workers)
    for epoch, step in [(0, 0), (2, 1), (1, 2), (0, 1)]:
        got = list(batches.start(epoch, step))
        assert len(got) == 3 - step
        for left, right in zip(got, whole[epoch][step:]):
            same(left, right)
    through = list(batches.start(1, 1, epochs=2))
    for left, right in zip(through, whole[1][1:] + whole[2], strict=True):
        same(left, right)
    batches.close()


def test_pieces_of_a_batch_join_in_order(monkeypatch):
    """With more samples than a worker takes at once."""
    monkeypatch.setattr("vislang.data.crew.PIECE", 4)
    for options in ({}, {"caption": "all", "augment": "none", "needs": ("image", "text")}):
        alone = list(make(batch_size=10, **options).start())
        batches = make(batch_size=10, workers=2, **options)
        for left, right in zip(batches.start(), alone, strict=True):
            same(left, right)
        batches.close()


def test_workers_have_one_thread_and_leave_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches = make(Probe(), batch_size=2, needs=("text",), image=None, workers=1)
    texts = [text for batch in batches.start() for text in untokenize(batch["text"])]
    batches.close()
    assert {text.split()[0] for text in texts} == {"threads=1"}
    assert os.getpid() not in {int(text.split("=")[-1]) for text in texts}
    assert torch.equal(before, torch.get_rng_state())
    assert os.environ.get("TOKENIZERS_PARALLELISM") == "false"  # as conftest sets it


def untokenize(tokens: torch.Tensor) -> list[str]:
    return ["".join(map(chr, row)).strip() for row in tokens.tolist()]


class Probe(Mixed):
    """Tells about the process in which it is read."""

    def __getitem__(self, index: int) -> Sample:
        return Sample(str(index), None, (f"threads={torch.get_num_threads()} pid={os.getpid()}",))


class Broken(Mixed):
    """A source with an error that the user can mend."""

    def __getitem__(self, index: int) -> Sample:
        raise UserError("The shard went away: mount it again.")


class Deadly(Mixed):
    """A source that kills its process, as running out of memory does."""

    def __getitem__(self, index: int) -> Sample:
        os.kill(os.getpid(), 9)
        raise AssertionError


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_error_arrives_as_it_was_written(workers):
    batches = make(Broken(), workers=workers)
    with pytest.raises(UserError) as caught:
        next(batches.start())
    assert str(caught.value) == "The shard went away: mount it again."
    batches.close()


def test_many_pieces_need_few_file_handles(monkeypatch):
    """A batch of 300 pieces under a limit of 200 open files."""
    monkeypatch.setattr("vislang.data.crew.PIECE", 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    batches = make(Many(), batch_size=300, workers=1, augment="none", needs=("image", "text"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        batch = next(batches.start())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        batches.close()
    assert len(batch["id"]) + len(batch["rejected"]) == 300


class Many(Mixed):
    """As Mixed, over and over."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index % 30)


def test_a_killed_worker_is_explained():
    batches = make(Deadly(), workers=1)
    with pytest.raises(UserError, match=r"A loader process died: .*fewer data\.workers"):
        next(batches.start())
    batches.close()


def test_a_newer_start_ends_the_older_one():
    batches = make(workers=1)
    old, new = batches.start(), batches.start(1)
    with pytest.raises(RuntimeError, match="started again or closed"):
        next(old)
    same(next(new), next(make().start(1)))
    batches.close()
    with pytest.raises(RuntimeError, match="started again or closed"):
        next(new)


def test_batches_of_every_kind_can_be_pickled():
    """For machines whose workers are spawned, not forked."""
    batches = pickle.loads(pickle.dumps(make()))
    same(next(batches.start()), next(make().start()))
