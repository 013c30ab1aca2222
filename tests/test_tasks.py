"""The order in which tasks may begin: what several of them need is made once."""

from __future__ import annotations

import random

from suite.tasks import Order


def test_tasks_that_share_nothing_begin_in_their_order() -> None:
    order = Order([(), ("a",), ("b",)])
    assert [order.next(), order.next(), order.next(), order.next()] == [0, 1, 2, None]
    assert order.left == 0


def test_the_first_of_a_world_begins_alone() -> None:
    order = Order([("cell", "rows 1"), ("cell", "rows 1"), ("cell", "rows 2"), ("other", "rows 3")])
    assert [order.next(), order.next(), order.next()] == [0, 3, None]
    order.ended(0, made=True)
    assert [order.next(), order.next(), order.next()] == [1, 2, None]


def test_rows_are_shared_within_a_world() -> None:
    order = Order([("cell", "rows 1"), ("cell", "rows 2"), ("cell", "rows 2")])
    assert [order.next(), order.next()] == [0, None]
    order.ended(0, made=True)
    assert [order.next(), order.next()] == [1, None]
    order.ended(1, made=True)
    assert order.next() == 2


def test_another_one_makes_what_the_first_could_not() -> None:
    order = Order([("cell",), ("cell",), ("cell",)])
    assert order.next() == 0
    order.ended(0, made=False)
    assert [order.next(), order.next()] == [1, None]
    order.ended(1, made=True)
    assert order.next() == 2


def test_nothing_is_made_twice_and_all_of_it_ends() -> None:
    """Any ladder, any number of workers, ends in any order."""
    for seed in range(20):
        chance = random.Random(seed)
        makes = [(f"cell {chance.randrange(3)}", f"rows {chance.randrange(6)}") for _ in range(30)]
        order, running, made, ended = Order(makes), set[int](), set[str](), 0
        while ended < len(makes):
            while len(running) < 4 and (index := order.next()) is not None:
                new = set(makes[index]) - made
                assert not any(new & set(makes[other]) for other in running), "two of them make the same thing"
                running.add(index)
            assert running, "tasks are left, and none may begin"
            done = chance.choice(sorted(running))
            running.remove(done)
            made |= set(makes[done])
            order.ended(done, made=True)
            ended += 1
