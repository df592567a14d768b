"""Which of a teacher's answers a student shall learn. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from jobs.tasks.evaluate.metrics import Answered, normalised

_HASHES = 64  # of a MinHash signature: its error is about an eighth
_SHINGLE = 3  # words


class Filters(BaseModel):
    """agreement: of several samples, only those that say what most say; by their last number where they have one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_chars: int = Field(1, ge=0, description="Characters of an answer, at least.")
    max_chars: int | None = Field(None, ge=1, description="Characters of an answer, at most.")
    pattern: str | None = Field(None, description="A regular expression that an answer must contain.")
    is_json: bool = Field(False, description="Answers must be JSON.")
    agreement: float = Field(0.0, ge=0, le=1, description="Part of the samples that must agree; 0 keeps all.")
    near_duplicates: float | None = Field(None, gt=0, le=1, description="Likeness (Jaccard) from which an answer is one too many.")
    min_grade: float | None = Field(None, ge=1, le=5, description="The judge's grade, at least.")


def kept(samples: Sequence[Answered], filters: Filters) -> list[int]:
    """Which samples of one prompt are kept, by their places; equal ones once."""
    sound = [index for index, each in enumerate(samples) if is_sound(each, filters)]
    if filters.agreement and sound:
        said = [gist(samples[index].text) for index in sound]
        most, count = Counter(said).most_common(1)[0]
        sound = [index for index, each in zip(sound, said, strict=True) if each == most]
        if count < filters.agreement * len(samples):
            return []
    seen: set[tuple[str, str]] = set()
    unique = []
    for index in sound:
        key = (samples[index].text.strip(), json.dumps(samples[index].calls, sort_keys=True))
        if key not in seen:
            seen.add(key)
            unique.append(index)
    return unique


def is_sound(answered: Answered, filters: Filters) -> bool:
    """Length and form. A call whose arguments are no JSON object is never sound; a sound call needs no text."""
    if answered.calls:
        return all(arguments is not None for _, arguments in answered.calls)
    text = answered.text.strip()
    if len(text) < max(1, filters.min_chars) or (filters.max_chars is not None and len(text) > filters.max_chars):
        return False
    if filters.pattern is not None and re.search(filters.pattern, text) is None:
        return False
    return not filters.is_json or _is_json(text)


def gist(text: str) -> str:
    """What samples are compared by: the last number, or else all words."""
    numbers = re.findall(r"-?\d[\d,]*\.?\d*", text)
    return numbers[-1].replace(",", "").rstrip(".") if numbers else normalised(text)


def without_near_duplicates(texts: Sequence[str], likeness: float) -> list[int]:
    """The places of those that are not like an earlier one, by MinHash over words (Broder, 1997)."""
    places: list[int] = []
    signatures: list[tuple[int, ...]] = []
    for index, text in enumerate(texts):
        mine = signature(text)
        if all(sum(a == b for a, b in zip(mine, other, strict=True)) < likeness * _HASHES for other in signatures):
            places.append(index)
            signatures.append(mine)
    return places


def signature(text: str) -> tuple[int, ...]:
    """MinHash of the text's shingles."""
    words = normalised(text).split()
    shingles = {" ".join(words[start : start + _SHINGLE]) for start in range(max(1, len(words) - _SHINGLE + 1))}
    return tuple(min(map(_hash_with(number), shingles)) for number in range(_HASHES))


def _hash_with(number: int) -> Callable[[str], int]:
    salt = number.to_bytes(8, "big")

    def hashed(shingle: str) -> int:
        return int.from_bytes(hashlib.blake2b(shingle.encode(), digest_size=8, salt=salt).digest(), "big")

    return hashed


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
