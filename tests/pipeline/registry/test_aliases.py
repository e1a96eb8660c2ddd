from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import SettingError
from pipeline.registry.aliases import aliases, check_alias, current, history, look_up, move, move_back, move_before
from pipeline.storage import store

A, B, C = "a" * 64, "b" * 64, "ab" * 32


@pytest.fixture
def root(tmp_path) -> str:
    """A place where nothing is published yet."""
    return f"{tmp_path}/models"


def back(root: str) -> str | None:
    """Move `latest` back; where it stands then."""
    now = current(root, "latest")
    if not (to := move_before(root, "latest", now)):
        return None
    move_back(root, "latest", now, to)
    return current(root, "latest").digest


def test_an_alias_moves_and_keeps_its_history(root):
    assert (current(root, "latest"), aliases(root), look_up(root, "latest")) == (None, [], None)
    assert [move(root, "latest", digest) for digest in (A, B, B, C)] == [None, A, B, B]
    move(root, "candidate", A)
    assert (aliases(root), look_up(root, "latest"), look_up(root, "candidate")) == (["candidate", "latest"], C, A)
    assert [step.digest for step in history(root, "latest")] == [C, B, A], "to where it stands is no move"


def test_moves_back_go_further_each_time_and_are_history_too(root):
    for digest in (A, B, C):
        move(root, "latest", digest)
    assert [back(root), back(root), back(root)] == [B, A, None]
    move(root, "latest", C)
    assert back(root) == A, "before C the alias stood there"
    assert [step.digest for step in history(root, "latest")] == [A, C, A, B, C, B, A]


def test_of_moves_at_once_none_is_lost(root):
    many = [f"{number:064x}" for number in range(12)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda digest: move(root, "latest", digest), many))
    steps = history(root, "latest")
    assert sorted(step.digest for step in steps) == many
    assert [step.number for step in steps] == list(range(12, 0, -1)), "one after the other"
    assert [step.before for step in steps] == [*range(11, 0, -1), None]


def test_of_two_who_roll_back_at_once_one_does(root):
    for digest in (A, B, C):
        move(root, "latest", digest)
    last = current(root, "latest")
    to = move_before(root, "latest", last)
    move_back(root, "latest", last, to)
    with pytest.raises(FileExistsError):
        move_back(root, "latest", last, to)
    assert current(root, "latest").digest == B


def test_a_request_that_was_repeated_as_its_answer_was_lost_is_one_move(root, monkeypatch):
    create = store.create
    monkeypatch.setattr(store, "create", lambda *arguments: (create(*arguments), create(*arguments)))
    assert [move(root, "latest", digest) for digest in (A, B)] == [None, A]
    assert [step.digest for step in history(root, "latest")] == [B, A]


def test_a_move_that_was_not_written_to_its_end_is_none(tmp_path):
    move(str(tmp_path), "latest", A)
    store.write(f"{tmp_path}/aliases/latest/00000002.json.{'0' * 32}", b'{"dig')
    assert current(str(tmp_path), "latest").digest == A
    store.write(f"{tmp_path}/aliases/latest/00000002.json", b'{"dig')
    with pytest.raises(SettingError, match=r"00000002\.json' is damaged"):
        current(str(tmp_path), "latest")


def test_a_digest_may_be_shortened_where_one_alone_begins_so(root):
    for digest in (A, B, C):
        store.write(f"{root}/{digest}/model.json", b"{}")
    assert [look_up(root, name) for name in ("aaaa", "bbbbbbbb", C[:9], C)] == [A, B, C, C]
    with pytest.raises(SettingError, match=r"there is no alias 'bbb' at .*; there is none"):
        look_up(root, "bbb")
    with pytest.raises(SettingError, match="there is no alias 'cccc'"):
        look_up(root, "cccc")
    store.write(f"{root}/{A[:-1]}b/model.json", b"{}")
    with pytest.raises(SettingError, match=f"2 digests at .* begin so, {A}, {A[:-1]}b; give more"):
        look_up(root, "aaaa")


@pytest.mark.parametrize("alias", ["latest", "v1", "2026-01-31", "Best_0.9"])
def test_names_that_can_be_aliases(alias):
    assert check_alias(alias) == alias


@pytest.mark.parametrize(
    ("alias", "message"), [("a/b", "letters"), ("..", "first"), ("", "letters"), ("beef", "digest")]
)
def test_names_that_can_not(alias, message):
    with pytest.raises(ValueError, match=message):
        check_alias(alias)


@pytest.mark.s3
@pytest.mark.parametrize(
    "check",
    [
        test_an_alias_moves_and_keeps_its_history,
        test_moves_back_go_further_each_time_and_are_history_too,
        test_of_moves_at_once_none_is_lost,
        test_of_two_who_roll_back_at_once_one_does,
        test_a_digest_may_be_shortened_where_one_alone_begins_so,
    ],
)
def test_the_same_on_s3(check, s3):
    check(f"s3://{s3.bucket()}/models/blood")
