"""Messages of library errors, shortened to stand in ours."""

import re


def reason(err: BaseException) -> str:
    """One line of at most 200 characters that says why a file could not be read.

    Args:
        err: What the library raised.

    Examples:
        >>> reason(IsADirectoryError(21, "Is a directory", "a.csv"))
        'is a directory'
        >>> reason(UnicodeDecodeError("utf-8", bytes([0xB5]), 0, 1, "invalid start byte"))
        'byte 0xb5, which is no UTF-8 text'
    """
    if isinstance(err, MemoryError) and not str(err):
        return "more memory than there is"
    if isinstance(err, UnicodeDecodeError):
        return f"byte {err.object[err.start]:#04x}, which is no UTF-8 text"
    if isinstance(err, UnicodeEncodeError):  # of a name that was decoded with what is no text
        return "a name that is no UTF-8 text"
    if isinstance(err, OSError) and err.errno is not None and err.strerror:
        return err.strerror[:1].lower() + err.strerror[1:]
    said = str(err.args[0]) if isinstance(err, KeyError) and err.args else str(err)
    if isinstance(err, AssertionError) and not said:
        said = "a part that is missing or of another kind"
    if "No read method registered" in said:  # AnnData's, of its classes
        said = "an encoding that AnnData does not know"
    said = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", said)
    said = re.sub(r"\bNoneType\b", "nothing", said)
    said = re.sub(r" ?(?:<[^<>]* object at 0x[0-9a-f]+>|\[?Errno \d+\]?:?)", "", said)
    return " ".join(said.split())[:200].rstrip(".") or type(err).__name__
