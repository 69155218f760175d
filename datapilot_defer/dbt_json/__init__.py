"""A JSON parser that accepts what dbt's own loader accepts, and decodes one entry at a time.

dbt decodes a file as UTF-8, strips whitespace and calls `json.loads`. Therefore, a byte order mark,
UTF-16, control characters and trailing commas are rejected. The last occurrence of a repeated key
is used. NaN, infinities and unpaired surrogates are accepted.

Source: `load_file_contents` and `read_json` in dbt-common 1.x.
"""

from datapilot_defer.dbt_json.diagnosis import NotJsonError
from datapilot_defer.dbt_json.parser import count, decode, entries, split, walk, walk_list

__all__ = ["NotJsonError", "count", "decode", "entries", "split", "walk", "walk_list"]
