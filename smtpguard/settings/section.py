"""What every section of the settings is."""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from smtpguard.settings.kinds import read_secret


class Section(BaseModel):
    """One table of the settings. A secret ``x`` can be read from the file that ``x_file`` names."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    secrets: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_secrets(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        files = {name: values[f"{name}_file"] for name in cls.secrets if f"{name}_file" in values}
        for name in files:
            if name in values:
                raise ValueError(f"{name} and {name}_file are both set")
        paths = {name: path for name, path in files.items() if isinstance(path, str | Path)}
        return values | {name: read_secret(f"{name}_file", path) for name, path in paths.items()}
