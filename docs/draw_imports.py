"""Draw the imports between the rooms of the package into ``docs/architecture.md``: ``python docs/draw_imports.py``."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "activelr_service"
PAGE = ROOT / "docs" / "architecture.md"
EVERYWHERE = {"errors", "redact", "__init__"}  # what all rooms may import would only blur the picture
BLOCK = re.compile(r"```mermaid\n.*?```", re.DOTALL)


def room_of(path: Path) -> str:
    """The first folder or module under the package."""
    return Path(path.relative_to(PACKAGE).parts[0]).stem


def find_imports() -> dict[str, set[str]]:
    """Each room with the rooms that it imports."""
    rooms: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found = rooms.setdefault(room_of(path), set())
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("activelr_service."):
                found.add(module.split(".")[1])
    return {room: found - {room} - EVERYWHERE for room, found in rooms.items() if room not in EVERYWHERE}


def reachable(room: str, imports: dict[str, set[str]]) -> set[str]:
    """The rooms that a room imports by one step or more. Raises ``RecursionError`` if the imports go in a circle."""
    return imports[room].union(*(reachable(other, imports) for other in imports[room]))


def draw() -> str:
    """A mermaid flow chart. An arrow that a longer way of arrows implies is left out."""
    imports = find_imports()
    lines = ["flowchart TD"]
    for room, found in imports.items():
        implied = set().union(*(reachable(other, imports) for other in found))
        lines += [f"    {room} --> {other}" for other in sorted(found - implied)]
        lines += [f"    {room}"] if not found and not any(room in others for others in imports.values()) else []
    return "\n".join(["```mermaid", *lines, "```"])


if __name__ == "__main__":
    PAGE.write_text(BLOCK.sub(lambda _: draw(), PAGE.read_text()))
