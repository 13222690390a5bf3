"""Paging: every row once, never more at a time than a page, and a hint where there is more."""

import json

import pytest

from smtpguard.cli.listing import PAGE_ROWS, Form, show_listing

FORM = Form(heads=(("N",),), cells=lambda row: ((str(row),),), fields=lambda row: {"n": row}, key=lambda row: row)


class Rows:
    """So many rows, and how many were asked for at a time."""

    def __init__(self, count: int) -> None:
        self.numbers = range(1, count + 1)
        self.asked: list[int] = []

    async def fetch(self, limit: int, after: int | None) -> list[int]:
        self.asked.append(limit)
        return [number for number in self.numbers if number > (after or 0)][:limit]


async def listed(capsys, count: int, *, limit: int, after: int | None = None) -> tuple[list[int], str, list[int]]:
    rows = Rows(count)
    await show_listing(FORM, rows.fetch, limit=limit, after=after, as_json=True)
    out, err = capsys.readouterr()
    return [json.loads(line)["n"] for line in out.splitlines()], err, rows.asked


async def test_fewer_rows_than_the_limit(capsys):
    assert await listed(capsys, 3, limit=5) == ([1, 2, 3], "", [6])


async def test_as_many_rows_as_the_limit_give_no_hint(capsys):
    assert await listed(capsys, 5, limit=5) == ([1, 2, 3, 4, 5], "", [6])


async def test_more_rows_than_the_limit_give_the_next_page(capsys):
    numbers, err, _ = await listed(capsys, 6, limit=5)

    assert numbers == [1, 2, 3, 4, 5]
    assert err == "smtpguard: there is more: --after 5\n"


async def test_next_page(capsys):
    assert await listed(capsys, 6, limit=5, after=5) == ([6], "", [6])


async def test_nothing_to_list_is_said_on_standard_error(capsys):
    assert await listed(capsys, 0, limit=5) == ([], "nothing to list\n", [6])


@pytest.mark.parametrize("count", [PAGE_ROWS - 1, PAGE_ROWS, PAGE_ROWS + 1, 3 * PAGE_ROWS + 7])
@pytest.mark.parametrize("limit", [0, 10 * PAGE_ROWS])
async def test_all_rows_come_in_pages(capsys, count, limit):
    numbers, err, asked = await listed(capsys, count, limit=limit)

    assert numbers == list(range(1, count + 1))
    assert err == ""
    assert max(asked) <= PAGE_ROWS + 1


async def test_limit_above_a_page_is_kept_exactly(capsys):
    numbers, err, asked = await listed(capsys, 3 * PAGE_ROWS, limit=PAGE_ROWS + 2)

    assert numbers == list(range(1, PAGE_ROWS + 3))
    assert err == f"smtpguard: there is more: --after {PAGE_ROWS + 2}\n"
    assert asked == [PAGE_ROWS + 1, 3]


async def test_table_of_nothing_is_nothing(capsys):
    await show_listing(FORM, Rows(0).fetch, limit=5, after=None, as_json=False)

    assert capsys.readouterr().out == ""


async def test_hint_can_be_pasted_into_a_shell(capsys):
    form = Form(heads=FORM.heads, cells=FORM.cells, fields=FORM.fields, key=lambda row: f'"a {row}"@x.example')

    async def fetch(limit: int, _: str | None) -> list[int]:
        return [1, 2, 3][:limit]

    await show_listing(form, fetch, limit=1, after=None, as_json=True)

    assert capsys.readouterr().err == """smtpguard: there is more: --after '"a 1"@x.example'\n"""
