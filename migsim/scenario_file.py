"""Reading a scenario's file: YAML or JSON, of limited size, without aliases and without keys that stand twice."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_FILE = 1 << 20


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message is one line: where, what, what is allowed, the nearest name.
    What of it came from a file cannot act on the terminal."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.splitlines())))


def read(path: Path) -> Any:
    """What a YAML or JSON file, or a recording's folder, holds. Raises ScenarioError."""
    try:
        path = path / "scenario.json" if path.is_dir() else path
        if path.exists() and not path.is_file():
            raise ScenarioError(f"{path}: not a file: a YAML or JSON scenario or a recording's folder is needed")
        if path.stat().st_size > MAX_FILE:
            raise ScenarioError(f"{path}: larger than {MAX_FILE >> 20} MiB: no scenario")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}: a YAML or JSON scenario or a recording's folder is needed") \
            from None
    except UnicodeDecodeError:
        raise ScenarioError(f"{path}: not a text file in UTF-8") from None
    return (_json if path.suffix == ".json" else _yaml)(path, text)


def _json(path: Path, text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        got: dict[str, Any] = {}
        for key, value in pairs:
            if key in got:
                raise ScenarioError(f"{path}: {key!r} stands there twice in one mapping")
            got[key] = value
        return got

    try:
        return json.loads(text, object_pairs_hook=once)
    except ScenarioError:
        raise
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path}: {error}") from None


def _yaml(path: Path, text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses aliases, and a key that stands twice in one mapping."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.composer.ComposerError(None, None, "aliases are not allowed in a scenario",
                                                  self.peek_event().start_mark)
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands there twice",
                                                            key.start_mark)
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        told = f"{path}: {where}{getattr(error, 'problem', None) or error}"
        raise ScenarioError(told) from None
