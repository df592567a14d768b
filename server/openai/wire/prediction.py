"""The wire shape of a predicted output. Shapes only."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.openai.wire.messages import Content


class Prediction(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, hide_input_in_errors=True)

    type: Literal["content"] = Field(description="Always content.")
    content: Content = Field(description="The text, or parts of the type text.")

    @property
    def text(self) -> str:
        """Parts without anything between them."""
        return "".join(part.said for part in self.content or ())
