"""JSON as dbt's own loader reads it, entry by entry, without building the complete document.

dbt decodes a file as UTF-8, strips whitespace and calls `json.loads`. So a byte order mark, UTF-16,
control characters and trailing commas are rejected, the last occurrence of a repeated key counts,
and NaN, infinities and half a surrogate pair are read.

Source: `load_file_contents` and `read_json` in dbt-common 1.x.
"""

from datapilot_defer.dbt_json.diagnosis import NotJsonError
from datapilot_defer.dbt_json.parser import count, decode, entries, split, walk, walk_list

__all__ = ["NotJsonError", "count", "decode", "entries", "split", "walk", "walk_list"]
