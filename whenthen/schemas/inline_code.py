"""Which words of a command are code of an interpreter, such as the one after `sh -c`. Pure.

Called by `schemas.deployments`: a placeholder in code is code, whatever the quotes around it, so it is refused when the
rules are loaded. Meaning: docs/deployments.md, "Commands". Programs that are not listed here take words as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

__all__ = ["CodeWord", "code_words"]

_OPEN = "{{"


class CodeWord(NamedTuple):
    """A word that a program reads as code, or may read as an option with code."""

    place: int  #: its index among the words
    program: str
    remedy: str  #: what to write in its place; `{name}` and `{found}` stand for the parameter and its placeholder


class _Operands(Enum):
    """Which operands are code when no option takes their place."""

    NONE = auto()
    FIRST = auto()
    LATER = auto()  #: all but the first
    ALL = auto()


@dataclass(frozen=True, slots=True)
class _Language:
    """How a program is given code."""

    letters: str = ""  #: options of one letter whose argument is code
    names: tuple[str, ...] = ()  #: and long ones, without dashes
    taking: str = ""  #: further options of one letter that take an argument
    names_taking: tuple[str, ...] = ()  #: and long ones
    names_taking_two: tuple[str, ...] = ()
    optional: str = ""  #: options of one letter whose argument is the rest of the word or nothing
    attached: bool = True  #: an argument may follow its letter in the same word; otherwise letters are flags
    one_dash: bool = False  #: long options have one dash and may be cut short (`-Comm`)
    ends: bool = False  #: no option follows the code
    to_the_end: bool = False  #: all words after the code are code, too
    permutes: bool = False  #: options may follow operands
    operands: _Operands = _Operands.NONE
    instead: tuple[str, ...] = ()  #: options after which no operand is code
    subcommands: tuple[str, ...] = ()  #: first operands after which all words are code
    remedy: str = "give it as a further word, or read the environment variable WHENTHEN_PARAM_{name}"


_SCRIPT = "put the code into a file of its own that reads the environment variable WHENTHEN_PARAM_{name}"
_SQL = "pass it as a variable of the client's, or put the statement into a script of its own"
_SHELL_REMEDY = 'write "$1" there and give {found} as a further word (sh -c \'echo "$1"\' sh {found}), or write "$WHENTHEN_PARAM_{name}"'
_SHELL = _Language(
    letters="c",
    names=("command",),
    taking="oO",
    names_taking=("rcfile", "init-file"),
    attached=False,
    remedy=_SHELL_REMEDY,
)
_EVAL = _Language(letters="e", names=("eval", "execute", "print"))
_LANGUAGES: dict[str, _Language] = {
    **dict.fromkeys(
        [
            "sh",
            "bash",
            "dash",
            "zsh",
            "ksh",
            "ksh93",
            "mksh",
            "pdksh",
            "oksh",
            "loksh",
            "ash",
            "hush",
            "yash",
            "rbash",
            "csh",
            "tcsh",
            "posh",
            "osh",
            "elvish",
            "xonsh",
            "nu",
        ],
        _SHELL,
    ),
    "fish": _Language(letters="cC", names=("command", "init-command"), taking="dDof", remedy=_SHELL_REMEDY),
    "python": _Language(letters="c", ends=True, taking="WXm", names_taking=("check-hash-based-pycs",)),
    "perl": _Language(letters="eEMm", taking="I", optional="FixDC"),
    "ruby": _Language(letters="e", taking="ICEr", optional="iFKxWT"),
    "node": _Language(
        names=("e", "p", "pe", "eval", "print"),
        names_taking=("r", "c", "require", "import", "conditions"),
        one_dash=True,
    ),
    "deno": _Language(subcommands=("eval",)),
    "php": _Language(letters="rBRE", names=("run", "process-begin", "process-code", "process-end"), taking="dcfztS"),
    "lua": _Language(letters="e", taking="l"),
    "awk": _Language(
        letters="e",
        names=("source",),
        taking="FvfilE",
        names_taking=("file", "field-separator", "assign", "exec", "include", "load"),
        operands=_Operands.FIRST,
        instead=("e", "f", "E", "source", "file", "exec"),
        remedy="give it with -v name={found} and use the variable",
    ),
    "sed": _Language(
        letters="e",
        names=("expression",),
        taking="fl",
        optional="i",
        names_taking=("file", "line-length"),
        permutes=True,
        operands=_Operands.FIRST,
        instead=("e", "f", "expression", "file"),
        remedy=_SCRIPT,
    ),
    "jq": _Language(
        taking="L",
        names_taking=("indent",),
        names_taking_two=("arg", "argjson", "slurpfile", "rawfile"),
        operands=_Operands.FIRST,
        instead=("f", "from-file"),
        remedy="give it with --arg name {found} and use $name",
    ),
    **dict.fromkeys(
        [
            "groovy",
            "scala",
            "racket",
            "osascript",
            "ghc",
            "clojure",
            "clj",
            "tsx",
            "ts-node",
            "iex",
            "rscript",
            "raku",
            "guile",
        ],
        _EVAL,
    ),
    "guile": _Language(letters="ce", taking="Lls"),
    "julia": _Language(letters="eE", names=("eval", "print"), taking="LJCptm"),
    "elixir": _Language(letters="e", names=("eval", "rpc-eval"), taking="r"),
    "erl": _Language(names=("eval",), one_dash=True),
    "expect": _Language(letters="c"),
    "psql": _Language(
        letters="c",
        names=("command",),
        taking="dfhLoPpRTUvF",
        permutes=True,
        remedy="give it with -v name={found} and write :'name' in a script (-f)",
    ),
    **dict.fromkeys(
        ["mysql", "mariadb", "cqlsh", "snowsql"],
        _Language(
            letters="e",
            names=("execute", "init-command"),
            taking="hPuDS",
            optional="p",
            permutes=True,
            remedy=_SQL,
        ),
    ),
    **dict.fromkeys(
        ["clickhouse-client", "clickhouse", "trino", "presto", "sqlcmd"],
        _Language(letters="qQ", names=("query", "execute"), remedy=_SQL),
    ),
    "duckdb": _Language(
        names=("c", "s", "cmd"), one_dash=True, names_taking=("init",), operands=_Operands.LATER, remedy=_SQL
    ),
    "sqlite3": _Language(
        names=("cmd",),
        one_dash=True,
        names_taking=("separator", "nullvalue", "newline", "init"),
        operands=_Operands.LATER,
        remedy=_SQL,
    ),
    **dict.fromkeys(("mongo", "mongosh"), _Language(names=("eval",))),
    "redis-cli": _Language(taking="hpans", subcommands=("eval",), names_taking=("user", "pass")),
    **{
        name: _Language(
            names=("c", "command", "e", "ec", "encodedcommand", "commandwithargs", "cwa"),
            names_taking=("executionpolicy", "ep", "ex", "file", "version", "windowstyle", "workingdirectory", "wd"),
            one_dash=True,
            to_the_end=True,
            operands=operands,
            instead=("f", "fi", "fil", "file"),
            remedy="read $env:WHENTHEN_PARAM_{name} there",
        )
        for name, operands in (("powershell", _Operands.ALL), ("pwsh", _Operands.FIRST))
    },
    **dict.fromkeys(
        ("su", "runuser", "script", "flock"),
        _Language(letters="c", names=("command", "session-command"), taking="sgGwEI", permutes=True, remedy=_SCRIPT),
    ),
    **dict.fromkeys(("npx", "npm"), _Language(letters="c", names=("call",), taking="p", names_taking=("package",))),
    "ssh": _Language(
        letters="o",
        taking="BbcDEeFIiJLlmOpQRSWw",
        operands=_Operands.LATER,
        remedy="the other host's shell reads all words; keep the code in a file there and send the value to its input",
    ),
    "env": _Language(letters="S", names=("split-string",), taking="uCP", remedy=_SCRIPT),
    **dict.fromkeys(("eval", "watch", "parallel"), _Language(operands=_Operands.ALL, remedy=_SCRIPT)),
}
#: a program that a parameter names: options that mean code to most
_UNKNOWN = _Language(letters="ceE", names=("command", "eval"), attached=False, remedy=_SCRIPT)
_ALIASES = {
    **dict.fromkeys(("pypy", "ipython"), "python"),
    **dict.fromkeys(("nodejs", "bun"), "node"),
    **dict.fromkeys(("gawk", "mawk", "nawk", "original-awk"), "awk"),
    "luajit": "lua",
    "gsed": "sed",
    "gojq": "jq",
    "r": "rscript",
    "jruby": "ruby",
}
#: programs that run a further one of their words
_WRAPPERS = frozenset(
    [
        "busybox",
        "caffeinate",
        "chronic",
        "chroot",
        "chrt",
        "command",
        "doas",
        "dumb-init",
        "env",
        "exec",
        "fakeroot",
        "firejail",
        "flock",
        "gosu",
        "ionice",
        "ltrace",
        "nice",
        "nohup",
        "nsenter",
        "numactl",
        "pipenv",
        "poetry",
        "proxychains",
        "rlwrap",
        "runuser",
        "setarch",
        "setpriv",
        "setsid",
        "stdbuf",
        "strace",
        "su",
        "su-exec",
        "sudo",
        "systemd-run",
        "taskset",
        "time",
        "timeout",
        "tini",
        "torsocks",
        "toybox",
        "unbuffer",
        "unshare",
        "uv",
        "xargs",
    ]
)
_VERSION = re.compile(r"-?[0-9]+(\.[0-9]+)*[a-z]?$")


def code_words(words: Sequence[str]) -> Iterator[CodeWord]:
    """The words that are code, and those with a placeholder that may become an option with code in it.

    A program is looked for in the first word, in each word behind a wrapper (`env`, `sudo`, `timeout 5`, `busybox`) and,
    when an option gives it code, behind any word (`docker run image sh -c`, `find -exec sh -c`).
    """
    wrapped = False
    for index, word in enumerate(words):
        name = _name_of(word)
        ran = index == 0 or wrapped
        wrapped = wrapped or (ran and name in _WRAPPERS)
        if ran and name == "cmd":
            yield from _after_slash(words, index)
        elif name in _LANGUAGES:
            yield from _code_of(words, index, _LANGUAGES[name], ran=ran)
        elif ran and _OPEN in word:
            yield from _code_of(words, index, _UNKNOWN, ran=False)


def _name_of(word: str) -> str:
    name = re.split(r"[/\\]", word)[-1].lower().removesuffix(".exe")
    if name not in _LANGUAGES:
        name = _VERSION.sub("", name) or name
    return _ALIASES.get(name, name)


def _after_slash(words: Sequence[str], index: int) -> Iterator[CodeWord]:
    for place in range(index + 1, len(words)):
        if words[place][:2].lower() in ("/c", "/k", "/r"):
            for code in range(place, len(words)):
                yield CodeWord(code, words[index], _SCRIPT)
            return


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    """One word of options, as a program reads it."""

    name: str = ""  #: of the option that has an argument
    code: bool = False  #: the argument is code
    argument: str | None = None  #: within the word
    takes: int = 0  #: further words that are arguments
    open: bool = False  #: a placeholder stands where options do


def _code_of(words: Sequence[str], index: int, language: _Language, *, ran: bool) -> Iterator[CodeWord]:
    """The code words of the program at `index`; when it is not known to be run (`ran`), only those behind options."""

    def code(*places: int) -> Iterator[CodeWord]:
        return (CodeWord(place, words[index], language.remedy) for place in places if place < len(words))

    place = index + 1
    first_is_code = replaced = False
    operands: list[int] = []
    while place < len(words):
        word = words[place]
        if word == "--":
            place += 1
            break
        if ran and word.startswith(_OPEN) and not first_is_code:
            yield CodeWord(place, words[index], "its value may be an option with code; put `--` or `./` before it")
            break
        if len(word) < 2 or word[0] not in "-+":
            if not language.permutes:
                break
            operands.append(place)
            place += 1
            continue
        option = _read_option(word, language)
        if option.open:
            yield CodeWord(place, words[index], "its value may be an option with code; write the option itself")
        place += 1
        replaced = replaced or option.name in language.instead
        if language is _LANGUAGES["python"] and option.name == "m":
            if (option.argument or "".join(words[place : place + 1])) == "timeit":
                yield from code(*range(place, len(words)))
            return
        if language.to_the_end and (option.code or replaced):
            yield from code(*range(place - 1, len(words)) if option.code else ())
            return
        if option.code and option.argument is not None:
            yield from code(place - 1)
        elif option.code and language.attached:
            yield from code(place)
            place += 1
        else:
            first_is_code = first_is_code or option.code
        if option.code and language.ends:
            return
        place += option.takes
    operands += range(place, len(words))
    if first_is_code:
        yield from code(place)
    elif operands and words[operands[0]].lower() in language.subcommands:
        yield from code(*operands[1:])
    elif ran and not replaced:
        match language.operands:
            case _Operands.FIRST:
                yield from code(*operands[:1])
            case _Operands.LATER:
                yield from code(*operands[1:])
            case _Operands.ALL:
                yield from code(*operands)
            case _Operands.NONE:
                pass


def _read_option(word: str, language: _Language) -> _Option:
    if word.startswith("--") or language.one_dash:
        name, equals, value = word.lstrip("-").partition("=")
        known, argument = name.lower(), value if equals else None
        if _OPEN in name:
            return _Option(open=True)
        if _among(known, language.names, language):
            return _Option(name=known, code=True, argument=argument)
        if _among(known, language.names_taking, language):
            return _Option(name=known, argument=argument, takes=0 if equals else 1)
        return _Option(name=known, takes=2 if known in language.names_taking_two else 0)
    code, takes = False, 0
    for position, letter in enumerate(word[1:], start=1):
        if word.startswith(_OPEN, position):
            return _Option(open=True, code=code, takes=takes)
        if letter in language.optional:
            break
        if letter not in language.letters and letter not in language.taking:
            if letter in language.instead:
                return _Option(name=letter)
        elif language.attached:
            rest = word[position + 1 :] or None
            is_code = letter in language.letters
            return _Option(name=letter, code=is_code, argument=rest, takes=0 if is_code or rest else 1)
        else:
            code, takes = code or letter in language.letters, takes + (letter in language.taking)
    return _Option(code=code, takes=takes)


def _among(name: str, known: Sequence[str], language: _Language) -> bool:
    return name in known or (language.one_dash and len(name) > 2 and any(one.startswith(name) for one in known))
