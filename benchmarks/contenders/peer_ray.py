"""Ray's ``@serve.batch`` in a plain process: it wants to be in a replica of a deployment, so it is told that it is.

No cluster runs: its metrics are counted but sent to nobody. What is measured is the decorator, without what serves it.
"""

from ray import serve  # pyright: ignore[reportMissingImports]
from ray.serve import context  # pyright: ignore[reportMissingImports]
from ray.serve._private.common import DeploymentID, ReplicaID  # pyright: ignore[reportMissingImports]
from ray.serve._private.config import DeploymentConfig  # pyright: ignore[reportMissingImports]
from ray.serve.schema import ReplicaRank  # pyright: ignore[reportMissingImports]

from contenders.interface import AsyncFn


class RayServe:
    def __init__(self, fn: AsyncFn, max_batch_size: int, **settings: float) -> None:
        context._set_internal_replica_context(
            replica_id=ReplicaID("replica", DeploymentID("deployment")),
            servable_object=fn,
            _deployment_config=DeploymentConfig(max_ongoing_requests=1_000_000),
            rank=ReplicaRank(rank=0, node_rank=0, local_rank=0),
            world_size=1,
        )
        self.submit = serve.batch(max_batch_size=max_batch_size, **settings)(fn)

    async def close(self) -> None:
        """Leave its task to the end of the loop, which cancels it: there is no other way."""
