"""What a prediction proposes: the right place, pieces that grow and shrink, and pauses when it is hopeless."""

from __future__ import annotations

import numpy as np

from runtime.batching.draft import FIRST_LENGTH, LONGEST, SHORTEST, Draft


def tokens(*ids: int) -> np.ndarray:
    return np.array(ids, np.int32)


def counting(size: int = 200) -> Draft:
    return Draft(np.arange(100, 100 + size, dtype=np.int32))


def proposed(draft: Draft, *answer: int, most: int = 999) -> list[int]:
    return draft.propose(tokens(*answer), most).tolist()


def test_it_begins_at_the_beginning() -> None:
    assert proposed(counting()) == list(range(100, 100 + FIRST_LENGTH))


def test_it_goes_on_where_the_answer_is() -> None:
    assert proposed(counting(), 100, 101)[:2] == [102, 103]


def test_no_more_than_there_is_room_for() -> None:
    assert proposed(counting(), most=3) == [100, 101, 102]
    assert proposed(counting(), most=0) == []
    assert proposed(counting(), most=-1) == []


def test_what_is_not_found_proposes_nothing() -> None:
    draft = counting()
    assert proposed(draft, 7) == []
    assert proposed(draft, 7, 8, 9) == []


def test_it_is_found_again_by_two_tokens() -> None:
    draft = counting()
    assert proposed(draft, 7, 150) == []
    assert proposed(draft, 7, 150, 151)[0] == 152


def test_three_tokens_decide_before_two_and_the_next_place_before_earlier_ones() -> None:
    draft = Draft(tokens(1, 2, 50, 9, 1, 2, 60, 8, 1, 2, 70))
    assert proposed(draft, 5, 8, 1, 2)[0] == 70
    draft = Draft(tokens(1, 2, 50, 9, 9, 1, 2, 60, 7, 1, 2, 70))
    assert proposed(draft, 1, 2, 50)[0] == 9
    assert proposed(draft, 1, 2, 50, 33, 1, 2)[0] == 60
    assert proposed(draft, 1, 2, 50, 33, 1, 2, 70) == []  # the end
    draft = Draft(tokens(1, 2, 50, 9, 8))
    assert proposed(draft, 1, 2, 50, 9)[0] == 8
    assert proposed(draft, 1, 2, 50, 9, 33, 1, 2)[0] == 50  # nothing later is left


def test_pieces_grow_while_they_are_right_and_shrink_while_they_are_not() -> None:
    draft, answer, sizes = counting(), [], []
    for _ in range(4):
        piece = proposed(draft, *answer)
        sizes.append(len(piece))
        answer += piece
        draft.adapt(len(piece), len(piece))
    assert sizes == [FIRST_LENGTH, 16, LONGEST, LONGEST]
    for _ in range(6):
        draft.adapt(draft.length, 1 if draft.length > SHORTEST else 0)
    assert draft.length == SHORTEST


def test_after_a_piece_of_which_nothing_was_right_it_waits_and_ever_longer() -> None:
    draft, answer, tries = counting(), [100], []
    while len(answer) < 90:
        piece = proposed(draft, *answer)
        if piece:
            tries.append(len(answer))
            draft.adapt(len(piece), 0)
        answer.append(answer[-1] + 1)  # it is right after all, but the model does not follow
    waits = np.diff(tries).tolist()
    assert waits == sorted(waits)
    assert waits[-1] >= 32


def test_a_wrong_token_rejects_those_after_it_and_what_was_not_judged_counts_as_neither() -> None:
    draft = counting()
    for place in range(3):
        draft.judge(place, True, 8)
    assert (draft.num_accepted, draft.num_rejected) == (3, 0)
    draft.judge(3, False, 8)
    assert (draft.num_accepted, draft.num_rejected) == (3, 5)


def test_an_empty_or_short_prediction_proposes_nothing_when_lost() -> None:
    for prediction in ((), (1,), (1, 2)):
        assert proposed(Draft(tokens(*prediction)), 9, 1, 2) == []
