"""Objects, numbers, strings and dictionaries."""

import json
import re


class Board:
    """Eight queens."""

    def __init__(self, size):
        self.size, self.found = size, 0
        self.columns, self.up, self.down = set(), set(), set()

    def place(self, row=0):
        if row == self.size:
            self.found += 1
            return
        for column in range(self.size):
            places = (column, row + column, row - column)
            taken = places[0] in self.columns or places[1] in self.up or places[2] in self.down
            if not taken:
                self.columns.add(places[0]), self.up.add(places[1]), self.down.add(places[2])
                self.place(row + 1)
                self.columns.remove(places[0])
                self.up.remove(places[1])
                self.down.remove(places[2])


def primes(end):
    sieve = bytearray([1]) * end
    for n in range(2, int(end**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, end, n)))
    return sum(sieve[2:])


def records(count):
    made = [{"id": n, "name": f"item {n * 7919 % count}", "share": n / 7} for n in range(count)]
    text = json.dumps(made, sort_keys=True)
    names = re.findall(r'"name": "item (\d+)"', text)
    return len(text), sum(map(int, names)), sum(one["share"] for one in json.loads(text))


def power(digits):
    return sum(int(digit) for digit in str(3**digits))


board = Board(8)
board.place()
total = 0.0
for n in range(1, 100_000):
    total += 1.0 / (n * n)
print(board.found, primes(300_000), records(8_000), power(8_000), total)
