"""A service of one's own: it sells seats, each of them once, and keeps them in the store."""

from labrys.workloads.client import DefiniteError, IndefiniteError
from labrys.workloads.keyvalue import KeyValue

FREE = "free"
ATTEMPTS = 3


class Seats:
    """Sells seats. Customers have names that nobody else has."""

    def __init__(self, store: KeyValue) -> None:
        self._store = store

    def offer(self, seat: str) -> None:
        """Put a seat up for sale."""
        self._store.put(seat, FREE)

    def holder(self, seat: str) -> str:
        """Who has the seat, or `free`."""
        return self._store.get(seat)

    def sell(self, seat: str, name: str) -> bool:
        """Sell a seat; False: it is taken."""
        for _ in range(ATTEMPTS):
            try:
                self._store.cas(seat, FREE, name)
            except IndefiniteError:
                continue  # no answer: try again
            except DefiniteError as error:
                if error.code != "mismatch":
                    raise
                return False
            return True
        raise IndefiniteError("no-answer")


class CarefulSeats(Seats):
    """Knows that an attempt without an answer may have succeeded."""

    def sell(self, seat: str, name: str) -> bool:
        """Sell a seat; False: somebody else has it."""
        return super().sell(seat, name) or self.holder(seat) == name
