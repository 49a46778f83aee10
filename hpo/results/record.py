"""What results are made of."""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A result: JSON-able, its values do not change."""

    model_config = ConfigDict(frozen=True)
