"""In which form a result is written: pickle, JSON, either of them compressed. Given as an object or by its name."""

from __future__ import annotations

import json
import pickle
from typing import Any, Final

from whenthen.flows.flow_errors import ConfigurationError, SerializationError

__all__ = ["FORMS", "CompressedSerializer", "JSONSerializer", "PickleSerializer", "Serializer", "form_of"]


class Serializer:
    """One form. `type` is its name."""

    type: str

    def dump(self, value: Any, file: Any) -> None:
        """Write `value` to a binary file.

        Raises:
            SerializationError: the value can not be written in this form.
        """
        try:
            self._dump(value, file)
        except OSError:
            raise
        except Exception as problem:
            raise SerializationError(
                f"a result of class {type(value).__name__} can not be written as {self.type}: {problem}; return something that can, or "
                "use persist_result=False"
            ) from None

    def load(self, file: Any) -> Any:
        """The value that the file holds from here on."""
        raise NotImplementedError

    def _dump(self, value: Any, file: Any) -> None:
        file.write(self.dumps(value))

    def dumps(self, value: Any) -> bytes:
        raise NotImplementedError

    def loads(self, data: bytes) -> Any:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Serializer) and self.type == other.type

    def __hash__(self) -> int:
        return hash(self.type)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.type!r})"


class PickleSerializer(Serializer):
    """Any object that pickle knows. A large one is written and read without a second copy."""

    type = "pickle"

    def _dump(self, value: Any, file: Any) -> None:
        pickle.dump(value, file, protocol=5)

    def load(self, file: Any) -> Any:
        return pickle.load(file)

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, protocol=5)

    def loads(self, data: bytes) -> Any:
        return pickle.loads(data)


class JSONSerializer(Serializer):
    """What JSON knows, and pydantic models, which are read as plain objects. Nothing is executed when it is read."""

    type = "json"

    def load(self, file: Any) -> Any:
        return json.loads(file.read())

    def dumps(self, value: Any) -> bytes:
        return json.dumps(value, default=_plain).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


class CompressedSerializer(Serializer):
    """Another form, compressed."""

    def __init__(self, serializer: Serializer | str = "pickle") -> None:
        self.serializer = form_of(serializer)
        self.type = f"compressed/{self.serializer.type}"

    def load(self, file: Any) -> Any:
        return self.loads(file.read())

    def dumps(self, value: Any) -> bytes:
        import zlib

        return zlib.compress(self.serializer.dumps(value))

    def loads(self, data: bytes) -> Any:
        import zlib

        return self.serializer.loads(zlib.decompress(data))


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not known to JSON")


def form_of(serializer: Serializer | str | None) -> Serializer:
    """The form that is meant; pickle when none is given.

    Raises:
        ConfigurationError: there is none of this name.
    """
    if isinstance(serializer, Serializer):
        return serializer
    found = FORMS.get("pickle" if serializer is None else serializer)
    if found is None:
        raise ConfigurationError(f"result_serializer: {serializer!r:.80} is none of {', '.join(FORMS)}")
    return found


FORMS: Final[dict[Any, Serializer]] = {"pickle": PickleSerializer(), "json": JSONSerializer()}
FORMS.update({f"compressed/{name}": CompressedSerializer(FORMS[name]) for name in ("pickle", "json")})
