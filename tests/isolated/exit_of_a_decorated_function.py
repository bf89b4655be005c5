"""A decorated function at module level, the most usual way to use the library, needs no farewell."""

from pybatch import batched


@batched
def double(items: list[int]) -> list[int]:
    return [item * 2 for item in items]


class Model:
    @batched
    def predict(self, items: list[int]) -> list[int]:
        return items


model = Model()
assert double(21) == 42
assert model.predict(1) == 1
print("done")
