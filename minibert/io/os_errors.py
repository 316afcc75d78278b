"""What the operating system refused, in words."""

from __future__ import annotations

import errno

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room on that disk, and start again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "allow it, or choose another place"),
}


def in_words(error: OSError) -> str:
    """`path: reason`, as far as they are known; Python's own text begins with a number."""
    reason = error.strerror or str(error)
    return reason if error.filename is None else f"{error.filename}: {reason}"


def advice(error: OSError) -> str:
    """How to mend it, after a semicolon, where that can be said."""
    known = _ADVICE.get(error.errno or 0)
    return f"; {known}" if known else ""
