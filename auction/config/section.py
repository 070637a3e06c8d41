"""What every section of the configuration has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Settings under one name: nothing unknown, nothing changed afterwards, nothing converted on the quiet."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
