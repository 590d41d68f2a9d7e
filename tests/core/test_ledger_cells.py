from __future__ import annotations

from gateway.core.ledger import OTHER, Amounts, Line, added
from gateway.core.ledger_cells import Cells

ONE = Amounts(1, output=5)


def line(model: str = "m", scope: str = "s", day: str = "2026-11-22") -> Line:
    return Line(day, "openai", model, scope, "request")


def total(cells: Cells) -> Amounts:
    found = Amounts()
    for each in cells.sums().values():
        found = added(found, each)
    return found


def test_what_has_one_line_is_one_sum() -> None:
    cells = Cells()
    cells.add([(line(), ONE)] * 3)

    assert cells.take(10) == {line(): Amounts(3, output=15)}
    assert len(cells) == 0


def test_models_and_scopes_beyond_the_first_are_one_and_nothing_is_lost() -> None:
    cells = Cells(models=2, scopes=3)
    cells.add((line(f"m{n % 10}", f"s{n % 7}"), ONE) for n in range(100))

    models = {each.model for each in cells.sums()}
    scopes = {each.scope for each in cells.sums()}
    assert models == {"m0", "m1", OTHER}
    assert scopes == {"s0", "s1", "s2", OTHER}
    assert total(cells) == Amounts(100, output=500)


def test_lines_of_a_day_are_bounded_and_nothing_is_lost() -> None:
    cells = Cells(lines=10)
    cells.add((line(f"m{n}", f"s{m}"), ONE) for n in range(10) for m in range(10))

    assert len(cells) == 11
    assert total(cells).times == 100


def test_who_only_fails_makes_no_name_known() -> None:
    cells = Cells(models=2, scopes=2)
    failed = Amounts(1, failed=1)
    cells.add((line(f"guess{n}", f"key{n}"), failed) for n in range(50))
    cells.add([(line("real", "payer"), ONE), (line("real", "payer"), failed)])

    assert cells.sums() == {
        line(OTHER, OTHER): Amounts(50, failed=50),
        line("real", "payer"): Amounts(2, failed=1, output=5),
    }


def test_a_new_day_begins_with_new_names() -> None:
    cells = Cells(models=1)
    cells.add([(line("a"), ONE), (line("b"), ONE)])
    cells.add([(line("b", day="2026-11-23"), ONE), (line("a", day="2026-11-23"), ONE)])

    assert [(each.day[-2:], each.model) for each in cells.sums()] == [
        ("22", "a"),
        ("22", OTHER),
        ("23", "b"),
        ("23", OTHER),
    ]


def test_while_nobody_takes_them_lines_stay_few() -> None:
    cells = Cells(lines=50, waiting=200)
    for day in range(1, 29):
        cells.add((line(f"m{n}", day=f"2026-11-{day:02d}"), ONE) for n in range(40))

    assert len(cells) <= 200 + 28
    assert total(cells).times == 28 * 40


def test_the_oldest_are_taken_first_and_so_many() -> None:
    cells = Cells()
    cells.add((line(f"m{n}"), ONE) for n in range(5))

    assert [each.model for each in cells.take(3)] == ["m0", "m1", "m2"]
    assert [each.model for each in cells.take(3)] == ["m3", "m4"]
