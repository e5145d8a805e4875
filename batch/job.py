"""What is to be done: `Job` and `Endpoint`, said once, checked once, by file, option or call."""

# Without annotations from the future: these here are looked at whenever a job is made, and reading them from texts takes longer
# than all the rest of that.

import os
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from .errors import JobError
from .exact import dumps
from .settings import secret_file, setting
from .signature import Credentials

EMBEDDED: dict[str, Literal["auto", "local", "echo"]] = {
    "embedded": "auto",
    "embedded:local": "local",
    "embedded:echo": "echo",
}
"""Endpoints that are the project's own gateway, and what answers there: `auto` is the real model where it is installed."""

PATHS = (
    "input",
    "output",
    "journal",
    "template_file",
    "schema",
    "errors",
    "metrics_file",
    "log_file",
    "api_key_file",
    "secret_file",
)
PLACEHOLDER = re.compile(r"\{(date|datetime|month|year)\}")

BOUNDS = {">": "greater than", ">=": "at least", "<=": "at most"}
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
    "duration": "a timedelta",
}
"""What msgspec calls things, in words."""

WITHOUT = {"sample": "all rows", "limit": "all rows", "burst": "0.01"}
"""What a field means that is left out, where that is neither a value nor "no limit"."""

PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_new_tokens",
        "max_tokens",
        "metadata",
        "min_p",
        "min_tokens",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
    }
)
"""What chat completions are commonly told beside model and messages, at OpenAI and at the servers that speak its protocol."""

ELSEWHERE = dict.fromkeys(PARAMETERS, "it is a parameter of the request: write it under [parameters]") | {
    "quiet": "it is an option of the command line only: --quiet"
}
"""Keys that are none of a job, and where they belong."""

# Beyond these, sockets and iterators of Python take no number.
Positive = Annotated[float, Meta(gt=0, le=1e12)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Count = Annotated[int, Meta(ge=1, le=10**12)]
Name = Annotated[str, Meta(min_length=1)]


class FieldError(JobError):
    """A field's value does not fit.

    Args:
        field: Its name.
        words: What is wrong with the value, and what to do.
        where: The job file's name, or "".
    """

    def __init__(self, field: str, words: str, where: str = "") -> None:
        super().__init__(": ".join(filter(None, (where, field, words))))
        self.field = field
        self.words = words


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where prompts go, and which settings hold its credentials: their names, never their values.

    Attributes:
        url: Base URL, or one of `EMBEDDED`: the project's own gateway.
        protocol: `ails` (signed) or `openai`.
        name: What the endpoint is known by in a row's key; by default its URL without user, query and trailing slash.
        api_key_env, secret_env: Names of the settings (environment or `.env`) with the credentials.
        api_key_file, secret_file: Files of mode 0600 to read them from instead.
        client_version: Sent as `client-v`.
        allow_http: Whether plain `http` may go to other machines.

    Raises:
        JobError: A value does not fit.

    Example:
        >>> import batch
        >>> house = batch.Endpoint(url="https://llm.example.com/", api_key_env="HOUSE_KEY")
        >>> house.identity
        'https://llm.example.com'
    """

    url: str = ""
    protocol: Literal["ails", "openai"] | None = None
    name: str = ""
    api_key_env: str = ""
    secret_env: str = "AILS_SECRET"  # noqa: S105 (the name of a setting)
    api_key_file: str = ""
    secret_file: str = ""
    client_version: str = ""
    allow_http: bool = False

    def __post_init__(self) -> None:
        _check(self)

    @property
    def identity(self) -> str:
        """What the endpoint counts as when two requests are compared."""
        if self.name:
            return self.name
        parts = urlsplit(self.url)
        host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
        return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"

    def credentials(self) -> Credentials:
        """The key and the secret, read now.

        Raises:
            JobError: One of them is set nowhere, or its file can be read by others.
        """
        key_name = self.api_key_env or ("OPENAI_API_KEY" if self.protocol == "openai" else "AILS_API_KEY")
        key = secret_file(self.api_key_file) if self.api_key_file else setting(key_name)
        if not key:
            raise JobError(f"set {key_name} (environment or .env), the API key of {self.identity}, or give --api-key-file")
        if self.protocol == "openai":
            return Credentials(key, "")
        secret = secret_file(self.secret_file) if self.secret_file else setting(self.secret_env)
        if not secret:
            raise JobError(
                f"set {self.secret_env} (environment or .env), the secret that signs requests to {self.identity}, "
                "or give --secret-file; for an endpoint that takes no signature, say --protocol openai"
            )
        return Credentials(key, secret)


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars a million tokens.

    Raises:
        JobError: A value does not fit.

    Example:
        >>> import batch
        >>> job = batch.Job(price=batch.Price(prompt=0.15, completion=0.6), max_cost=5)
    """

    prompt: Annotated[float, Meta(ge=0, le=1e12)]
    completion: Annotated[float, Meta(ge=0, le=1e12)]

    def __post_init__(self) -> None:
        _check(self)


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One batch: what is read, what is asked, of whom, how fast, and what is written.

    The fields are the options of `ails-batch run` with `_` for `-`; `docs/jobs.md` has the table.

    Attributes:
        input: A path, `-` for standard input, or several paths and globs.
        output: A path, or `-` for JSON lines on standard output.
        journal: Where every answer is kept; by default the output's name with `.journal`.
        endpoint: A base URL, `embedded`, or an `Endpoint`; by default from `AILS_BASE_URL` or `OPENAI_BASE_URL`.
        parameters: Members of the request body beside model and messages, such as `max_tokens`.
        row_params: Columns that override parameters row by row.
        concurrency: Requests in flight at most, or `auto`.
        engine: `threads` of this process, or `processes` that only sign and send, for rates one process cannot reach.
        processes: How many of them; `auto` is one a core.
        rpm, tpm: Requests and tokens a minute.
        timeout: Seconds for one whole attempt.
        max_outage, deadline: Seconds.
        schema: A JSON Schema file that every answer must fit.
        repair: How often a row is asked again because its answer does not fit.
        explode: Whether the schema's top-level properties become columns.
        send_schema: Whether the schema is sent along as `response_format`; by default only with the protocol `openai`.
        repeat: How often every row is asked; its output rows stand side by side.
        check_first: Whether to read everything once before anything is sent.
        quota: A name or path; all jobs of this machine that say the same one share its rate.
        log_file, metrics_file, ping: Whom to tell how it goes: JSON lines, a file for node exporter, a healthchecks URL.

    Raises:
        JobError: A value does not fit its field; fields contradict each other, or need one that is not set.

    Example:
        >>> import batch
        >>> job = batch.Job(input="prompts.csv", output="answers.csv", rpm=600, deadline="6h")
        >>> job.deadline
        21600.0
        >>> batch.Job(quota="house")
        Traceback (most recent call last):
        batch.errors.JobError: quota shares a rate among jobs: say how much with rpm or tpm
    """

    input: str | list[str] = ""
    output: str = ""
    journal: str = ""
    input_format: str = ""
    output_format: str = ""
    encoding: str = "utf-8"

    prompt_column: str = ""
    template: str = ""
    template_file: str = ""
    system: str = ""
    model: str = ""
    parameters: dict[str, Any] = {}
    row_params: list[str] = []
    where: str = ""
    sample: Count | None = None
    sample_seed: int = 0
    limit: Count | None = None
    repeat: Count = 1
    check_first: bool = False

    schema: str = ""
    repair: Annotated[int, Meta(ge=0, le=100)] = 0
    explode: bool = False
    send_schema: bool | None = None

    endpoint: str | Endpoint = ""
    protocol: Literal["ails", "openai"] | None = None
    api_key_file: str = ""
    secret_file: str = ""
    allow_http: bool = False

    concurrency: Annotated[int, Meta(ge=1, le=1000)] | Literal["auto"] = "auto"
    engine: Literal["threads", "processes"] = "threads"
    processes: Count | Literal["auto"] = "auto"
    rpm: Positive | None = None
    tpm: Positive | None = None
    burst: Positive | None = None
    attempts: Count = 5
    timeout: Seconds | str = 600.0
    max_outage: Seconds | str = 1800.0
    deadline: Seconds | str | None = None
    halt: str = ""
    tolerate: str = ""
    max_cost: Positive | None = None
    price: Price | None = None

    prefix: str = ""
    keep_raw: bool = False
    csv_guard: bool = False
    errors: str = ""
    bad_rows: Annotated[int, Meta(ge=0)] | None = None
    retry_failed: bool = False
    fresh: bool = False
    wait: bool = False

    quota: str = ""
    log_file: str = ""
    metrics_file: str = ""
    ping: str = ""

    def __post_init__(self) -> None:
        """Check each field, then what they say together."""
        for name, kind in (("endpoint", Endpoint), ("price", Price)):
            if isinstance(table := getattr(self, name), Mapping):
                _known(table, kind, f"{name}: ")
        for name in ("timeout", "max_outage", "deadline"):
            if isinstance(value := getattr(self, name), str):
                msgspec.structs.force_setattr(self, name, duration(value, name))
        _check(self)
        if self.template and self.template_file:
            raise JobError("template and template_file exclude each other")
        if (self.template or self.template_file) and self.prompt_column:
            raise JobError(f"a template and prompt_column exclude each other: name {self.prompt_column} in the template")
        if self.parameters.get("n", 1) != 1:
            raise JobError("the parameter n asks for several answers to one row; leave it out")
        if self.errors and self.errors in ("-", self.output):
            raise JobError("errors: name a file of its own for the failed rows")
        if not self.schema and (self.repair or self.explode or self.send_schema):
            raise JobError("repair, explode and send_schema speak of a schema: name its file with schema")
        if self.max_cost is not None and self.price is None:
            raise JobError("max_cost needs to know the price: set price (US dollars a million prompt and completion tokens)")
        if self.quota and self.rpm is None and self.tpm is None:
            raise JobError("quota shares a rate among jobs: say how much with rpm or tpm")
        if PLACEHOLDER.search(self.output) and not self.journal:
            raise JobError(f"the output {self.output} is another file each time, so its journal needs a name: set journal")
        for name in ("halt", "tolerate"):
            if getattr(self, name):
                share(getattr(self, name), name)

    @property
    def inputs(self) -> list[str]:
        """The inputs as they were named."""
        return [self.input] if isinstance(self.input, str) else self.input

    def refuse_shared_files(self) -> None:
        """See that no two things go into one file, or into the input.

        Raises:
            JobError: Two do; the text names both.
        """
        names = ("output", "errors", "log_file", "metrics_file")
        taken = {os.path.realpath(path): "input" for path in self.inputs if path != "-"}
        for name, path in [("journal", str(self.journal_path or "")), *((name, getattr(self, name)) for name in names)]:
            if path and path != "-" and (other := taken.setdefault(os.path.realpath(path), name)) != name:
                raise JobError(f"{path} is named as {other} and as {name}; each needs a file of its own")

    @property
    def journal_path(self) -> Path | None:
        """Where the journal is; None when it is temporary (output on stdout and no journal named)."""
        if self.journal:
            return Path(self.journal)
        if self.output in ("", "-"):
            return None
        return Path(self.output + ".journal")

    def resolved_endpoint(self) -> Endpoint:
        """The endpoint, from the job or the environment, with its protocol.

        Raises:
            JobError: None is named anywhere, or two are and no protocol says which.
        """
        given = self.endpoint if isinstance(self.endpoint, Endpoint) else Endpoint(url=self.endpoint)
        url, protocol = given.url, self.protocol or given.protocol
        if not url:
            ails, openai = setting("AILS_BASE_URL"), setting("OPENAI_BASE_URL")
            if ails and openai and not protocol:
                raise JobError("AILS_BASE_URL and OPENAI_BASE_URL are both set; say which: --protocol ails or openai")
            protocol = protocol or ("openai" if openai and not ails else "ails")
            url = (openai if protocol == "openai" else ails) or ""
        if not url:
            wanted = "OPENAI_BASE_URL" if protocol == "openai" else "AILS_BASE_URL"
            raise JobError(f"no endpoint: give --endpoint URL, set {wanted}, or try --endpoint embedded")
        if url not in EMBEDDED and not _is_web(url):
            # What is no URL is not shown: whatever it is, it may hold a password.
            shown = f"endpoint {url!r}" if re.fullmatch(r"[\w.-]{1,40}", url) else "the endpoint"
            raise JobError(f"{shown} is neither a URL (https://host:port/path) nor {' nor '.join(map(repr, EMBEDDED))}")
        return msgspec.structs.replace(
            given,
            url=url,
            protocol=protocol or "ails",
            api_key_file=self.api_key_file or given.api_key_file,
            secret_file=self.secret_file or given.secret_file,
            allow_http=self.allow_http or given.allow_http,
        )

    def asked(self) -> dict[str, Any]:
        """The part of the job that decides what is sent, for comparing one run with the next."""
        names = ("prompt_column", "template", "system", "parameters", "row_params", "where", "sample", "sample_seed", "limit")
        more = ("repeat", "send_schema", "input_format", "encoding", "model")
        return {name: getattr(self, name) for name in (*names, *more)} | {"template": self.template_text()}

    def template_text(self) -> str:
        """The template, read from its file when it has one.

        Raises:
            JobError: The file cannot be read.
        """
        return _read(self.template_file, "a template") if self.template_file else self.template

    def schema_text(self) -> str:
        """The schema, read from its file; "" when there is none.

        Raises:
            JobError: The file cannot be read.
        """
        return _read(self.schema, "a schema") if self.schema else ""

    def shown(self) -> dict[str, Any]:
        """The job as plain data for the journal's header: no secrets, nor `ping`, for who knows that can speak for the job."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        del plain["ping"]
        if isinstance(self.endpoint, Endpoint):
            plain["endpoint"]["url"] = _bare(self.endpoint.url)
        else:
            plain["endpoint"] = _bare(self.endpoint)
        return plain


def _is_web(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number, a bracket that stays open
        return False


def _bare(url: str) -> str:
    """A URL without what may be a secret in it: user and query."""
    return re.sub(r"(^|//)[^/]*@", r"\1", url.partition("?")[0])


def digest(value: Any) -> str:
    """A short name for a value of plain data: equal values have equal names."""
    return blake2b(dumps(value), digest_size=16).hexdigest()


def duration(text: str, name: str = "duration") -> float:
    """Seconds, from `90`, `90s`, `30m`, `6h` or `1d`.

    Raises:
        FieldError: It is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d)?\s*", text)
    if not match or not float(match[1]):
        raise FieldError(name, f"{text!r} is no duration; write 90, 90s, 30m, 6h or 1d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, None: 1}[match[2]]


def share(text: str, name: str) -> tuple[float, bool]:
    """A number of failed rows, from `fail=5%` or `fail=20`.

    Returns:
        The number, and whether it is per cent.

    Raises:
        FieldError: It is neither.
    """
    match = re.fullmatch(r"\s*(?:fail\s*=\s*)?(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    if not match:
        raise FieldError(name, f"{text!r} is not understood; write fail=20 or fail=5%")
    return float(match[1]), bool(match[2])


def job(settings: Mapping[str, Any], *, where: str = "") -> Job:
    """A checked `Job` from plain data.

    Args:
        settings: Field names and values, as a job file or the options say them.
        where: The file's name, for messages.

    Raises:
        FieldError: A value does not fit.
        JobError: A key is unknown (the nearest known one is named), or two exclude each other.
    """
    at = f"{where}: " if where else ""
    _known(settings, Job, at)
    try:
        return Job(**settings)
    except FieldError as error:
        raise FieldError(error.field, error.words, where) from None
    except JobError as error:
        raise JobError(f"{at}{error}") from None


def load(path: str | Path, **overrides: Any) -> Job:
    """A job from its TOML file; paths in it are relative to it.

    Args:
        path: The file.
        **overrides: Fields that replace the file's.

    Raises:
        JobError: The file cannot be read, is no TOML, or holds a key or value that does not fit.

    Example:
        >>> import batch, pathlib
        >>> _ = pathlib.Path("nightly.toml").write_text('input = "inbox.csv"')
        >>> job = batch.load("nightly.toml", output="answered.csv")
        >>> job.input, job.output
        ('inbox.csv', 'answered.csv')
    """
    import tomllib

    path = Path(path)
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise JobError(f"{path}: no such job file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read: {_words(error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise JobError(f"{path}: not TOML: {error}") from None
    for table in (settings, settings.get("endpoint")):
        if isinstance(table, dict):
            table |= {name: _beside(path.parent, value) for name, value in table.items() if name in PATHS}
    if "/" in str(settings.get("quota", "")):
        settings["quota"] = str((path.parent / settings["quota"]).absolute())  # still with a slash, which tells it from a name
    return job(settings | overrides, where=str(path))


def dated(name: str, now: datetime) -> str:
    """A file name with `{date}`, `{datetime}`, `{month}` and `{year}` filled in."""
    forms = {"date": "%Y-%m-%d", "datetime": "%Y-%m-%dT%H-%M-%S", "month": "%Y-%m", "year": "%Y"}
    return PLACEHOLDER.sub(lambda match: now.strftime(forms[match[1]]), name)


def _check(made: msgspec.Struct) -> None:
    """See that every value fits its field, and keep it as the type that the field has."""
    fields = _fields(type(made))
    values = {name: getattr(made, name) for name in made.__struct_fields__}
    try:
        fits = msgspec.convert({name: one if name == "parameters" else _plain(one) for name, one in values.items()}, fields)
        dumps(values.get("parameters"))
    except msgspec.ValidationError as error:
        raise FieldError(*_plainly(str(error), values)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise FieldError("parameters", f"have no JSON form: {error}") from None
    for name in values:
        msgspec.structs.force_setattr(made, name, getattr(fits, name))


@cache
def _fields(kind: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The same fields without a check of their own: msgspec looks at types only where it converts, not where it constructs."""
    return msgspec.defstruct(kind.__name__, list(kind.__annotations__.items()), kw_only=True)


def _plain(value: Any) -> Any:
    """Numbers as Python has them: a journal gives them as they were written, which msgspec does not take for floats."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return float(value) if isinstance(value, float) else value


def _beside(folder: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_beside(folder, one) for one in value]
    if not isinstance(value, str) or value in ("", "-") or "://" in value:
        return value
    there = folder / value
    plain = os.path.normpath(there)
    # `a/../b` is `b`, unless `a` is a link that leads elsewhere.
    return plain if os.path.realpath(plain) == os.path.realpath(there) else str(there)


def _known(settings: Mapping[str, Any], kind: type[msgspec.Struct], at: str) -> None:
    names = kind.__struct_fields__
    for key in settings:
        if key not in names:
            import difflib

            name = str(key).replace("-", "_")
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(names)}"
            raise JobError(f"{at}unknown key {key!r}; {ELSEWHERE.get(name, hint) if kind is Job else hint}")


def _plainly(message: str, values: Mapping[str, Any]) -> tuple[str, str]:
    """The key, and what is wrong with its value, from a message of msgspec: `Expected `int`, got `str` - at `$.rpm``."""
    match = re.fullmatch(r"(.*) - at (`key` in )?`\$\.?([^`]*)`", message)
    text, named, key = (match[1], match[2], match[3]) if match else (message, None, "")
    if bound := re.fullmatch(r"Expected `\w+` ([<>]=?) (\S+)", text):
        return key, f"must be {BOUNDS[bound[1]]} {float(bound[2]):g}{_without(key)}{_found(key, values)}"
    choices = _choices(key)
    if kinds := re.fullmatch(r"Expected `([\w |]+)`, got `([\w.]+)`", text):
        wanted = " or ".join(KINDS.get(kind, kind) for kind in kinds[1].split(" | ") if kind != "null")
        must = "every key must be" if named else "must be"
        return key, f"{must} {choices or wanted}, not {KINDS.get(kinds[2], kinds[2])}"
    if text.startswith("Invalid enum value ") and choices:
        return key, f"must be {choices}, not {text.removeprefix('Invalid enum value ')}"
    return key, (text[:1].lower() + text[1:]).replace("`", "'")


def _without(key: str) -> str:
    """What to do instead of writing a number that does not fit."""
    if key not in Job.__struct_fields__:
        return ""
    default = getattr(Job(), key)
    return f"; leave it out for {WITHOUT.get(key, 'no limit' if default is None else default)}"


def _found(key: str, values: Mapping[str, Any]) -> str:
    """The number that does not fit; one inside a table stands beside its words anyway."""
    return f" (it is {values[key]})" if key in values else ""


def _choices(key: str) -> str:
    """The words that a field may be, and whether it may be a number, too; "" for a field that may be any text."""
    hint = (get_type_hints(Endpoint) | get_type_hints(Job)).get(key.rpartition(".")[2])
    kinds = [one for one in (hint, *get_args(hint)) if one is int or get_origin(one) is Literal]
    words = [repr(word) for kind in kinds for word in get_args(kind)]
    return " or ".join((["a whole number"] if int in kinds else []) + words) if words else ""


def _read(path: str, what: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: cannot be read as {what}: {_words(error)}") from None


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
