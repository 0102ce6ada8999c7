"""The system's randomness."""

import random
import uuid


class SystemChance:
    """`Chance` from the operating system: two workers never draw the same token."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def token(self) -> str:
        return uuid.uuid4().hex

    def fraction(self) -> float:
        return self._random.random()
