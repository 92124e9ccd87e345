"""At which coverage and sizes an objective reads a store of candidate sets."""

from collections.abc import Mapping

from pydantic import model_validator

from lrmoclip.edge.typed import Count, PositiveShare, Typed

LIMITS = ("coverage", "k_min", "k_max")


class Reading(Typed):
    """coverage, k_min, k_max: at which the store is read, its own where they are not given. Sets
    that were stored wider, a larger k_min included, are read exactly: each is a prefix."""

    coverage: PositiveShare | None = None
    k_min: Count | None = None
    k_max: Count | None = None

    @model_validator(mode="after")
    def _smallest_is_not_above_largest(self):
        if self.k_min and self.k_max and self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}, lower it")
        return self

    def narrowed(self, stored: Mapping) -> dict | None:
        """As `Objective.narrowed`."""
        kept = {key: stored[key] for key in LIMITS}
        asked = {key: kept[key] if (own := getattr(self, key)) is None else own for key in LIMITS}
        for key, value in asked.items():
            if value > kept[key]:
                raise ValueError(
                    f"{key}: {value} is wider than Stage 0's {kept[key]}. Raise stage0.{key} in "
                    "the scale's config"
                )
        if asked["k_max"] < asked["k_min"]:
            raise ValueError(
                f"k_max: {self.k_max} is below Stage 0's k_min {stored['k_min']}. Raise k_max"
            )
        return None if asked == kept else asked
