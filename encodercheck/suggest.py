"""What somebody may have meant, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# So many choices are listed where none of them is close.
MOST_LISTED = 12


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return a way out: the words nearest to ``word``, or else all of them if they are few.

    >>> did_you_mean("profil", ["profile", "seed"])
    "did you mean 'profile'?"
    >>> did_you_mean("colour", ["profile", "seed"])
    'choose one of profile, seed'
    """
    choices = list(dict.fromkeys(words))
    folded = {choice.casefold(): choice for choice in reversed(choices)}
    near = get_close_matches(word.casefold(), folded, n=2)
    if near:
        return f"did you mean {' or '.join(repr(folded[match]) for match in near)}?"
    if len(choices) > MOST_LISTED:
        return f"choose one of {', '.join(choices[:MOST_LISTED])}, ..."
    return f"choose one of {', '.join(choices)}" if choices else "there are none"
