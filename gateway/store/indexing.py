"""The search index: from what a Message says it can be found by (`message.terms`) to table `term`.

Terms come in no order, so each would touch a page of its own in every commit. They are therefore indexed in pieces,
sorted, when enough have come or when the writer is idle; until then a search looks at the few Messages that are not
indexed yet. How far the index goes is written in the same transaction, so a crash loses nothing of it.
"""

import apsw

INDEX_EVERY = 512  # Messages
PIECE_MAX = 4096  # Messages in one piece, when many wait
MARK = "indexed"

_INDEX = (
    "INSERT OR IGNORE INTO term (value, message) SELECT j.value, m.id FROM message m, json_each(m.terms) j"
    " WHERE m.id > ?1 AND m.id <= ?2 AND m.terms IS NOT NULL ORDER BY j.value, m.id"
)
_REMOVE = (
    "DELETE FROM term WHERE (value, message) IN"
    " (SELECT j.value, m.id FROM message m, json_each(m.terms) j WHERE m.id IN ({}))"
)
FIND = (
    "SELECT id FROM message WHERE identifier = ? UNION SELECT message FROM term WHERE value = ?"
    " UNION SELECT m.id FROM message m, json_each(m.terms) j WHERE j.value = ?"
    f" AND m.id > (SELECT CAST(value AS INTEGER) FROM about WHERE name = '{MARK}')"
)


def indexed_until(connection: apsw.Connection) -> int:
    """Return the number of the last Message whose terms are indexed."""
    value = connection.execute("SELECT value FROM about WHERE name = ?", (MARK,)).get
    return 0 if value is None else int(value)


def index_piece(connection: apsw.Connection, after: int, last: int) -> int:
    """Index Messages beyond `after`, at most to `last`, in the open transaction; return how far the index goes now."""
    until = min(last, after + PIECE_MAX)
    connection.execute(_INDEX, (after, until))
    connection.execute("INSERT OR REPLACE INTO about (name, value) VALUES (?, ?)", (MARK, str(until)))
    return until


def remove_terms(connection: apsw.Connection, messages: list[int]) -> None:
    """Forget what Messages can be found by, while their rows still stand."""
    connection.execute(_REMOVE.format(",".join("?" * len(messages))), messages)
