"""What a template may call: filters, tests and methods, by what their work depends on.

Used by `templates.environment`. What is listed here is all that a template can call. Filters that are about HTML,
random numbers or Python objects are left out: the text must be the same on every retry.
"""

from __future__ import annotations

__all__ = [
    "CONSTANT",
    "DEEP",
    "FILTERS",
    "LIST_METHODS",
    "MAPPING_METHODS",
    "STRING_METHODS",
    "WRITTEN",
]

#: filters that templates may use
FILTERS = frozenset(
    (
        "abs",
        "batch",
        "capitalize",
        "center",
        "count",
        "d",
        "default",
        "dictsort",
        "e",
        "escape",
        "filesizeformat",
        "first",
        "float",
        "format",
        "from_json",
        "groupby",
        "indent",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "parse_time",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "round",
        "select",
        "selectattr",
        "slice",
        "sort",
        "string",
        "sum",
        "title",
        "tojson",
        "trim",
        "truncate",
        "unique",
        "upper",
        "urlencode",
        "wordcount",
        "wordwrap",
    )
)
#: filters and tests whose work does not depend on the size of their arguments
CONSTANT = frozenset(("count", "d", "default", "defined", "first", "last", "length", "mapping", "none"))
#: filters and tests whose work depends on everything inside their arguments
DEEP = frozenset(
    (
        "!=",
        "<",
        "<=",
        "==",
        ">",
        ">=",
        "dictsort",
        "e",
        "eq",
        "equalto",
        "escape",
        "ge",
        "greaterthan",
        "groupby",
        "gt",
        "in",
        "le",
        "lessthan",
        "lt",
        "max",
        "min",
        "ne",
        "sort",
        "string",
        "unique",
        "urlencode",
    )
)
#: filters that make a text of their first arguments, and of how many: those are converted by `scalar_text` first
WRITTEN = {
    **dict.fromkeys(
        ("capitalize", "center", "e", "escape", "indent", "lower", "string", "title", "trim", "truncate"), 1
    ),
    **dict.fromkeys(("format", "upper", "wordcount", "wordwrap"), 1),
    "replace": 3,
}
STRING_METHODS = frozenset(
    (
        "capitalize",
        "casefold",
        "center",
        "count",
        "endswith",
        "find",
        "format",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "ljust",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rjust",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
        "zfill",
    )
)
MAPPING_METHODS = frozenset(("get", "items", "keys", "values"))
LIST_METHODS = frozenset(("count", "index"))
