"""A row and a template become a request and its key."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import JobError, RowError
from batch.exact import loads
from batch.prompts import Prompts
from batch.prompts.template import Condition
from batch.records import Row
from batch.wires import WIRES


def row(problem: str = "", **values: Any) -> Row:
    return Row(0, "prompts.csv, line 2", values, problem)


def prompts(**settings: Any) -> Prompts:
    return Prompts(WIRES["openai"], "https://example.com/v1", **{"model": "m", **settings})


def sent(ask: Prompts, one: Row) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(ask(one).body)
    return body


def test_the_column_prompt_is_sent_as_it_is() -> None:
    assert sent(prompts(), row(prompt=" 007\n"))["messages"] == [{"role": "user", "content": " 007\n"}]


def test_a_template_joins_columns_and_a_system_message() -> None:
    ask = prompts(template="{{ a }}: {{ b }}", system="You know {{ a }}.")
    assert sent(ask, row(a="x", b="y"))["messages"] == [
        {"role": "system", "content": "You know x."},
        {"role": "user", "content": "x: y"},
    ]


def test_values_print_as_json_wrote_them() -> None:
    values = loads(b'{"price": 0.10, "yes": true, "list": [1, "\\u00e9"], "big": 9007199254740993}')
    ask = prompts(template="{{ price }} {{ yes }} {{ list }} {{ big }}")
    assert ask(row(**values)).content == '0.10 true [1,"é"] 9007199254740993'


@pytest.mark.parametrize(
    ("settings", "values", "words"),
    [
        ({}, {"text": "x"}, "no column 'prompt'; the columns are 'text'"),
        ({}, {"prompt": ""}, "column 'prompt' is empty"),
        ({}, {"prompt": " \n"}, "column 'prompt' is empty"),
        ({}, {"prompt": None}, "column 'prompt' is null"),
        ({}, {"prompt": 7}, "column 'prompt' is no text"),
        ({"template": "{{ txt }}"}, {"text": "x"}, "no column 'txt'; did you mean 'text'\\? the columns are 'text'"),
        ({"template": "{{ text }}"}, {"text": None}, "null"),
        ({"template": "{{ text }}"}, {"text": " "}, "the prompt is empty"),
        ({"template": "{{ text.x.y }}"}, {"text": "x"}, "does not have"),
        ({"template": "{{ 1 // n }}"}, {"n": 0}, "fails on this row"),
        ({"template": "{{ ''.__class__ }}"}, {}, "the template"),
        ({"template": "{{ 'x' * 10**8 }}"}, {}, "Mi characters"),
        ({"model": ""}, {"prompt": "x"}, "no model"),
        ({"row_params": ["max_tokens"]}, {"prompt": "x", "max_tokens": "many"}, "column 'max_tokens' is no JSON value"),
        ({}, {"messages": "[]"}, "no list of messages"),
        ({}, {"messages": "[{}]"}, "role"),
        ({}, {"messages": "{"}, "no JSON"),
        ({}, {"prompt": "\ud83d"}, "surrogate"),
    ],
)
def test_a_row_that_cannot_be_asked_says_why(settings: dict[str, Any], values: dict[str, Any], words: str) -> None:
    with pytest.raises(RowError, match=words.replace("(", r"\(")):
        prompts(**settings)(row(**values))


def test_an_unreadable_row_keeps_its_reason() -> None:
    with pytest.raises(RowError, match="3 cells for 2 columns"):
        prompts()(row("3 cells for 2 columns", prompt="x"))


def test_row_parameters_override_and_empty_cells_do_not() -> None:
    ask = prompts(parameters={"temperature": 0.5, "top_p": 1}, row_params=["temperature", "top_p", "model", "stop"])
    body = sent(ask, row(prompt="x", temperature="0.10", top_p="", model="007", stop="END"))
    assert (body["temperature"], body["top_p"], body["model"], body["stop"]) == (0.10, 1, "007", "END")


def test_messages_come_as_text_or_as_a_list() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "x"}}]}]
    for value in (messages, json.dumps(messages)):
        request = prompts()(row(messages=value))
        assert json.loads(request.body)["messages"] == messages
        assert request.content == "hi"


def test_the_key_is_everything_that_is_sent_and_nothing_else() -> None:
    key = prompts()(row(prompt="x", other="1")).key
    assert prompts()(row(prompt="x", other="2")).key == key
    assert prompts(template="{{ a }}")(row(a="x")).key == key
    assert (
        prompts(parameters={"a": 1, "b": 2})(row(prompt="x")).key == prompts(parameters={"b": 2, "a": 1})(row(prompt="x")).key
    )
    others = [
        prompts()(row(prompt="y")),
        prompts(model="other")(row(prompt="x")),
        prompts(system="s")(row(prompt="x")),
        prompts(parameters={"seed": 1})(row(prompt="x")),
        Prompts(WIRES["ails"], "https://example.com/v1", model="m")(row(prompt="x")),
        Prompts(WIRES["openai"], "https://example.org/v1", model="m")(row(prompt="x")),
    ]
    assert key not in {other.key for other in others}


def test_a_template_that_does_not_parse_names_its_line() -> None:
    with pytest.raises(JobError, match="the template, line 2: expected token"):
        prompts(template="fine\n{{ oh no }}")


def test_a_condition_sees_the_columns() -> None:
    assert Condition("lang == 'de' and n > 1")({"lang": "de", "n": 2})
    assert not Condition("text")({"text": ""})
    with pytest.raises(RowError, match="no column 'lang'"):
        Condition("lang == 'de'")({"text": ""})
    assert Condition("text")({"text": "a", "self": "a word that Jinja2 keeps for itself"})
    with pytest.raises(JobError, match="--where"):
        Condition("lang ==")


def test_a_column_of_any_name_is_an_item_of_the_row() -> None:
    values = {"Customer Name": "Ada", "2nd": "b", 'Bob\'s "x"': "c", "items": "d", "price": loads(b"0.10")}
    ask = prompts(
        template="""{{ row["Customer Name"] }} {{ row['2nd'] }} {{ row["Bob's \\"x\\""] }} {{ row.items }} {{ row.price }}""",
        system="{% for name in row if 'a' in name %}{{ name }}{% endfor %}",
    )
    messages = sent(ask, row(**values))["messages"]
    assert [message["content"] for message in messages] == ["Customer Name", "Ada b c d 0.10"]
    assert Condition('row["Customer Name"] == "Ada" and "2nd" in row')(values)
    assert not Condition('row["Customer Name"] == "Bob"')(values)


def test_a_column_called_row_is_that_column() -> None:
    assert prompts(template="{{ row }} {{ row.x }}")(row(row={"x": 1}, x=2)).content == '{"x":1} 1'
    assert Condition("row == '7'")({"row": "7"})


@pytest.mark.parametrize("name", ["nam", "items", "_values", "get"])
def test_a_missing_item_of_the_row_is_a_missing_column(name: str) -> None:
    values = {"name": "x"}
    with pytest.raises(RowError) as plain:
        prompts(template=f"{{{{ {name} }}}}")(row(**values))
    for template in (f'{{{{ row["{name}"] }}}}', f'{{{{ row["{name}"] | upper }}}}'):
        with pytest.raises(RowError) as item:
            prompts(template=template)(row(**values))
        assert str(item.value) == str(plain.value)
    with pytest.raises(RowError, match=f"no column '{name}'"):
        Condition(f'row["{name}"] == "x"')(values)
    assert prompts(template=f'{{{{ row["{name}"] | default("none") }}}}')(row(**values)).content == "none"


@pytest.mark.parametrize("template", ["{{ row }}", "{{ row | upper }}", "{% if row %}x{% endif %}", "{{ row == 'x' }}"])
def test_the_row_itself_is_no_value_so_what_a_missing_column_meant_stays(template: str) -> None:
    with pytest.raises(RowError, match="no column 'row'; the columns are 'a'"):
        prompts(template=template)(row(a="x"))
    assert prompts(template="{{ row | default('none') }}, {{ row is defined }}")(row(a="x")).content == "none, false"


def test_the_row_cannot_be_reached_through() -> None:
    for template in ("{{ row._values }}", "{{ row.__class__ }}", "{{ row['__init__'].__globals__ }}"):
        with pytest.raises(RowError):
            prompts(template=template)(row(a="x"))


def test_who_cannot_write_a_name_is_told_how() -> None:
    values = {"Customer Name": "Ada", "2nd": "b"}
    with pytest.raises(RowError) as unlike:
        prompts(template="{{ Customer_Name }}")(row(**values))
    assert """did you mean 'Customer Name'? write {{ row["Customer Name"] }}; the columns are""" in str(unlike.value)
    with pytest.raises(RowError) as unlike:
        Condition("Customer_Name")(values)
    assert """did you mean 'Customer Name'? write row["Customer Name"]; the columns are""" in str(unlike.value)
    with pytest.raises(RowError, match="did you mean 'Customer Name'\\? the columns are"):
        prompts(column="Customer_Name")(row(**values))
    for name in values:
        with pytest.raises(JobError) as spaced:
            prompts(template=f"Dear\n{{{{ id }}}}, {{{{ {name} }}}}")
        assert "the template, line 2: expected" in str(spaced.value)
        assert str(spaced.value).endswith(f"""(a column of that name is written {{{{ row["{name}"] }}}})""")
    with pytest.raises(JobError) as compared:
        Condition("Customer Name == 'Ada'")
    assert str(compared.value).endswith("""(a column of that name is written row["Customer Name"])""")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("id;prompt", "separated by ';'; save it with commas as .csv, or with tabs as .tsv"),
        ("id|prompt", "separated by '|'; save it with commas as .csv, or with tabs as .tsv"),
        ("id\tprompt", "separated by tabs; name it .tsv, or give --input-format tsv"),
        ("id,prompt", "separated by commas; name it .csv, or give --input-format csv"),
    ],
)
def test_a_table_with_another_separator_is_told_from_one_that_lacks_a_column(column: str, words: str) -> None:
    for settings in ({}, {"template": "{{ prompt }}"}):
        with pytest.raises(RowError) as error:
            prompts(**settings)(row(**{column: "1"}))
        assert str(error.value) == f"no column 'prompt'; the only one is {column!r}: the file seems to be {words}"
    with pytest.raises(RowError, match="the columns are"):
        prompts()(row(**{column: "1", "text": "x"}))
    with pytest.raises(RowError, match="the columns are 'Question, in short'; name one with --prompt-column"):
        prompts()(row(**{"Question, in short": "1"}))


def test_who_compares_with_one_sign_is_told_that_two_compare() -> None:
    for condition in ("id = 3", "lang == 'a=b' and id = 3"):
        with pytest.raises(JobError, match=r"--where: .*write == to compare; cells of CSV and TSV are texts"):
            Condition(condition)
    with pytest.raises(JobError) as other:
        Condition("lang == 'a=b' 7")
    assert "write ==" not in str(other.value)


def test_a_filter_that_fails_on_a_value_fails_that_row_alone() -> None:
    with pytest.raises(RowError, match="the template fails on this row: 'str' object has no attribute 'items'"):
        prompts(template="{{ text | dictsort }}")(row(text="a"))
    with pytest.raises(RowError, match="--where fails on this row"):
        Condition("text | dictsort")({"text": "a"})


@pytest.mark.parametrize("expression", ["text | map('upper')", "text | items", "range"])
def test_what_prints_otherwise_in_every_run_is_not_sent(expression: str) -> None:
    with pytest.raises(RowError, match="which is no value"):
        prompts(template=f"{{{{ {expression} }}}}")(row(text="a"))


@given(st.dictionaries(st.text(min_size=1), st.text() | st.none() | st.integers() | st.lists(st.text()), max_size=4), st.text())
def test_any_row_becomes_a_request_or_says_why_not(values: dict[str, Any], template: str) -> None:
    try:
        ask = prompts(template=template)
    except JobError:
        return
    with contextlib.suppress(RowError):
        ask(Row(0, "x, line 1", values))


cells: st.SearchStrategy[Any] = st.sampled_from(["x", "", " \n", "naïve 😀", "\ud800", None, 7]) | st.text()
columns = st.sampled_from(["prompt", "messages", "custom_id", "body", "text"])


@given(
    st.lists(st.dictionaries(columns, cells, max_size=3).map(lambda values: row(**values)) | st.just(row("torn")), max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "column": columns,
            "model": st.sampled_from(["", "m"]),
            "template": st.just("{{ text }}"),
            "system": st.just("{{ text }}"),
            "row_params": st.just(["text"]),
            "parameters": st.sampled_from([{"max_tokens": 5}, {"n": 2}, {"zz": "\ud800"}]),
        },
    ),
)
def test_several_rows_are_asked_as_each_of_them_is(rows: list[Row], given: dict[str, Any]) -> None:
    ask = prompts(**given)
    found = ask.several(rows)

    if found is not None:
        assert found == [ask(one) for one in rows]
    elif rows and given.keys() <= {"column"}:
        name = given.get("column", "prompt")
        plain = [one for one in rows if isinstance(text := one.values.get(name), str) and text.strip() and text != "\ud800"]
        assert len(plain) < len(rows)
