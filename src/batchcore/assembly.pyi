from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from batchcore.form import Form, Piece
from batchcore.memory import Pool

class Assembler(Form):
    max_batch_size: int
    def __init__(
        self,
        *,
        axis: int | None = None,
        value: complex | Mapping[Any, complex] | Sequence[complex] = 0,
        left: bool = False,
        multiple_of: int = 1,
        buckets: Sequence[int] = (),
        give: Literal["lengths", "mask"] | None = None,
        dtype: Any = None,
        staged: bool = False,
        filler: Literal["repeat", "zeros"] = "repeat",
        array_module: Literal["numpy", "torch"] = "numpy",
        max_batch_size: int = 64,
        max_concurrent_batches: int = 1,
    ) -> None: ...
    @property
    def pool(self) -> Pool: ...
    def prepare_item(self, item: Any) -> Piece: ...
    def stage_piece(self, piece: Piece, stage: object = None) -> object: ...
    def assemble_pieces(self, pieces: Iterable[Piece], size: int | None = None) -> tuple[Any, ...]: ...
    def assemble_items(self, items: Iterable[Any], size: int | None = None) -> tuple[Any, ...]: ...
